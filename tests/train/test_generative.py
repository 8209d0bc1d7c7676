"""The training loop of generators: what is minimized, averaged, stopped, refused; and chance that repeats."""

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.errors import ConfigError, DivergedError, SchemaError
from ciscribe.train.generative import Examples, GenerativeSpec, fit_generator

pytestmark = pytest.mark.slow  # networks are trained


class Composition(nn.Module):
    """Learns how frequent each base is."""

    def __init__(self, noise: float = 0.0):
        super().__init__()
        self.logits, self.noise = nn.Parameter(torch.zeros(4)), noise

    def loss(self, batch):
        loss = nn.functional.cross_entropy(self.logits.expand(batch.codes.numel(), 4), batch.codes.long().flatten())
        return loss + self.noise * torch.randn(()) * self.logits.sum()


class Duel(nn.Module):
    """A point that is pulled to where a linear critic says; counts who was asked."""

    def __init__(self):
        super().__init__()
        self.point, self.judge = nn.Linear(1, 4, bias=False), nn.Linear(4, 1, bias=False)
        self.asked = {"critic": 0, "generator": 0}

    def parts(self):
        return self.point, self.judge

    def _made(self):
        return self.point(torch.ones(1, 1)).softmax(1)

    def _real(self, batch):
        return torch.bincount(batch.codes.flatten().long(), minlength=4).float()[None] / batch.codes.numel()

    def critic_loss(self, batch):
        self.asked["critic"] += 1
        gap = self.judge(self._made().detach() - self._real(batch)).mean()
        return gap + self.judge.weight.square().sum()

    def generator_loss(self, batch):
        self.asked["generator"] += 1
        return -self.judge(self._made()).mean()

    def loss(self, batch):
        return (self._made() - self._real(batch)).square().sum()


def examples(n: int = 211, seed: int = 0) -> Examples:
    codes = np.random.default_rng(seed).choice(4, p=[0.1, 0.2, 0.3, 0.4], size=(n, 13)).astype(np.uint8)
    return Examples(torch.from_numpy(codes), torch.zeros(n, 0, dtype=torch.int64))


def test_fit_generator__finds_the_maximum_of_the_likelihood():
    train = examples()
    model, log = fit_generator(Composition(), train, spec=GenerativeSpec(epochs=20, learning_rate=0.1))
    frequency = np.bincount(train.codes.flatten(), minlength=4) / train.codes.numel()
    np.testing.assert_allclose(model.logits.softmax(0).detach(), frequency, atol=0.01)
    assert list(log) == ["epoch", "train_loss"]
    assert len(log) == 20
    assert not model.training


def test_fit_generator__same_seed_same_weights_and_the_callers_chance_is_left_alone():
    def weights(seed):
        return fit_generator(Composition(0.1), examples(), spec=GenerativeSpec(epochs=2), seed=seed)[0].logits.detach()

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_fit_generator__keeps_the_best_epoch_and_stops_when_none_gets_better():
    backwards = Examples(3 - examples().codes, examples().labels)  # what is learned makes validation worse
    model, log = fit_generator(Composition(), examples(), backwards,
                               GenerativeSpec(epochs=17, learning_rate=0.1, patience=2))
    assert len(log) == 3
    assert list(log) == ["epoch", "train_loss", "valid_loss"]
    logits = model.logits.expand(backwards.codes.numel(), 4)
    error = nn.functional.cross_entropy(logits, backwards.codes.long().flatten()).item()
    assert error == pytest.approx(log.valid_loss.min(), abs=1e-4)
    assert log.valid_loss.idxmin() == 0


def test_fit_generator__average_smooths_the_weights():
    noisy = GenerativeSpec(epochs=3, learning_rate=0.1, warmup=0.0, batch_size=30)
    spread = {}
    for average in (0.0, 0.97):
        ends = [fit_generator(Composition(3.0), examples(), spec=GenerativeSpec(**vars(noisy) | {"average": average}),
                              seed=seed)[0].logits.detach() for seed in range(3)]
        spread[average] = torch.stack(ends).std(0).mean()
    assert spread[0.97] < spread[0.0]


def test_fit_generator__an_adversary_has_two_optimizers():
    duel = Duel()
    trained, log = fit_generator(duel, examples(210), examples(53, 1), GenerativeSpec(
        epochs=40, batch_size=30, learning_rate=0.05, betas=(0.5, 0.9), weight_decay=0.0, n_critic=5))
    assert duel.asked["critic"] == 40 * 7
    assert duel.asked["generator"] == 40 * 7 // 5
    assert trained.loss(examples()).item() < 0.005
    assert list(log) == ["epoch", "train_critic", "train_generator", "valid_loss"]


def test_fit_generator__neither_player_moves_the_others_weights():
    duel = Duel()
    point, judge = (part.weight.detach().clone() for part in duel.parts())
    fit_generator(duel, examples(60), spec=GenerativeSpec(epochs=1, batch_size=30, n_critic=3))  # 2 steps: no generator
    assert torch.equal(duel.point.weight, point)
    assert not torch.equal(duel.judge.weight, judge)


def test_fit_generator__refuses_what_it_cannot_train():
    with pytest.raises(SchemaError, match="Linear has no method loss"):
        fit_generator(nn.Linear(1, 1), examples())
    with pytest.raises(SchemaError, match="no sequences"):
        fit_generator(Composition(), examples(0))
    with pytest.raises(ConfigError, match="patience=3 needs sequences to validate on"):
        fit_generator(Composition(), examples(), spec=GenerativeSpec(patience=3))
    with pytest.raises(DivergedError, match="train_loss became"):
        fit_generator(Composition(float("inf")), examples())
    with pytest.raises(ConfigError, match="epochs is at least 1; got 0"):
        GenerativeSpec(epochs=0)
    with pytest.raises(ConfigError, match="average"):
        GenerativeSpec(average=1.0)
