"""Why a model answers as it does: from the importance of bases to motifs, their instances and their rules."""
