"""Published checkpoints: fetched from an imitated hub, read without code, filled in, and exported."""

import hashlib
import json
import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml
from published_lm import ESM, caduceus_config, caduceus_logits, caduceus_state, write_checkpoint
from safetensors.torch import save_file
from test_attention_zoo import published_borzoi, published_enformer
from transformers import EsmConfig, EsmForMaskedLM

from ciscribe.errors import (
    CheckpointError,
    DataMissingError,
    DependencyError,
    InputError,
    SchemaError,
    UnknownNameError,
)
from ciscribe.models import hub, nucleotide_transformer, registry
from ciscribe.models.weights import read_weights
from ciscribe.oracle import Oracle
from ciscribe.sequence import encode, one_hot_tensor

B, L = 3, 37
X = one_hot_tensor(torch.randint(0, 5, (B, L), generator=torch.Generator().manual_seed(0)))
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The three answers of a hub that downloads need: what is in a repository, a file's head, a file."""

    repositories: dict = {}  # noqa: RUF012  set by the fixture
    served: list = []  # noqa: RUF012

    def log_message(self, *_):
        pass

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _respond(self):
        path = self.path.split("?")[0]
        for repo, files in self.repositories.items():
            if path.startswith(f"/api/models/{repo}"):
                if "/tree/" in path:
                    tree = [{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                            for n, b in files.items()]
                    return self._answer(200, json.dumps(tree).encode(), Content_Type="application/json")
                info = {"id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": [],
                        "siblings": [{"rfilename": n} for n in files]}
                return self._answer(200, json.dumps(info).encode(), Content_Type="application/json")
            if path.startswith(f"/{repo}/resolve/"):
                name = path.split("/resolve/")[1].split("/", 1)[1]
                if name not in files:
                    return self._answer(404, X_Error_Code="EntryNotFound")
                if self.command == "GET":
                    self.served.append(name)
                return self._answer(200, files[name], X_Repo_Commit=COMMIT,
                                    ETag=f'"{hashlib.sha1(files[name]).hexdigest()}"')
        return self._answer(404, X_Error_Code="RepoNotFound")

    do_GET = do_HEAD = _respond


@pytest.fixture
def a_hub(monkeypatch, tmp_path):
    """Call it with the repositories; gives the list of files that were downloaded."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")

    def serve(**repositories):
        Hub.repositories = {name.replace("__", "/"): {p.name: p.read_bytes() for p in folder.iterdir()}
                            for name, folder in repositories.items()}
        Hub.served = []
        return Hub.served

    yield serve
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetch__downloads_what_is_needed_once(a_hub, tmp_path):
    folder = write_checkpoint(tmp_path / "up", config := caduceus_config(), state := caduceus_state(config))
    (folder / "modeling_caduceus.py").write_text("raise SystemExit('code of a checkpoint was run')")
    torch.save(state, folder / "pytorch_model.bin")
    served = a_hub(them__ps=folder)
    cache = tmp_path / "cache"
    path = hub.fetch("hf://them/ps", cache=cache)
    assert sorted(p.name for p in path.iterdir()) == sorted(served) == ["config.json", "model.safetensors"]
    assert (path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert hub.fetch("hf://them/ps@main", cache=cache) == path
    assert len(served) == 2
    one = hub.fetch("hf://them/ps@main/modeling_caduceus.py", cache=cache)
    assert one.read_text().startswith("raise SystemExit")


def test_fetch__takes_pickles_where_there_is_nothing_else(a_hub, tmp_path):
    folder = tmp_path / "up"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    torch.save({"a": torch.ones(3)}, folder / "pytorch_model.bin")
    torch.save({"a": torch.ones(3)}, folder / "training_args.bin")
    served = a_hub(them__old=folder)
    path = hub.fetch("hf://them/old", cache=tmp_path / "cache")
    assert served == ["config.json", "pytorch_model.bin"]
    assert read_weights(path)["a"].tolist() == [1, 1, 1]


def test_fetch__says_what_is_wrong(a_hub, tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "up", config := caduceus_config(), caduceus_state(config))
    a_hub(them__ps=folder)
    cache = tmp_path / "cache"
    with pytest.raises(InputError, match=r"hf://owner/name\[@revision\]\[/file\]; got 'hf://ps'"):
        hub.fetch("hf://ps")
    with pytest.raises(DataMissingError, match=r"has no hf://them/psi, or it is private or gated"):
        hub.fetch("hf://them/psi", cache=cache)
    with pytest.raises(DataMissingError, match=r"has no hf://them/ps/vocab\.txt"):
        hub.fetch("hf://them/ps/vocab.txt", cache=cache)
    with monkeypatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
        with pytest.raises(DataMissingError, match=r"cannot be fetched from http://127.*download config\.json and "
                           r"model\.safetensors.*127\.0\.0\.1:9/them/ps,.*models\.load\(\"path/to/folder\"\)"):
            hub.fetch("hf://them/ps", cache=cache)
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "huggingface_hub", None)
        with pytest.raises(DependencyError, match=r"pip install 'ciscribe\[hub\]'"):
            hub.fetch("hf://them/ps", cache=cache)


def test_load__caduceus_from_the_hub_gives_the_published_logits(a_hub, tmp_path, monkeypatch):
    folder = write_checkpoint(tmp_path / "up", config := caduceus_config(), state := caduceus_state(config))
    a_hub(them__ps=folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    model, facts = hub.load("hf://them/ps")
    assert not model.training
    expected = caduceus_logits(model.tokens(X), state, config)
    torch.testing.assert_close(model(X)["logits"].transpose(1, 2), expected, atol=1e-4, rtol=1e-4)
    assert (facts["family"], facts["model"], facts["source"]) == ("caduceus", "caduceus_lm", "hf://them/ps")
    assert facts["arguments"]["fused_order"] is True
    again = type(model)(**facts["arguments"])
    again.load_state_dict(model.state_dict())


def esm_checkpoint(folder, **changes):
    torch.manual_seed(0)
    config = ESM | changes
    network = EsmForMaskedLM(EsmConfig(**ESM)).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.normal_()
    return network, write_checkpoint(folder, config, network.state_dict() | {
        "esm.embeddings.position_ids": torch.arange(17)[None]})


def test_load__nucleotide_transformer(tmp_path):
    network, folder = esm_checkpoint(tmp_path / "nt")
    model, facts = hub.load(folder)
    assert facts["family"] == "nucleotide-transformer"
    words = nucleotide_transformer.standard_vocabulary()
    text = ["GATTACAAACCGTTGC", "ACGTACNACGTATTNG"]
    one_hot = one_hot_tensor(torch.stack([torch.from_numpy(encode(t)) for t in text]))
    ids = [["<cls>", "GATTAC", "AAACCG", "T", "T", "G", "C"], ["<cls>", "ACGTAC", "<unk>", "T", "T", "N", "G"]]
    ids = torch.tensor([[words.index(word) for word in row] for row in ids])
    assert model.tokens(one_hot).tolist() == ids[:, 1:].tolist()
    expected = network(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    out = model(one_hot)
    torch.testing.assert_close(out["logits"], expected.logits[:, 1:].transpose(1, 2))
    torch.testing.assert_close(out["embedding"], expected.hidden_states[-1][:, 1:].transpose(1, 2))
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[:, 1] = True
    ids[:, 2] = words.index("<mask>")
    torch.testing.assert_close(model(one_hot, mask=mask)["logits"],
                               network(input_ids=ids).logits[:, 1:].transpose(1, 2))
    with pytest.raises(SchemaError, match=r"reads 14 tokens \(6 bp each\); got 15; trim the sequences to 84 bp"):
        model(one_hot_tensor(torch.zeros(1, 90, dtype=torch.uint8)))


def test_load__nucleotide_transformer_with_its_own_vocabulary(tmp_path):
    _, folder = esm_checkpoint(tmp_path / "nt")
    words = nucleotide_transformer.standard_vocabulary()
    (folder / "vocab.txt").write_text("\n".join([*words[:4], *words[:3:-1]]))
    model, _ = hub.load(folder)
    assert model.tokens(one_hot_tensor(torch.from_numpy(encode("AAAAAA"))[None])).tolist() == [[4104]]
    (folder / "vocab.txt").write_text("\n".join(words[:-1]))
    with pytest.raises(CheckpointError, match=r"4105 tokens, the vocabulary 4104; put the checkpoint's vocab\.txt"):
        hub.load(folder)


@pytest.mark.parametrize(("name", "make", "config", "bins"), [
    ("enformer", published_enformer, {"model_type": "enformer", "target_length": 1532}, 2),
    ("enformer", published_enformer, {"target_length": -1}, 0),
    ("borzoi", published_borzoi, {"model_type": "borzoi", "bins_to_return": 16_372}, 6),
    ("borzoi", published_borzoi, {"bins_to_return": 6144, "return_center_bins_only": False}, 16)])
def test_load__networks_of_tracks(name, make, config, bins, tmp_path):
    state = make()
    model, facts = hub.load(write_checkpoint(tmp_path / name, config, state))
    assert (facts["family"], facts["arguments"]["crop"]) == (name, bins * model.bin)
    kept = 40
    out = model(one_hot_tensor(torch.zeros(1, model.bin * (kept + 2 * bins), dtype=torch.uint8)))
    assert {k: tuple(v.shape) for k, v in out.items()} == {"human": (1, 7, kept), "mouse": (1, 5, kept)}
    assert facts["arguments"] == json.loads(json.dumps(facts["arguments"]))
    human = {k: v for k, v in state.items() if "mouse" not in k}
    one, facts = hub.load(write_checkpoint(tmp_path / "human", config, human))
    assert facts["arguments"]["n_targets"] == 7
    torch.testing.assert_close(one.state_dict(), {k: v for k, v in model.state_dict().items() if "mouse" not in k})


def test_load__flashzoi_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path / "flash", {"model_type": "borzoi", "flashed": True}, published_borzoi())
    with pytest.raises(CheckpointError, match="this is a Flashzoi checkpoint"):
        hub.load(folder)


def test_load__never_runs_code(tmp_path):
    _, folder = esm_checkpoint(tmp_path / "v2", auto_map={"AutoModelForMaskedLM": "modeling_esm.EsmForMaskedLM"})
    (folder / "modeling_esm.py").write_text("raise SystemExit('code of a checkpoint was run')")
    with pytest.raises(CheckpointError, match=r"runs code of its own \(auto_map: AutoModelForMaskedLM\)"):
        hub.load(folder)


def test_load__family_by_names_of_tensors_or_by_hand(tmp_path):
    config = caduceus_config(d=7)
    folder = write_checkpoint(tmp_path / "ps", config, caduceus_state(config))
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "model_type"}))
    assert hub.load(folder)[1]["family"] == "caduceus"
    save_file({"something": torch.ones(2)}, folder / "model.safetensors")
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no family known here.*tensors something.*borzoi, caduceus, enf"):
        hub.load_published(folder)
    with pytest.raises(UnknownNameError, match="did you mean 'caduceus'"):
        hub.load_published(folder, family="caduseus")
    with pytest.raises(CheckpointError, match=r"no Enformer in the layout .*stem\.0\.weight is missing"):
        hub.load_published(folder, family="enformer")


def test_load__lists_the_first_three_that_do_not_fit(tmp_path):
    config = caduceus_config(d=7)
    folder = write_checkpoint(tmp_path / "ps", config | {"d_model": 5}, caduceus_state(config))
    with pytest.raises(CheckpointError) as caught:
        hub.load(folder)
    message = str(caught.value)
    assert "word_embeddings: file (16, 7), model (16, 5)" in message
    assert message.count(": file ") == 3
    one = caduceus_state(caduceus_config(d=5))
    one["extra"] = torch.ones(2)
    del one["caduceus.backbone.norm_f.weight"]
    write_checkpoint(folder, caduceus_config(d=5), one)
    with pytest.raises(CheckpointError, match=r"2 tensors.*stack.norm.weight: file absent, model \(5,\); "
                       r"extra: file \(2,\), model absent"):
        hub.load(folder)


def test_load__missing_and_damaged(tmp_path):
    with pytest.raises(DataMissingError, match=r"no file or folder .*; a model on the hub is named hf://owner/name"):
        hub.load(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataMissingError, match=r"holds no weights; put model\.safetensors"):
        hub.load(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        hub.load(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds a list, not an object"):
        hub.load(tmp_path / "empty")


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


def test_read_weights__refuses_code(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"a": Trap()}, protocol=2))
    torch.save({"a": Trap()}, tmp_path / "zip.pt")
    for name in ("model.pt", "zip.pt"):
        with pytest.raises(CheckpointError, match="would run code, which ciscribe refuses"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_read_weights__every_format(tmp_path):
    state = {"a": torch.arange(3.0), "b.c": torch.ones(2, 5)}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "y.pth")
    torch.save({"state_dict": state, "epoch": 7}, tmp_path / "z.pt")
    for name in ("x.safetensors", "y.pth", "z.pt"):
        torch.testing.assert_close(read_weights(tmp_path / name), state)
    with pytest.raises(CheckpointError, match=r"3 weight files \(x.safetensors, y.pth, …\); name one"):
        read_weights(tmp_path)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="no dictionary of tensors"):
        read_weights(tmp_path / "list.pt")
    for name in ("cut.safetensors", "cut.bin"):
        (tmp_path / name).write_bytes((tmp_path / "x.safetensors").read_bytes()[:20])
        with pytest.raises(CheckpointError, match="damaged"):
            read_weights(tmp_path / name)
    (tmp_path / "x.h5").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"weights are \.safetensors, .*; got x\.h5"):
        read_weights(tmp_path / "x.h5")


def test_read_weights__in_pieces(tmp_path):
    save_file({"a": torch.arange(3.0)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "model-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    index.write_text(json.dumps({"weight_map": places}))
    assert {k: v.tolist() for k, v in read_weights(tmp_path).items()} == {"a": [0, 1, 2], "b": [1, 1]}
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(DataMissingError, match=r"1 of 2 pieces .* are missing; first: model-2\.safetensors"):
        read_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match="not in its own folder; that is refused"):
        read_weights(index)
    index.write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        read_weights(index)


def test_export__a_folder_that_the_hub_shows_and_we_load_again(a_hub, tmp_path, monkeypatch):
    torch.manual_seed(0)
    arguments = {"n_targets": 3, "n_covariates": 0, "resolution": 1, "d_model": 7, "n_layers": 1, "d_state": 2}
    model = registry.create("caduceus", **arguments)
    registry.save(tmp_path / "run", "caduceus", model, arguments, tracks=["leaf"])
    hub.export_folder(tmp_path / "run", tmp_path / "up", repo="me/plants", licence="cc-by-4.0", tags=["maize"],
                      metrics={"plant leaf": {"pearson": 0.71}})
    assert sorted(p.name for p in (tmp_path / "up").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    _, front, text = (tmp_path / "up" / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["license"] == "cc-by-4.0"
    assert facts["library_name"] == "ciscribe"
    assert {"caduceus", "maize"} <= set(facts["tags"])
    result = facts["model-index"][0]["results"][0]
    assert (result["dataset"]["name"], result["metrics"]) == ("plant leaf", [{"type": "pearson", "value": 0.71}])
    assert 'models.load("hf://me/plants")' in text
    assert "| plant leaf | pearson | 0.71 |" in text
    assert str(tmp_path) not in "".join(p.read_text() for p in (tmp_path / "up").glob("[!m]*"))
    a_hub(me__plants=tmp_path / "up")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    again, facts = hub.load("hf://me/plants")
    assert facts == {"tracks": ["leaf"]}
    torch.testing.assert_close(Oracle(again).predict(X), Oracle(model).predict(X))


def test_export__checks_what_it_exports(tmp_path):
    with pytest.raises(DataMissingError, match="not a model folder"):
        hub.export_folder(tmp_path, tmp_path / "up")
    assert not (tmp_path / "up").exists()
