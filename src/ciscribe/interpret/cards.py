"""The cards of all that explains a model, for the catalogue."""

from ciscribe import pwm
from ciscribe.card import Card
from ciscribe.interpret import (
    attention,
    deeplift,
    gradient,
    hits,
    modalities,
    modisco,
    motifs,
    periodicity,
    robustness,
    seqlets,
    shapley,
    surrogate,
    syntax,
)
from ciscribe.perturb import context, experiments, mutagenesis, tiles

CARDS: tuple[Card, ...] = (
    deeplift.CARD, *gradient.CARDS.values(), mutagenesis.CARD, *attention.CARDS.values(), *shapley.CARDS.values(),
    *modalities.CARDS.values(),
    tiles.CARD, *experiments.CARDS.values(), context.CARD, seqlets.CARD, *modisco.CARDS, pwm.CARD, motifs.CARD,
    hits.CARD, syntax.CARD, periodicity.CARD, *surrogate.CARDS.values(), *robustness.CARDS.values(),
)
"""Names are unique."""
