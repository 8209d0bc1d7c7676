"""Building blocks that several models share: each file is one idea, plain `torch.nn` modules and functions.

Nothing here knows about genomes, files or losses. Models compose these blocks, and name their papers.
"""
