"""docs/reference/configuration.md tells the truth: every key of the configuration with its default, and no other."""

import inspect
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ciscribe.config import RunConfig
from ciscribe.models import registry

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "configuration.md"
ROW = re.compile(r"^\| `(?P<key>\w+)` \| (?P<default>.+?) \| (?P<meaning>.+?) \|$", flags=re.MULTILINE)


def part_of(annotation) -> type[BaseModel] | None:
    """The part of the configuration that an annotation holds, also inside a list or beside None."""
    options = [annotation, *get_args(annotation)]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def show(field: FieldInfo) -> str:
    """Default as the page writes it."""
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return "below"
    return f"`{json.dumps(field.default)}`"


def sections(part: type[BaseModel] = RunConfig, name: str = "top level") -> dict[str, dict[str, str]]:
    """Section of the page → key → default, from the models."""
    found = {name: {key: show(field) for key, field in part.model_fields.items()}}
    for key, field in part.model_fields.items():
        if (inner := part_of(field.annotation)) is not None:
            found |= sections(inner, key if name == "top level" else f"{name}.{key}")
    return found


def tables(page: str) -> dict[str, dict[str, str]]:
    """The same, from the page: a heading ``## `name` `` or ``### `name` `` and the table under it."""
    chunks = re.split(r"^#{2,3} ", page, flags=re.MULTILINE)[1:]
    return {chunk.split("\n")[0].strip("` "): {m["key"]: m["default"] for m in ROW.finditer(chunk)} for chunk in chunks}


@pytest.mark.parametrize(("name", "keys"), sections().items(), ids=sections().keys())
def test_configuration_page__has_every_key_with_its_default(name, keys):
    on_page = tables(PAGE.read_text(encoding="utf-8"))
    assert name in on_page, f"no section ## `{name}`"
    assert on_page[name] == keys


@pytest.mark.parametrize("model", registry.names())
def test_configuration_page__has_every_model_argument(model):
    given = {"n_targets", "n_signals", "n_covariates"}  # decided by the data
    arguments = inspect.signature(registry._find(model)[0]).parameters.values()
    on_page = tables(PAGE.read_text(encoding="utf-8"))
    assert on_page[f"model.arguments of {model}"] == {
        p.name: f"`{json.dumps(p.default)}`" for p in arguments if p.name not in given}


def test_configuration_page__has_no_section_too_many():
    known = {*sections(), *(f"model.arguments of {m}" for m in registry.names())}
    assert {name for name, rows in tables(PAGE.read_text(encoding="utf-8")).items() if rows} == known


def test_tables__reads_headings_and_rows():
    page = ("# Page\n## `a`\n| key | default | meaning |\n|---|---|---|\n| `x` | `1` | one |\n"
            "### `a.b`\n| `y` | required | w |\n")
    assert tables(page) == {"a": {"x": "`1`"}, "a.b": {"y": "required"}}
