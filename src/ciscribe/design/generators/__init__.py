"""Networks that learn what natural regulatory DNA looks like and draw more of it: one interface, four ways."""

from ciscribe.design.generators.autoregressive import AutoregressiveLM
from ciscribe.design.generators.base import Generator
from ciscribe.design.generators.designer import Sample
from ciscribe.design.generators.diffusion import MaskedDiffusion
from ciscribe.design.generators.flow import DirichletFlow
from ciscribe.design.generators.gan import WGAN

GENERATORS: dict[str, type[Generator]] = {
    cls.card.name: cls for cls in (AutoregressiveLM, DirichletFlow, MaskedDiffusion, WGAN)}

__all__ = ["GENERATORS", "WGAN", "AutoregressiveLM", "DirichletFlow", "Generator", "MaskedDiffusion", "Sample"]
