"""The card of a method: what it is, who published it, whose code, and what we do differently.

Every model, caller and benchmark baseline owns one. Reports end with the cards of what they used, and
``ciscribe catalog`` tabulates them.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ciscribe.errors import SchemaError

Task = Literal["classification", "regression", "profile", "tracks", "language model"]
Attribution = Literal["gradient", "ism", "deeplift", "attention"]
Kind = Literal["model", "baseline", "elements", "attribution", "interpretation", "variants", "links", "designer",
               "benchmark"]


@dataclass(frozen=True)
class Card:
    """Facts about one method, for people and for reports.

    Parameters
    ----------
    name
        Registry name, lower case.
    kind
        What sort of method it is.
    summary
        One sentence that a biologist understands.
    paper
        Authors, title or venue, year, DOI or arXiv number; "own" for ours.
    code
        Reference code ``owner/repo@commit:path`` or "written from the paper".
    licence
        Licence of our code and of any published weights.
    differences
        Numbered differences from the publication, one sentence each.
    input_length, receptive_field, resolution, crop
        In bp; None where it depends on the arguments.
    n_policy
        What an N does.
    parameters
        Number of trained parameters with the published defaults; None for methods without any.
    task
        What a model was published for.
    attribution
        Ways to explain a model that hold for all of its layers.
    """

    name: str
    kind: Kind
    summary: str
    paper: str
    code: str = "written from the paper"
    licence: str = "MIT"
    differences: tuple[str, ...] = ()
    input_length: int | None = None
    receptive_field: int | None = None
    resolution: int | None = None
    crop: int | None = None
    n_policy: str = "N is four zeros"
    parameters: int | None = None
    task: Task | None = None
    attribution: tuple[Attribution, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.lower():
            raise SchemaError(f"a card's name is lower case and not empty; got {self.name!r}")
        if not self.summary.strip().endswith("."):
            raise SchemaError(f"a card's summary is a sentence and ends in a full stop; got {self.summary!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, JSON-ready."""
        return asdict(self) | {"differences": list(self.differences), "attribution": list(self.attribution)}

    def to_markdown(self) -> str:
        """Model card as Markdown, the text that is saved beside the weights."""
        facts = [("Kind", self.kind), ("Paper", self.paper), ("Code", self.code), ("Licence", self.licence),
                 ("Input length (bp)", self.input_length), ("Receptive field (bp)", self.receptive_field),
                 ("Resolution (bp)", self.resolution), ("Crop (bp)", self.crop), ("N policy", self.n_policy),
                 ("Parameters", self.parameters), ("Task", self.task),
                 ("Attribution", ", ".join(self.attribution) or None)]
        lines = [f"# {self.name}", "", self.summary, ""]
        lines += [f"- **{k}**: {v}" for k, v in facts if v is not None]
        if self.differences:
            lines += ["", "Differences from the publication:", ""]
            lines += [f"{i}. {d}" for i, d in enumerate(self.differences, 1)]
        return "\n".join(lines) + "\n"
