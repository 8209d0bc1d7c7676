"""The reference pages tell the truth: every key of the configurations and every argument of the models, with its
default, and no other.
"""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ciscribe.card import Card
from ciscribe.config import BenchConfig, CompareConfig, DesignConfig, LinksConfig, ReporterConfig, RunConfig
from ciscribe.models import registry

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
MODELS = REFERENCE / "models.md"
ROW = re.compile(r"^\| `(?P<key>\w+)` \| (?P<default>.+?) \| (?P<meaning>.+?) \|$", flags=re.MULTILINE)
PAGES = {"configuration.md": {"top level": RunConfig},
         "reporter-configuration.md": {"top level": ReporterConfig, "benchmark": BenchConfig},
         "links-configuration.md": {"top level": LinksConfig},
         "compare-configuration.md": {"top level": CompareConfig},
         "design-configuration.md": {"top level": DesignConfig}}


def part_of(annotation) -> type[BaseModel] | None:
    """The part of the configuration that an annotation holds, also inside a list or dictionary or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((part for part in map(part_of, get_args(annotation)) if part is not None), None)


def show(field: FieldInfo, default, told: bool) -> str:
    """Default as the page writes it; `told` parts have their section above."""
    if field.is_required() and default is None:
        return "required"
    if isinstance(default, BaseModel):
        return "above" if told else "below"
    return f"`{json.dumps(default)}`"


def sections(part: type[BaseModel], name: str, told: set[type[BaseModel]], given: BaseModel | None = None
             ) -> dict[str, dict[str, str]]:
    """Section of the page → key → default, from the models; parts in `told` are on the page already."""
    fields = {key: field for key, field in part.model_fields.items()
              if not any(key in base.model_fields for base in part.__mro__[1:] if base in told)}
    defaults = {key: getattr(given, key) if given is not None else None if field.is_required() else field.default
                for key, field in fields.items()}
    found = {name: {key: show(field, defaults[key], part_of(field.annotation) in told)
                    for key, field in fields.items()}}
    told.add(part)
    for key, field in fields.items():
        inner = part_of(field.annotation)
        if inner is not None and inner not in told:
            default = defaults[key] if isinstance(defaults[key], BaseModel) else None
            found |= sections(inner, key if name == "top level" else f"{name}.{key}", told, default)
    return found


def sections_of(page: str) -> dict[str, dict[str, str]]:
    told: set[type[BaseModel]] = set()
    found: dict[str, dict[str, str]] = {}
    for name, part in PAGES[page].items():
        found |= sections(part, name, told)
    return found


def tables(page: str) -> dict[str, dict[str, str]]:
    """The same, from the page: a heading ``## `name` `` or ``### `name` `` and the table under it."""
    chunks = re.split(r"^#{2,3} ", page, flags=re.MULTILINE)[1:]
    return {chunk.split("\n")[0].strip("` "): {m["key"]: m["default"] for m in ROW.finditer(chunk)} for chunk in chunks}


SECTIONS = [pytest.param(page, name, keys, id=f"{page}:{name}") for page in PAGES
            for name, keys in sections_of(page).items()]


@pytest.mark.parametrize(("page", "name", "keys"), SECTIONS)
def test_configuration_page__has_every_key_with_its_default(page, name, keys):
    on_page = tables((REFERENCE / page).read_text(encoding="utf-8"))
    assert name in on_page, f"no section ## `{name}`"
    assert on_page[name] == keys


@pytest.mark.parametrize("page", PAGES)
def test_configuration_page__has_no_section_too_many(page):
    on_page = tables((REFERENCE / page).read_text(encoding="utf-8"))
    assert {name for name, rows in on_page.items() if rows} == set(sections_of(page))


# ---- models.md


def facts(card: Card) -> str:
    """What a card says in numbers, as the page writes it."""
    parts = [str(card.task).capitalize()]
    if card.input_length is not None:
        parts.append(f"input {card.input_length:,} bp")
    if card.receptive_field is not None and card.receptive_field != card.input_length:
        parts.append(f"sees {card.receptive_field:,} bp")
    if card.resolution is not None:
        parts.append(f"bins of {card.resolution} bp")
    if card.crop:
        parts.append(f"crops {card.crop:,} bp a side")
    parts.append(f"{card.parameters:,} parameters")
    if card.attribution:
        parts.append("attribution by " + ", ".join(card.attribution))
    return " · ".join(parts) + "."


def preset_line(which: str, arguments: dict) -> str:
    text = ", ".join(f"`{key}: {json.dumps(value)}`" for key, value in arguments.items())
    return f"Preset `{which}`: {text or 'the published size'}."


def size(name: str, preset: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in registry.create(name, preset=preset).parameters())


def section_of_model(name: str) -> str:
    page = MODELS.read_text(encoding="utf-8")
    found = re.search(rf"^## `{name}`\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section ## `{name}`"
    return " ".join(found[1].split())


@pytest.mark.parametrize("model", registry.names())
def test_models_page__has_every_argument_with_its_default(model):
    on_page = tables(MODELS.read_text(encoding="utf-8"))
    assert on_page[model] == {key: f"`{json.dumps(value)}`" for key, value in registry.arguments(model).items()}


@pytest.mark.parametrize("model", registry.names())
def test_models_page__says_what_the_card_says(model):
    card, section = registry.card(model), section_of_model(model)
    for text in (card.summary, card.paper, facts(card)):
        assert " ".join(text.split()) in section
    lines = [preset_line(which, given) for which, given in registry.presets(model).items()]
    assert re.findall(r"Preset `.*?\.(?= )", section) == lines


@pytest.mark.parametrize("model", registry.names())
def test_models_page__overview_has_its_line(model):
    card = registry.card(model)
    length = "" if card.input_length is None else f"{card.input_length:,}"
    small = f"{size(model, 'cpu'):,}" if "cpu" in registry.presets(model) else ""
    line = f"| [{model}](#{model}) | {card.task} | {length} | {card.parameters:,} | {small} |"
    assert line in MODELS.read_text(encoding="utf-8").split("\n")


def test_models_page__has_no_model_too_many():
    page = MODELS.read_text(encoding="utf-8")
    assert {name for name, rows in tables(page).items() if rows} == set(registry.names())
    assert re.findall(r"^\| \[(\w+)\]", page, flags=re.MULTILINE) == registry.names()


# ---- the guards themselves


def test_tables__reads_headings_and_rows():
    page = ("# Page\n## `a`\n| key | default | meaning |\n|---|---|---|\n| `x` | `1` | one |\n"
            "### `a.b`\n| `y` | required | w |\n")
    assert tables(page) == {"a": {"x": "`1`"}, "a.b": {"y": "required"}}


def test_sections__takes_defaults_from_the_whole_and_tells_a_part_once():
    class Part(BaseModel):
        x: int = 1

    class More(Part):
        y: str

    class First(BaseModel):
        part: Part = Part(x=2)
        z: float | None = None

    class Second(BaseModel):
        again: Part = Part()
        more: dict[str, More]

    told: set[type[BaseModel]] = set()
    assert sections(First, "top level", told) == {
        "top level": {"part": "below", "z": "`null`"}, "part": {"x": "`2`"}}
    assert sections(Second, "other", told) == {
        "other": {"again": "above", "more": "required"}, "other.more": {"y": "required"}}
