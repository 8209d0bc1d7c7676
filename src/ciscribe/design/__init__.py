"""New regulatory DNA: what is wanted, what is allowed, who proposes, what it cost, and whether to believe it."""

from ciscribe.design import alleles, benchmark
from ciscribe.design.generators import GENERATORS
from ciscribe.design.methods import DESIGNERS

CARDS = (*(kind.card for kind in DESIGNERS.values()), *(kind.card for kind in GENERATORS.values()),
         alleles.EnumerateAlleles.card, *benchmark.CARDS.values())
