import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from ciscribe.errors import ConfigError, SchemaError
from ciscribe.train import losses, tasks
from ciscribe.train.tasks import (
    BinnedTracks,
    Classification,
    Expression,
    MultiTask,
    ProfileCounts,
    Regression,
    SoftBins,
    Task,
)

B, T, L = 17, 4, 7
NAMES = ["a", "b", "c", "d"]
NAN = float("nan")


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape):
    return (draw(*shape, seed=3) > 0.4).float()


def counts(*shape):
    return torch.randint(0, 9, shape, generator=torch.Generator().manual_seed(1)).float()


PROFILES = {"profile": draw(B, T, L), "counts": draw(B, T, seed=5).abs() + 2}
BY_STRAND = {"profile": draw(B, T, L), "counts": draw(B, 2, seed=5).abs() + 3}
CASES = {
    "expression": (Expression(contrast=0.5), {"expression": draw(B, T)}, draw(B, T, seed=2)),
    "expression of a plain model": (Expression("mse"), draw(B, T), draw(B, T, seed=2)),
    "mse": (Regression(), draw(B, T), draw(B, T, seed=2)),
    "smooth_l1": (Regression("smooth_l1", (1.0, 2.0, 3.0, 4.0)), {"expression": draw(B, T)}, draw(B, T, seed=2)),
    "poisson": (Regression("poisson"), draw(B, T), counts(B, T)),
    "l1_kl": (Regression("l1_kl"), draw(B, T), draw(B, T, seed=2)),
    "classification": (Classification(positive_weights=(2.0, 1.0, 3.0, 1.0)), draw(B, T), labels(B, T)),
    "soft bins": (SoftBins(5), draw(B, 5), 4 * labels(B, 1) * draw(B, 1, seed=6).sigmoid()),
    "profiles": (ProfileCounts(3.0), PROFILES, counts(B, T, L)),
    "profiles of strands": (ProfileCounts(3.0, strands=2), BY_STRAND, counts(B, T, L)),
    "profiles of strands together": (ProfileCounts(3.0, strands=2, together=True), BY_STRAND, counts(B, T, L)),
    "tracks": (BinnedTracks(), draw(B, T, L).exp(), counts(B, T, L)),
    "shape of tracks": (BinnedTracks("poisson_multinomial", (1.0, 2.0, 1.0, 5.0), head="mouse"),
                        {"human": draw(B, 3, L), "mouse": draw(B, T, L).exp()}, counts(B, T, L)),
    "several": (MultiTask({"activity": Regression(), "active": Classification()}, {"activity": 3, "active": 1}),
                draw(B, T), torch.cat([draw(B, 3, seed=2), labels(B, 1)], dim=1)),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


# ---- what every task keeps to


def test_task__predictions_are_shaped_as_the_targets_and_scores_are_json(case):
    task, output, y = case
    assert isinstance(task, Task)
    predicted = task.predictions(output)
    assert predicted.shape == y.shape
    assert bool(torch.isfinite(predicted).all())
    terms = task.terms(output, y)
    assert all(term.shape == () and bool(torch.isfinite(term)) for term in terms.values())
    score = task.score(y.numpy(), predicted.numpy(), NAMES[:y.shape[1]], seed=1, n_bootstrap=5)
    assert json.loads(json.dumps(score)) == score
    assert score == task.score(y.numpy(), predicted.numpy(), NAMES[:y.shape[1]], seed=1, n_bootstrap=5)
    assert repr(task).startswith(type(task).__name__ + "(")


def test_task__its_error_falls_as_its_loss_does(case):
    task, output, y = case
    values = {k: v.clone() for k, v in (output if isinstance(output, dict) else {"": output}).items()}
    for value in values.values():
        value.requires_grad_()
    optimizer = torch.optim.SGD(values.values(), lr=0.05)

    def current():
        return values if isinstance(output, dict) else values[""]

    def error():
        with torch.no_grad():
            return next(iter(task.figures(task.predictions(current()), y).values()))

    before = error()
    for _ in range(30):
        optimizer.zero_grad()
        torch.stack(list(task.terms(current(), y).values())).sum().backward()
        optimizer.step()
        if isinstance(task, BinnedTracks):  # rates
            with torch.no_grad():
                for value in values.values():
                    value.clamp_(min=1e-3)
    assert error() < before


def test_task__what_was_not_measured_counts_nowhere(case):
    task, output, y = case
    holes = y.clone()
    holes[3:5] = NAN
    rest = [i for i in range(B) if i not in (3, 4)]
    part = {k: v[rest] for k, v in output.items()} if isinstance(output, dict) else output[rest]
    for name, term in task.terms(output, holes).items():
        assert torch.allclose(term, task.terms(part, y[rest])[name]), name
    figures, alone = task.figures(task.predictions(output), holes), task.figures(task.predictions(part), y[rest])
    assert figures == pytest.approx(alone, rel=1e-4)
    if isinstance(task, MultiTask | Classification):
        return
    names = NAMES[:y.shape[1]]
    score = task.score(holes.numpy(), task.predictions(output).numpy(), names, n_bootstrap=0)
    alone = task.score(y[rest].numpy(), task.predictions(part).numpy(), names, n_bootstrap=0)
    for metric, figure in score["mean"].items():
        assert figure["value"] == pytest.approx(alone["mean"][metric]["value"], rel=1e-5)


def test_task__wrong_shapes_and_heads():
    with pytest.raises(SchemaError, match=r"predictions \(17, 1\) and targets \(17, 4\) of a batch must have"):
        Regression().terms(draw(B, 1), draw(B, T))
    with pytest.raises(SchemaError, match=r"wants the output 'expresion'; did you mean 'expression'\? options: e"):
        Regression(head="expresion").terms({"expression": draw(B, T)}, draw(B, T))
    with pytest.raises(ConfigError, match=r"3 weights for 4 targets; give one for each"):
        Regression(target_weights=(1.0, 2.0, 3.0)).terms(draw(B, T), draw(B, T))
    with pytest.raises(ConfigError, match=r"loss 'poison' is unknown; did you mean 'poisson'\?"):
        Regression.__post_init__(SimpleNamespace(loss="poison"))  # the tests' type checker stops the constructor
    with pytest.raises(ConfigError, match="loss 'mse' is unknown"):
        BinnedTracks.__post_init__(SimpleNamespace(loss="mse"))


# ---- each task's own figures


def test_expression__has_the_fields_of_its_loss():
    task = Expression("mse", mask_kl=0.25)
    assert isinstance(task, losses.LossSpec)
    y, output = draw(B, T), {"expression": draw(B, T, seed=2), "mask_kl": torch.tensor([2.0])}
    assert {k: float(v) for k, v in task.terms(output, y).items()} == pytest.approx(
        {"error": float((output["expression"] - y).square().mean()), "mask_kl": 0.5})
    assert list(task.figures(output["expression"], y)) == ["mse", "pearson"]


def test_regression__figures():
    p, y = draw(B, T), draw(B, T, seed=2)
    figures = Regression("smooth_l1").figures(p, y)
    assert figures["mse"] == pytest.approx(float((p - y).square().mean()))
    r = [np.corrcoef(p[:, t], y[:, t])[0, 1] for t in range(T)]
    assert figures["pearson"] == pytest.approx(np.mean(r), abs=1e-6)
    assert list(Regression("l1_kl").figures(p, y)) == ["loss", "pearson"]
    assert torch.allclose(Regression("poisson").predictions(p), torch.log1p(p.exp()))


def test_classification__figures_and_balance():
    logits, y = draw(B, T), labels(B, T)
    task = Classification()
    figures = task.figures(task.predictions(logits), y)
    assert list(figures) == ["bce", "auroc", "auprc"]
    assert figures["bce"] == pytest.approx(float(task.terms(logits, y)["error"]), rel=1e-5)
    for name, function in (("auroc", roc_auc_score), ("auprc", average_precision_score)):
        assert figures[name] == pytest.approx(np.mean([function(y[:, t], logits[:, t]) for t in range(T)]))
    assert np.isnan(task.figures(task.predictions(logits), torch.zeros(B, T))["auroc"])
    train = np.array([[1.0, 0, 0, 1], [0, 0, NAN, 1], [0, 0, 1, 1], *[[0, 0, 0, 1]] * 300])
    balanced = Classification.balanced(train)
    assert balanced.positive_weights == (100.0, 1.0, 100.0, 1.0)
    assert Classification.balanced(train[:4]).positive_weights == (3.0, 1.0, 2.0, 1.0)


def test_soft_bins__expected_bin():
    logits = torch.log(torch.tensor([[0.25, 1e-9, 0.75], [1e-9, 1.0, 1e-9]]))
    assert torch.allclose(SoftBins(3).predictions(logits), torch.tensor([[1.5], [1.0]]))
    with pytest.raises(SchemaError, match=r"needs 18 logits .* returned \(17, 4\); create it with n_targets=18"):
        SoftBins().predictions(draw(B, T))


@pytest.mark.parametrize("task", [ProfileCounts(2.0), ProfileCounts(2.0, strands=2),
                                  ProfileCounts(2.0, strands=2, together=True)])
def test_profile_counts__validation_sees_the_loss_of_training(task):
    output, y = (PROFILES if task.strands == 1 else BY_STRAND), counts(B, T, L)
    terms = task.terms(output, y)
    predicted = task.predictions(output)
    figures = task.figures(predicted, y)
    assert list(figures) == ["loss", "profile", "counts", "pearson"]
    assert figures["loss"] == pytest.approx(float(sum(terms.values())), rel=1e-4)
    assert figures["profile"] == pytest.approx(float(terms["profile"]), rel=1e-4)
    totals = predicted.sum(-1).reshape(B, -1, task.strands).sum(-1)
    assert torch.allclose(totals, output["counts"].expm1(), rtol=1e-4)
    observed = y.sum(-1).reshape(B, -1, task.strands).sum(-1)
    assert float(terms["counts"]) == pytest.approx(
        2 * float((observed.log1p() - output["counts"]).square().mean()), rel=1e-5)


def test_profile_counts__the_shape_of_an_empty_region_is_kept():
    output = {"profile": draw(1, 1, L), "counts": torch.tensor([[-2.0]])}
    predicted = ProfileCounts().predictions(output)
    assert torch.allclose(predicted / predicted.sum(), output["profile"].softmax(-1))


def test_profile_counts__count_weight_of_the_median():
    y = np.zeros((5, 2, 3))
    y[:, :, 0] = [[10, 30], [20, 0], [50, 50], [300, 0], [0, np.nan]]
    assert ProfileCounts.balanced(y, strands=2) == ProfileCounts(7.0, strands=2)  # of 40, 20, 100, 300
    assert ProfileCounts.balanced(y / 100).count_weight == 1
    with pytest.raises(SchemaError, match="no training region was measured"):
        ProfileCounts.balanced(np.full((2, 1, 3), np.nan))


def test_profile_counts__outputs_that_do_not_fit():
    with pytest.raises(SchemaError, match=r"returns the outputs 'profile' and 'counts'; it returned one tensor"):
        ProfileCounts().terms(draw(B, T, L), counts(B, T, L))
    with pytest.raises(SchemaError, match=r"strands=1 .* \(17, 4, 7\) and \(17, 2\); set strands"):
        ProfileCounts().terms(BY_STRAND, counts(B, T, L))


def test_binned_tracks__figures_and_group_weights():
    p, y = draw(B, T, L).exp(), counts(B, T, L)
    figures = BinnedTracks().figures(p, y)
    assert figures["loss"] == pytest.approx(float(losses.poisson(p, y)))
    r = [np.corrcoef(p[:, t].ravel(), y[:, t].ravel())[0, 1] for t in range(T)]
    assert figures["pearson"] == pytest.approx(np.mean(r), abs=1e-5)
    weights = tasks.group_weights(["leaf", "root", "leaf", "leaf"])
    assert weights == pytest.approx((1 / 3, 1, 1 / 3, 1 / 3))
    each = [float(losses.poisson(p[:, t:t + 1], y[:, t:t + 1])) for t in range(T)]
    weighted = float(BinnedTracks(weights=weights).terms(p, y)["error"])
    assert weighted == pytest.approx((np.mean([each[0], each[2], each[3]]) + each[1]) / 2, rel=1e-5)


def test_multi_task__organisms_that_were_measured_apart():
    task = MultiTask({"human": BinnedTracks(head="human"), "mouse": BinnedTracks(head="mouse")},
                     {"human": 3, "mouse": 2})
    output = {"human": draw(B, 3, L).exp().requires_grad_(), "mouse": draw(B, 2, L).exp().requires_grad_()}
    y = counts(B, 5, L)
    y[:, 3:] = NAN  # a batch of human windows
    terms = task.terms(output, y)
    assert {k: float(v.detach()) for k, v in terms.items()} == pytest.approx(
        {"human_error": float(losses.poisson(output["human"].detach(), y[:, :3])), "mouse_error": 0.0})
    sum(terms.values()).backward()
    assert float(output["mouse"].grad.abs().max()) == 0
    assert float(output["human"].grad.abs().max()) > 0
    y = counts(B, 5, L)
    predicted = task.predictions(output).detach()
    figures = task.figures(predicted, y)
    assert next(iter(figures)) == "error"
    assert figures["error"] == pytest.approx(figures["human_loss"] + figures["mouse_loss"])
    score = task.score(y.numpy(), predicted.numpy(), ["a", "b", "c", "d", "e"], n_bootstrap=0)
    assert {k: list(v["per_target"]) for k, v in score.items()} == {"human": ["a", "b", "c"], "mouse": ["d", "e"]}


def test_multi_task__sizes_that_do_not_fit():
    with pytest.raises(ConfigError, match="got a and b"):
        MultiTask({"a": Regression()}, {"b": 3})
    with pytest.raises(SchemaError, match=r"have 3 targets together .*; got 4 columns"):
        MultiTask({"a": Regression()}, {"a": 3}).terms(draw(B, T), draw(B, T))
