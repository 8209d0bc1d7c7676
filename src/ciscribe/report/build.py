"""The page around the sections: headline numbers, contents, method cards, provenance, and the file on disk.

The page carries its own style sheet and drawings, runs no script, and forbids itself to load anything; it
opens the same from a disk, a mail or a server. The same input gives the same bytes.
"""

import os
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.plot.style import COLORS
from ciscribe.provenance import write_text
from ciscribe.report.sections import Section

_DOI = re.compile(r"\b10\.\d{4,9}/[^\s;,<>\"']+")
_ARXIV = re.compile(r"\barXiv:\s?(\d{4}\.\d{4,5})", re.IGNORECASE)


def build_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
    summary: Sequence[tuple[str, str, str]],
    sections: Sequence[Section | None],
    cards: Sequence[Card],
    provenance: Mapping[str, Any],
) -> None:
    """Write the report of a run as one HTML file, whole or not at all.

    Parameters
    ----------
    path
        Where to write; an older report there is replaced.
    title, subtitle
        What the run is, and one line about its model and data.
    summary
        Headline tiles: label, value as it is shown, and a short note.
    sections
        In reading order; None (a section without data) is left out.
    cards
        Of every method that the report speaks about.
    provenance
        What made the run; nested dictionaries and lists are written out.

    Raises
    ------
    SchemaError
        If two sections share an anchor.

    Notes
    -----
    All text is escaped; only the ``html`` of a section goes in as it is.
    """
    present = [section for section in sections if section is not None]
    anchors = [section.anchor for section in present]
    if twice := sorted({a for a in anchors if anchors.count(a) > 1} | ({"cards", "provenance"} & set(anchors))):
        raise SchemaError(
            f"every section needs an anchor of its own ('cards' and 'provenance' are taken); "
            f"used twice: {', '.join(twice)}"
        )
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["citation"] = _citation
    template = environment.from_string(files("ciscribe.report").joinpath("template.html.j2").read_text("utf-8"))
    write_text(
        path,
        template.render(
            title=title,
            subtitle=subtitle,
            summary=summary,
            sections=present,
            cards=[(c, _facts(c)) for c in cards],
            provenance=[(_words(k), _flat(v)) for k, v in provenance.items()],
            colors=COLORS,
        ),
    )


def _facts(card: Card) -> list[tuple[str, str]]:
    """Rows of a card's table; what depends on the arguments (None) is left out."""
    lengths = (
        ("Input length", card.input_length),
        ("Receptive field", card.receptive_field),
        ("Resolution", card.resolution),
        ("Crop", card.crop),
    )
    facts = [
        ("Publication", card.paper),
        ("Code", card.code),
        ("License", card.licence),
        *((name, f"{bp:,} bp") for name, bp in lengths if bp is not None),
        ("N in the sequence", card.n_policy),
    ]
    if card.parameters is not None:
        facts.append(("Trained parameters", f"{card.parameters:,}"))
    return facts


def _citation(text: str) -> Markup:
    """Escape a citation and link the first DOI or arXiv number in it; a link for people, never loaded."""
    for pattern, site, group in ((_DOI, "https://doi.org/", 0), (_ARXIV, "https://arxiv.org/abs/", 1)):
        if found := pattern.search(text):
            shown = found.group().rstrip(".)")
            target = found.group(group).rstrip(".)")
            before, after = text[: found.start()], text[found.start() + len(shown) :]
            return Markup('{}<a href="{}{}" rel="noreferrer">{}</a>{}').format(before, site, target, shown, after)
    return escape(text)


def _words(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _flat(value: Any) -> str:
    """One line of text for any JSON-like value."""
    if isinstance(value, Mapping):
        return " · ".join(f"{k} {_flat(v)}" for k, v in value.items()) or "(none)"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_flat, value)) or "(none)"
    return "(not known)" if value is None else str(value)
