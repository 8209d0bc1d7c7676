"""Every designer by its name."""

import inspect
from typing import Any

from ciscribe.design import evolve, gradient, implant, policy, population
from ciscribe.design.designer import Designer
from ciscribe.design.generators import Sample
from ciscribe.errors import ConfigError, UnknownNameError, nearest

DESIGNERS: dict[str, type[Designer]] = {
    "screen": evolve.Screen,
    "greedy": evolve.Greedy,
    "sswm": evolve.SSWM,
    "drift": evolve.Drift,
    "anneal": population.Anneal,
    "genetic": population.Genetic,
    "adalead": population.AdaLead,
    "implant": implant.Implant,
    "grammar": implant.Syntax,
    "seqprop": gradient.SeqProp,
    "edit": gradient.Edit,
    "latent": gradient.Latent,
    "sample": Sample,
    "reinforce": policy.Reinforce,
    "grpo": policy.GRPO,
    "drakes": policy.Drakes,
}
"""What ``design(method=...)`` takes; each is made anew for every run."""


def make_designer(method: str | type[Designer], **options: Any) -> Designer:
    """Make the designer of that name, or of a class of your own.

    Raises
    ------
    UnknownNameError
        Listing the names.
    ConfigError
        For an option that the designer does not have, listing those that it has.
    """
    if isinstance(method, str):
        if method not in DESIGNERS:
            raise UnknownNameError(f"no designer is called {method!r}; {nearest(method, DESIGNERS)}")
        method = DESIGNERS[method]
    known = inspect.signature(method).parameters
    wrong = [name for name in options if name not in known]
    if wrong and not any(option.kind is option.VAR_KEYWORD for option in known.values()):  # such a one checks itself
        raise ConfigError(f"{method.card.name} has no option {wrong[0]!r}; {nearest(wrong[0], known)}")
    return method(**options)
