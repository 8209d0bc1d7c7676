"""Which element serves which gene: contact and activity, models, experiments, and what joins them."""

from ciscribe.links import abc, combine, contact, crispri, model

CARDS = (abc.CARD, contact.CARD, *model.CARDS.values(), combine.CARD, crispri.CARD)
