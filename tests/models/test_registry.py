"""Names, arguments and presets of the registered models, and folders that are not theirs."""

import json

import pytest
import torch

from ciscribe.errors import CheckpointError, ConfigError, UnknownNameError
from ciscribe.models import registry
from ciscribe.nn.strands import BothStrands

SMALL = {"n_targets": 3, "filters": 5, "kernel": 7, "hidden": 11}


def test_names__are_sorted_and_match_a_pattern():
    everything = registry.names()
    assert everything == sorted(everything)
    assert registry.names("*bpnet") == ["bpnet", "chrombpnet"]
    assert registry.names("nothing*") == []


def test_arguments__are_those_of_the_class_with_published_defaults():
    assert registry.arguments("deepbind")["kernel"] == 16
    assert list(registry.arguments("deepbind"))[:3] == ["n_targets", "filters", "kernel"]
    assert registry.arguments("deepstarr")["filters"] == (256, 60, 60, 120)
    for ask in (registry.arguments, registry.card, registry.presets):
        with pytest.raises(UnknownNameError, match="did you mean 'deepstarr'"):
            ask("deepstar")


def test_presets__are_copies_and_given_arguments_win():
    registry.presets("deepbind")["cpu"]["kernel"] = 99
    assert registry.preset_of("deepbind", "cpu") == {"kernel": 24}
    assert registry.preset_of("deepbind", None) == {}
    assert registry.create("deepbind", preset="cpu").scan[0].kernel_size == (24,)
    assert registry.create("deepbind", preset="cpu", kernel=13).scan[0].kernel_size == (13,)
    with pytest.raises(ConfigError, match="model 'caduceus' has no preset 'cpu'; it has: none"):
        registry.create("caduceus", preset="cpu")


def test_create__both_strands_wraps_the_model():
    model = registry.create("deepbind", both_strands="max", **SMALL)
    assert isinstance(model, BothStrands)
    assert model.combine == "max"
    assert registry.create("deepbind", **SMALL).state_dict().keys() == model.model.state_dict().keys()


def test_save__is_whole_or_not_there_and_replaces(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    first, second = (registry.create("deepbind", **SMALL) for _ in range(2))
    registry.save(folder, "deepbind", first, SMALL, lab="a")
    registry.save(folder, "deepbind", second, SMALL, lab="b")
    model, facts = registry.load(folder)
    assert facts == {"lab": "b"}
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in model.state_dict().items())
    assert not model.training

    def full(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(registry, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        registry.save(folder, "deepbind", first, SMALL, lab="c")
    assert registry.load(folder)[1] == {"lab": "b"}
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_describe__reads_no_weights_and_gives_tuples_back(tmp_path):
    arguments = {"n_targets": 3, "length": 61, "filters": (3, 5, 7, 11), "hidden": 13}
    registry.save(tmp_path / "model", "deepstarr", registry.create("deepstarr", **arguments), arguments, length=61)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    assert registry.describe(tmp_path / "model") == ("deepstarr", arguments, {"length": 61})


@pytest.mark.parametrize("change", [{"arguments": [1]}, {"arguments": None}, {"model": "none"}, []])
def test_load__configuration_that_is_none(tmp_path, change):
    folder = tmp_path / "model"
    registry.save(folder, "deepbind", registry.create("deepbind", **SMALL), SMALL)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | change if isinstance(change, dict) else change))
    with pytest.raises((CheckpointError, UnknownNameError), match=r"damaged|no model is called 'none'"):
        registry.load(folder)


def test_load__tensors_that_do_not_fit_list_the_first_three(tmp_path):
    folder = tmp_path / "model"
    registry.save(folder, "deepbind", registry.create("deepbind", **SMALL), SMALL)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"filters": 5', '"filters": 13').replace('"hidden": 11', '"hidden": 0'))
    with pytest.raises(CheckpointError) as caught:
        registry.load(folder)
    message = str(caught.value)
    assert "5 tensors of" in message
    assert message.count(" in the file, ") == 3
    assert "first: head.weight: (3, 11) in the file, (3, 13) in the model" in message


def test_load__code_in_a_folder_is_not_run(tmp_path):
    folder = tmp_path / "model"
    registry.save(folder, "deepbind", registry.create("deepbind", **SMALL), SMALL)
    (folder / "deepbind.py").write_text("raise SystemExit('code ran')\n")
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"model": "deepbind"', '"model": "os.system"'))
    with pytest.raises(UnknownNameError, match=r"no model is called 'os\.system'"):
        registry.load(folder)
