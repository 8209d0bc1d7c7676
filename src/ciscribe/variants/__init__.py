"""What a change of the sequence does: variants scored by models and motifs, compared with nulls, traced to people.

`alleles` checks alleles against a genome and writes the sequences that carry them, `score` asks a model what they
change, `null` says whether that is more than chance would do.
"""

from ciscribe.variants import benchmark, finemap, motif_effects, null, personal, score

CARDS = (score.CARD, null.CARD, *motif_effects.CARDS.values(), *personal.CARDS.values(), *finemap.CARDS.values(),
         *benchmark.CARDS.values())
