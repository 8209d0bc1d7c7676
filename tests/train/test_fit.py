import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import small_world as small
from ciscribe.data.windows import WindowSpec, loader
from ciscribe.errors import CheckpointError, ConfigError, DeviceError, DivergedError, SchemaError
from ciscribe.models import registry
from ciscribe.nn import conv
from ciscribe.sequence import one_hot_tensor
from ciscribe.train.fit import FitSpec, _rate, fit, new_head, start_at_mean
from ciscribe.train.tasks import Classification, Expression, Regression

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


def train(store, model, spec, folder=None, **options):
    return fit(model, loader(store, "train", spec.batch_size, shuffle=True, max_shift=spec.max_shift, seed=7),
               loader(store, "valid", 4), spec, folder=folder, seed=7, progress=False, **options)


def test_fit__finds_a_planted_signal(store, tmp_path):
    torch.manual_seed(0)
    spec = FitSpec(epochs=60, batch_size=5, learning_rate=0.05, weight_decay=0, device="cpu",
                   task=Expression("mse"), precision="fp32")
    model, log = train(store, Mean(), spec, tmp_path)
    assert log["train_loss"].iloc[-1] < 0.1 * log["train_loss"].iloc[0]
    assert log["valid_pearson"].max() > 0.9
    batch = store.batch(store.rows("test"))
    predicted = model(None, batch.signals)["expression"].detach()
    assert np.corrcoef(predicted[:, 1], batch.targets[:, 1])[0, 1] > 0.8
    assert not model.training


def test_fit__bf16_is_near_fp32_and_keeps_full_weights(store, tmp_path):
    logs = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        spec = FitSpec(epochs=2, batch_size=5, learning_rate=0.003, device="cpu", precision=precision)
        model, logs[precision] = train(store, network(), spec, tmp_path / precision)
        assert all(p.dtype == torch.float32 for p in model.parameters())
    a, b = (logs[p]["train_loss"].to_numpy() for p in ("fp32", "bf16"))
    assert not np.array_equal(a, b)  # it was really computed otherwise
    np.testing.assert_allclose(a, b, rtol=0.05)


def test_fit__log_has_a_row_an_epoch_and_the_best_one_is_given_back(store, tmp_path):
    lines = []
    model, log = train(store, network(), SPEC, tmp_path, tell=lines.append)
    assert log["epoch"].tolist() == [0, 1, 2]
    assert {"train_loss", "train_error", "train_mask_kl", "valid_mse", "valid_pearson"} <= set(log.columns)
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert lines[2].endswith(f"validation MSE {log['valid_mse'].iloc[2]:.4f}, r {log['valid_pearson'].iloc[2]:.4f}")
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

    def bomb(codes):
        steps.append(1)
        if len(steps) > 6:
            raise MemoryError("killed")
        return codes

    with monkeypatch.context() as patch:
        patch.setattr("ciscribe.train.fit.one_hot_tensor", lambda codes: one_hot_tensor(bomb(codes)))
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
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
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
    with pytest.raises(DivergedError, match=r"the loss became (nan|inf) at step 0; lower learning_rate"):
        train(store, model, SPEC, tmp_path)


class Reporter(nn.Module):
    """A small network of sequences alone, with everything that a reporter model has."""

    def __init__(self, n_targets=T):
        super().__init__()
        self.n_targets = n_targets
        self.stem = nn.Sequential(conv.Conv1d(4, 5, 7), conv.BatchNorm1d(5), nn.ReLU())
        self.dense = nn.Sequential(nn.Linear(5, 11), nn.BatchNorm1d(11), nn.ReLU())
        self.head = nn.Linear(11, n_targets)
        self.seen = []

    def forward(self, X, S=None, covariates=None, keep=None):
        self.seen.append(X.detach())
        return self.head(self.dense(self.stem(X).mean(dim=2)))


def reporter():
    torch.manual_seed(0)
    return Reporter()


def steps_of(store, batch_size):
    return loader(store, "train", batch_size, shuffle=True, seed=7)


def as_loader(batches):
    return DataLoader(batches, batch_size=None)


def test_fit__any_task_names_its_own_figures_and_the_best_epoch_is_by_the_first(store):
    class Upside(Regression):
        """Keeps the epoch that a wrong figure calls best."""

        def figures(self, predicted, observed):
            return {"strange": -float((predicted - observed).square().mean())}

    for task, columns in ((Classification(), {"valid_bce", "valid_auroc", "valid_auprc"}),
                          (Regression("l1_kl"), {"valid_loss", "valid_pearson"}), (Upside(), {"valid_strange"})):
        labels = [b._replace(targets=(b.targets > b.targets.median()).float()) for b in steps_of(store, 5)]
        data = as_loader(labels) if isinstance(task, Classification) else steps_of(store, 5)
        spec = FitSpec(epochs=3, batch_size=5, learning_rate=0.03, task=task, device="cpu", n_threads=1)
        lines = []
        model, log = fit(reporter(), data, data, spec, progress=False, tell=lines.append)
        assert {c for c in log.columns if c.startswith("valid_")} == columns
        assert {"epoch", "train_error", "train_loss"} < set(log.columns)
        assert "AUROC" in lines[0] or not isinstance(task, Classification)
    batches = list(steps_of(store, 5))
    with torch.no_grad():
        error = torch.cat([(model(one_hot_tensor(b.codes)) - b.targets).square() for b in batches]).mean()
    assert float(error) == pytest.approx(-log["valid_strange"].min(), rel=1e-4)
    assert log["valid_strange"].nunique() == 3


def test_fit__without_a_folder_is_the_same_training_and_writes_nothing(store, tmp_path, monkeypatch, uninterrupted):
    monkeypatch.chdir(tmp_path)
    assert_same_training(uninterrupted, train(store, network(), SPEC))
    assert list(tmp_path.iterdir()) == []


def test_fit__targets_that_were_not_measured_do_not_count(store):
    batches = list(steps_of(store, 5))
    holes = [b._replace(targets=torch.where(torch.arange(T) == 1, torch.nan, b.targets)) for b in batches]
    spec = FitSpec(epochs=2, batch_size=5, learning_rate=0.05, task=Regression(), device="cpu", weight_decay=0)
    model = reporter()
    before = model.head.weight.detach().clone()
    _, log = fit(model, as_loader(holes), as_loader(holes), spec, progress=False)
    assert np.isfinite(log.to_numpy()).all()
    assert torch.equal(model.head.weight[1], before[1])
    assert not torch.allclose(model.head.weight[0], before[0], atol=1e-3)


def test_fit__a_last_step_of_one_example_uses_the_running_statistics(store):
    one = [b._replace(**{k: getattr(b, k)[:1] for k in b._fields}) for b in steps_of(store, 5)][:1]
    data = as_loader([*list(steps_of(store, 5))[:2], *one])
    model, _ = fit(reporter(), data, data, FitSpec(epochs=2, batch_size=5, task=Regression(), device="cpu"),
                   progress=False)
    assert int(model.dense[1].num_batches_tracked) == 4  # two of the three steps of each epoch
    assert not any(m.training for m in model.modules())


def test_fit__frozen_parameters_and_batch_norms_stay(store):
    model = reporter().eval()  # as a loaded model comes
    before = {k: v.clone() for k, v in model.state_dict().items()}
    spec = FitSpec(epochs=2, batch_size=5, learning_rate=0.05, task=Regression(), device="cpu", freeze=("stem.*",),
                   average=0.5)
    fit(model, steps_of(store, 5), loader(store, "valid", 4), spec, progress=False)
    after = model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {k for k in before if not k.startswith("stem.")}
    assert all(p.requires_grad for p in model.parameters())


def test_fit__patterns_that_freeze_nothing_or_everything(store):
    for pattern, message in (("stem", r"no parameter is called 'stem' .* of which 'stem.0.weight' is the first\); did "
                                      r"you mean 'stem\.\*'\? options: dense\.\*, head\.\*, stem\.\*"),
                             ("*", r"leaves nothing to train: it matches all 10 parameters")):
        with pytest.raises(ConfigError, match=message):
            train(store, reporter(), FitSpec(device="cpu", task=Regression(), freeze=(pattern,)))


def test_fit__augment_alters_training_sequences_only_and_alike_in_a_resumed_run(store, tmp_path):
    def blank(codes):
        return torch.where(torch.rand(codes.shape) < 0.5, torch.tensor(4, dtype=torch.uint8), codes)

    spec = FitSpec(epochs=2, batch_size=5, task=Regression(), augment=blank, device="cpu")
    model = reporter()
    fit(model, steps_of(store, 5), loader(store, "valid", 4), spec, seed=3, progress=False)
    n = len(store.rows("train"))
    share = torch.cat(model.seen)[:n].sum(dim=1).mean()
    assert 0.4 < float(share) < 0.6
    valid = store.batch(store.rows("valid")).codes
    assert torch.equal(torch.cat(model.seen)[n:n + len(valid)], one_hot_tensor(valid))
    whole, stopped = reporter(), reporter()
    a = train(store, whole, spec)
    with pytest.raises(KeyboardInterrupt):
        train(store, stopped, spec, tmp_path, tell=stop_at(2))
    assert_same_training(a, train(store, stopped, spec, tmp_path))


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_fit__learning_rate_rises_and_falls(schedule):
    spec = FitSpec(learning_rate=0.01, final_learning_rate=0.001, warmup=0.2, schedule=schedule)
    rates = [_rate(spec, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[20] == pytest.approx(1)
    assert rates[60] == pytest.approx(1.0 if schedule == "constant" else 0.55)
    assert rates[100] == pytest.approx(1.0 if schedule == "constant" else 0.1)
    assert rates[5] == pytest.approx(0.02 + 0.98 * (0.25 if schedule != "onecycle" else (1 - np.cos(np.pi / 4)) / 2))
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_fit__steps_end_within_an_epoch_that_is_validated(store, tmp_path):
    lines = []
    spec = FitSpec(steps=7, batch_size=5, learning_rate=1e-3, device="cpu")  # 19 genes: 4 steps an epoch
    model = Mean()
    _, log = train(store, model, spec, tmp_path, tell=lines.append)
    assert len(model.seen) == 7
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert log["epoch"].tolist() == [0, 1]
    assert log["valid_mse"].nunique() == 2
    again = []
    _, same = train(store, Mean(), spec, tmp_path, tell=again.append)
    assert again == []  # nothing is left to train
    assert same["valid_mse"].tolist() == log["valid_mse"].tolist()


def test_fit__steps_killed_and_resumed_equal_uninterrupted(store, tmp_path):
    spec = FitSpec(steps=10, batch_size=5, learning_rate=3e-3, device="cpu", average=0.7)
    whole = train(store, network(), spec, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(store, network(), spec, tmp_path / "stopped", tell=stop_at(2))
    resumed = train(store, network(), spec, tmp_path / "stopped")
    assert_same_training(whole, resumed)
    assert len(whole[1]) == 3


def test_fit__steps_are_what_the_rate_falls_over(store, tmp_path, monkeypatch):
    totals = []
    monkeypatch.setattr("ciscribe.train.fit._rate", lambda spec, step, total: totals.append(total) or 1.0)
    train(store, Mean(), FitSpec(steps=7, batch_size=5, device="cpu"), tmp_path)
    assert set(totals) == {7}


def test_fit__accumulated_batches_make_the_step_of_one_large_batch(store, tmp_path):
    rows = store.rows("train")[:18].tolist()
    weights = []
    for name, size, accumulate in (("large", 6, 1), ("small", 2, 3)):
        torch.manual_seed(0)
        model = Mean()
        spec = FitSpec(epochs=2, batch_size=size, accumulate=accumulate, learning_rate=1e-2, average=0.5, device="cpu",
                       task=Expression("mse"))
        fit(model, loader(store, rows, size), loader(store, "valid", 4), spec, folder=tmp_path / name, progress=False)
        weights.append(model.state_dict())
    for key, large in weights[0].items():
        torch.testing.assert_close(weights[1][key], large)


def test_fit__steps_of_accumulated_batches(store, tmp_path):
    lines = []
    spec = FitSpec(steps=5, batch_size=5, accumulate=3, device="cpu")  # 19 genes: 4 batches, 2 steps an epoch
    model = Mean()
    _, log = train(store, model, spec, tmp_path, tell=lines.append)
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert len(model.seen) == 4 + 4 + 3
    assert len(log) == 3


def test_fit__bf16_trains_and_clips(store, tmp_path):
    lengths = []

    class Watched(Mean):
        def forward(self, X, S=None, covariates=None, keep=None):
            if self.training and self.out.weight.grad is not None:
                grads = [p.grad for p in self.parameters()]
                lengths.append(float(torch.stack([g.norm() for g in grads]).norm()))
            return super().forward(X, S, covariates, keep)

    spec = FitSpec(epochs=2, batch_size=5, learning_rate=1e-3, gradient_clip=0.01, precision="bf16", device="cpu")
    _, log = train(store, Watched(), spec, tmp_path)
    assert np.isfinite(log["valid_mse"]).all()
    assert all(length <= 0.0101 for length in lengths)


# ---- transfer


def test_new_head__replaces_the_last_layer_only():
    model = reporter()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert new_head(model, 13) is model
    assert model.n_targets == 13
    assert model.eval()(torch.zeros(2, 4, 17)).shape == (2, 13)
    assert model.head.weight.shape == (13, 11)
    assert float(model.head.weight.detach().std()) > 0.05  # drawn anew
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if not k.startswith("head."))
    tracks = nn.Sequential(conv.Conv1d(4, 7, 3), nn.ReLU(), conv.Conv1d(7, 3, 1, bias=False), nn.Softplus())
    assert new_head(tracks, 2)(torch.zeros(5, 4, 11)).shape == (5, 2, 9)
    assert isinstance(tracks[2], conv.Conv1d)
    assert tracks[2].bias is None


def test_new_head__no_layer_of_that_width():
    model = reporter()
    model.n_targets = 17
    with pytest.raises(SchemaError, match=r"Reporter has no linear layer or convolution with 17 outputs; create it"):
        new_head(model, 2)


def test_start_at_mean__keeps_the_bias_of_targets_that_were_not_measured():
    model = nn.Sequential(conv.Conv1d(4, 3, 1), nn.ReLU(), conv.Conv1d(3, 3, 1))
    before = model[2].bias.detach().clone()
    assert start_at_mean(model, np.array([2.0, np.nan, -1.0]))
    assert model[2].bias.tolist() == [2, float(before[1]), -1]
    assert not start_at_mean(model, np.array([1.0, 2.0]))
    assert not start_at_mean(nn.Linear(5, 2, bias=False), np.array([1.0, 2.0]))


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


def test_fit__patience_waits_until_the_averages_have_settled(store, tmp_path):
    spec = FitSpec(epochs=19, batch_size=7, learning_rate=1e-30, patience=2, average=0.75, device="cpu")
    _, log = train(store, Mean(), spec, tmp_path)
    steps = -(-len(store.rows("train")) // 7)  # an epoch; an average of 0.75 has settled after 12
    assert len(log) == -(-12 // steps) + 1
