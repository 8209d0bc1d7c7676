"""Cards hold the facts and print them."""

import json
from dataclasses import FrozenInstanceError

import pytest

from ciscribe.card import Card
from ciscribe.errors import SchemaError

FULL = Card(name="toy", kind="model", summary="Predicts nothing, quickly.", paper="Nobody 2031, doi:10.1/x",
            code="a/b@c:d.py", licence="MIT", differences=("Smaller.", "Faster."), input_length=1009,
            receptive_field=211, resolution=1, crop=0, parameters=37, task="tracks", attribution=("gradient", "ism"))


def test_to_markdown__states_every_fact():
    text = FULL.to_markdown()
    assert text.startswith("# toy\n\nPredicts nothing, quickly.\n")
    for line in ("- **Kind**: model", "- **Paper**: Nobody 2031, doi:10.1/x", "- **Code**: a/b@c:d.py",
                 "- **Input length (bp)**: 1009", "- **Receptive field (bp)**: 211",
                 "- **Resolution (bp)**: 1", "- **Crop (bp)**: 0", "- **Parameters**: 37", "- **Task**: tracks",
                 "- **Attribution**: gradient, ism",
                 "1. Smaller.", "2. Faster."):
        assert line in text.splitlines(), line
    assert text.endswith("\n")


def test_to_markdown__leaves_out_what_is_unknown():
    text = Card(name="plain", kind="baseline", summary="A mean.", paper="own").to_markdown()
    assert "Input length" not in text
    assert "Attribution" not in text
    assert "None" not in text
    assert "Differences" not in text


def test_to_dict__survives_json():
    facts = json.loads(json.dumps(FULL.to_dict()))
    assert facts["differences"] == ["Smaller.", "Faster."]
    assert Card(**facts | {key: tuple(facts[key]) for key in ("differences", "attribution")}) == FULL


@pytest.mark.parametrize("name", ["", "Toy"])
def test_card__refuses_a_name_that_is_not_lower_case(name):
    with pytest.raises(SchemaError, match="lower case"):
        Card(name=name, kind="model", summary="Fine.", paper="own")


def test_card__refuses_a_summary_that_is_no_sentence():
    with pytest.raises(SchemaError, match="full stop"):
        Card(name="toy", kind="model", summary="no stop", paper="own")


def test_card__is_frozen():
    with pytest.raises(FrozenInstanceError):
        FULL.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
