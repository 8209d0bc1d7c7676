"""Building blocks that several models share: each file is one idea, plain `torch.nn` modules and functions.

Nothing here knows about genomes, files or losses; models compose these blocks and state the paper they follow.
"""
