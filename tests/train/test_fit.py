import signal

import numpy as np
import pytest
import torch
from torch import nn

import small_world as small
from ciscribe.data.windows import WindowSpec, loader
from ciscribe.errors import CheckpointError, DeviceError
from ciscribe.models import registry
from ciscribe.train.fit import FitSpec, fit
from ciscribe.train.losses import LossSpec, expression_loss

T = len(small.CELLS)
SPEC = FitSpec(epochs=3, batch_size=5, learning_rate=3e-3, average=0.7, max_shift=3, device="cpu", n_threads=1,
               reverse_complement=True)


class Mean(nn.Module):
    """Expression from the mean of each signal: what the small world's expression follows."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, T)
        self.seen = []

    def forward(self, X, S=None, covariates=None, keep=None):
        if self.training:
            self.seen.append(self.out.weight.detach().clone())
        return {"expression": self.out(S.mean(dim=2))}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small.build(tmp_path_factory.mktemp("fit"), WindowSpec(160, 32), blacklist=small.BLACKLIST,
                       covariates=["gc"])


def network():
    torch.manual_seed(0)
    return registry.create("seq2exp", n_targets=T, n_signals=2, n_covariates=1, resolution=32, d_model=8, n_layers=1,
                           d_state=2, expand=1, stem_channels=4, include_bp=64, center_bp=64, dropout=0.2)


def train(store, model, spec, folder, **options):
    return fit(model, loader(store, "train", spec.batch_size, shuffle=True, max_shift=spec.max_shift, seed=7),
               loader(store, "valid", 4), spec, folder=folder, seed=7, progress=False, **options)


def test_fit__finds_a_planted_signal(store, tmp_path):
    torch.manual_seed(0)
    spec = FitSpec(epochs=60, batch_size=5, learning_rate=0.05, weight_decay=0, device="cpu",
                   loss=LossSpec("mse"), precision="fp32")
    model, log = train(store, Mean(), spec, tmp_path)
    assert log["train_loss"].iloc[-1] < 0.1 * log["train_loss"].iloc[0]
    assert log["valid_pearson"].max() > 0.9
    batch = store.batch(store.rows("test"))
    predicted = model(None, batch.signals)["expression"].detach()
    assert np.corrcoef(predicted[:, 1], batch.targets[:, 1])[0, 1] > 0.8
    assert not model.training


def test_fit__log_has_a_row_an_epoch_and_the_best_one_is_given_back(store, tmp_path):
    lines = []
    model, log = train(store, network(), SPEC, tmp_path, tell=lines.append)
    assert log["epoch"].tolist() == [0, 1, 2]
    assert {"train_loss", "train_error", "train_mask_kl", "valid_mse", "valid_pearson"} <= set(log.columns)
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert f"validation MSE {log['valid_mse'].iloc[2]:.4f}" in lines[2]
    batch = store.batch(store.rows("valid"))
    with torch.no_grad():
        y = model(nn.functional.one_hot(batch.codes.long(), 5)[..., :4].transpose(1, 2).float(), batch.signals,
                  batch.covariates, batch.keep)["expression"]
    assert float((y - batch.targets).square().mean()) == pytest.approx(log["valid_mse"].min(), rel=1e-4)


def stop_at(epoch):
    def tell(line):
        if line.startswith(f"epoch {epoch}/"):
            raise KeyboardInterrupt
    return tell


@pytest.fixture(scope="module")
def uninterrupted(store, tmp_path_factory):
    return train(store, network(), SPEC, tmp_path_factory.mktemp("whole"), identity="a")


def assert_same_training(a, b):
    for (name, x), y in zip(a[0].state_dict().items(), b[0].state_dict().values(), strict=True):
        assert torch.allclose(x, y, atol=1e-6), name
    np.testing.assert_allclose(a[1].to_numpy(), b[1][a[1].columns].to_numpy(), atol=1e-6)


def test_fit__same_seed_same_weights(store, tmp_path, uninterrupted):
    assert_same_training(uninterrupted, train(store, network(), SPEC, tmp_path, identity="a"))


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_fit__stopped_by_ctrl_c_and_resumed_equals_uninterrupted(store, tmp_path, uninterrupted, epoch):
    with pytest.raises(KeyboardInterrupt):
        train(store, network(), SPEC, tmp_path, identity="a", tell=stop_at(epoch))
    again = []
    resumed = train(store, network(), SPEC, tmp_path, identity="a", tell=again.append)
    assert_same_training(uninterrupted, resumed)
    assert len(again) == 3 - (epoch - 1)  # an epoch counts when its checkpoint is written


def test_fit__killed_in_an_epoch_and_resumed_equals_uninterrupted(store, tmp_path, uninterrupted, monkeypatch):
    steps = []

    def bomb(*arguments):
        steps.append(1)
        if len(steps) > 6:
            raise MemoryError("killed")
        return expression_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("ciscribe.train.fit.expression_loss", bomb)
        with pytest.raises(MemoryError, match="killed"):
            train(store, network(), SPEC, tmp_path, identity="a")
    assert (tmp_path / "last.ckpt").exists()
    assert_same_training(uninterrupted, train(store, network(), SPEC, tmp_path, identity="a"))


def test_fit__killed_after_the_last_epoch_trains_no_more(store, tmp_path, uninterrupted):
    train(store, network(), SPEC, tmp_path / "run", identity="a")
    (tmp_path / "run").rename(tmp_path / "moved")  # a run folder may be moved before it is resumed
    lines = []
    assert_same_training(uninterrupted, train(store, network(), SPEC, tmp_path / "moved", identity="a",
                                              tell=lines.append))
    assert lines == []


def test_fit__ctrl_c_still_works_after_it_was_used(store, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(store, Mean(), SPEC, tmp_path, tell=stop_at(1))
    assert signal.getsignal(signal.SIGINT) is before


def test_fit__refuses_the_checkpoint_of_another_run(store, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(store, network(), SPEC, tmp_path, identity="a", tell=stop_at(2))
    kept = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(CheckpointError, match=r"another model, data set or training plan \(a, this run is b\); use "
                                              r"another run folder or remove its checkpoints/"):
        train(store, network(), SPEC, tmp_path, identity="b")
    with pytest.raises(CheckpointError, match="another model"):
        train(store, Mean(), SPEC, tmp_path, identity="c")
    assert (tmp_path / "last.ckpt").read_bytes() == kept


def test_fit__damaged_checkpoint(store, tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"half a checkpoint")
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged .*; remove its folder"):
        train(store, Mean(), SPEC, tmp_path)


def test_fit__stops_early_when_validation_does_not_improve(store, tmp_path):
    spec = FitSpec(epochs=19, batch_size=7, learning_rate=1e-30, patience=2, device="cpu")
    _, log = train(store, Mean(), spec, tmp_path)
    assert len(log) == 3


def test_fit__averaged_weights_are_the_ones_saved(store, tmp_path):
    spec = FitSpec(epochs=1, batch_size=4, learning_rate=0.1, average=0.6, device="cpu")
    model = Mean()
    trained, _ = train(store, model, spec, tmp_path)
    state = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    steps = [*model.seen[1:], state["model.out.weight"]]  # weights after every step
    expected = steps[0]
    for weight in steps[1:]:
        expected = 0.6 * expected + 0.4 * weight
    assert len(steps) == 5
    assert torch.allclose(trained.out.weight, expected, atol=1e-6)
    assert not torch.allclose(trained.out.weight, state["model.out.weight"], atol=1e-3)


def test_fit__absent_gpu(store, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="'cuda' was asked for, but PyTorch sees no GPU"):
        train(store, Mean(), FitSpec(device="cuda"), tmp_path)


def test_fit__fewer_gpus_than_asked_for(store, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="3 GPUs were asked for, PyTorch sees 1"):
        train(store, Mean(), FitSpec(device="cuda", n_devices=3), tmp_path)


def test_fit__loss_that_explodes_says_so(store, tmp_path):
    model = Mean()
    with torch.no_grad():
        model.out.weight.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match=r"the loss became (nan|inf) at step 0; lower learning_rate"):
        train(store, model, SPEC, tmp_path)


def test_expression_loss__terms_are_weighted_and_only_those_asked_for():
    y = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    output = {"expression": y + torch.tensor([2.0, -0.5, 0.0]), "mask_kl": torch.tensor([[3.0], [5.0]])}
    terms = expression_loss(output, y, LossSpec(mask_kl=0.25))
    assert set(terms) == {"error", "mask_kl"}
    assert float(terms["error"]) == pytest.approx((1.5 + 0.125 + 0) / 3)
    assert float(terms["mask_kl"]) == pytest.approx(1.0)
    terms = expression_loss(output | {"expression_do": y + 2, "diversity": torch.tensor(7.0)}, y,
                            LossSpec("mse", contrast=0.5, expression_do=0.5, diversity=2.0))
    assert float(terms["error"]) == pytest.approx((4 + 0.25) / 3)
    assert float(terms["contrast"]) == pytest.approx(0.5 * (1.5**2 + 1 + 0.5**2) / 3)
    assert float(terms["expression_do"]) == pytest.approx(2.0)
    assert float(terms["diversity"]) == pytest.approx(14.0)


def test_plan__processes_that_train_together_share_the_genes(store, monkeypatch):
    """Two ranks read every gene between them, as many steps each; alone, one reads all in the same order."""
    data = loader(store, "train", 5, shuffle=True, max_shift=3, seed=7)
    alone = [(rows.tolist(), shift.tolist()) for rows, shift in data.sampler]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        shares.append([(rows.tolist(), shift.tolist()) for rows, shift in data.sampler])
        assert len(shares[-1]) == len(data.sampler)
    together = [step for pair in zip(*shares, strict=True) for step in pair]
    assert together[:len(alone)] == alone
    assert all(step in alone for step in together)


@pytest.mark.slow
def test_fit__two_processes_train_one_model(store, tmp_path):
    spec = FitSpec(epochs=2, batch_size=3, learning_rate=3e-3, average=0.7, device="cpu", n_devices=2, n_threads=1)
    before = [p.clone() for p in network().parameters()]
    model, log = train(store, network(), spec, tmp_path)
    assert log["epoch"].tolist() == [0, 1]
    assert np.isfinite(log["valid_mse"]).all()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
