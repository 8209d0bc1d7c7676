"""Files to objects and back, nothing else: genomes, tracks, intervals, genes, expression, variants.

Coordinates are 0-based and half-open inside; the 1-based worlds of GTF and VCF end at these readers.
Import from the modules: ``from ciscribe.io.genome import Genome``.
"""
