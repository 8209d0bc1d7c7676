"""Which element serves which gene: contact and activity, models, experiments, and what joins them."""

from ciscribe.links import abc, benchmark, combine, contact, model

CARDS = (abc.CARD, contact.CARD, *model.CARDS.values(), combine.CARD, benchmark.CARD)
