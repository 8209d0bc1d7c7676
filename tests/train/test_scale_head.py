"""Changing the units of a model's predictions by its last layer."""

import numpy as np
import pytest
import torch
from torch import nn

from ciscribe.models import registry
from ciscribe.nn.conv import Conv1d
from ciscribe.nn.strands import BothStrands
from ciscribe.sequence import one_hot_tensor
from ciscribe.train.fit import scale_head

T, L = 3, 37
SCALE, SHIFT = np.array([0.25, 7.0, 113.0]), np.array([-3.0, 0.0, 1009.0])
X = one_hot_tensor(torch.randint(0, 5, (5, L), generator=torch.Generator().manual_seed(0)))


def linear_head():
    return registry.create("deepbind", n_targets=T, filters=5, kernel=7, hidden=11)


class Squeezed(nn.Module):
    """A last layer, and something after it."""

    def __init__(self, after, head=None):
        super().__init__()
        self.body = nn.Sequential(Conv1d(4, 7, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.head = head or nn.Linear(7, T)
        self.after = after

    def forward(self, X):
        return self.after(self.head(self.body(X)))


@pytest.mark.parametrize("wrap", [None, "mean", "max"])
def test_scale_head__predictions_are_in_the_new_units(wrap):
    model = linear_head() if wrap is None else BothStrands(linear_head(), wrap)
    model.eval()
    before = model(X).detach()
    assert scale_head(model, SCALE, SHIFT, X)
    expected = before * torch.from_numpy(SCALE).float() + torch.from_numpy(SHIFT).float()
    torch.testing.assert_close(model(X).detach(), expected, rtol=1e-4, atol=1e-3)
    assert scale_head(model, 1 / SCALE, -SHIFT / SCALE, X)
    torch.testing.assert_close(model(X).detach(), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("after", [nn.Softplus(), nn.Sigmoid(), nn.ReLU(), nn.LayerNorm(T)],
                         ids=lambda a: type(a).__name__)
def test_scale_head__leaves_a_model_alone_whose_last_layer_is_not_its_end(after):
    torch.manual_seed(1)
    model = Squeezed(after)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert not scale_head(model, SCALE, SHIFT, X)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("model", [
    Squeezed(lambda y: {"expression": y}), Squeezed(lambda y: y[:, :, None]),
    Squeezed(nn.Identity(), nn.Linear(7, T, bias=False)), Squeezed(nn.Identity(), nn.Linear(7, 5)),
], ids=["a dictionary", "binned", "no bias", "another number of targets"])
def test_scale_head__outputs_that_it_does_not_serve(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert not scale_head(model, SCALE, SHIFT, X)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("after", [nn.Identity(), nn.Softplus()], ids=["done", "refused"])
def test_scale_head__mode_is_kept_and_statistics_are_not_touched(training, after):
    model = Squeezed(after)
    model.body.insert(1, nn.BatchNorm1d(7))
    model.train(training)
    scale_head(model, SCALE, SHIFT, X)
    assert all(m.training == training for m in model.modules())
    assert int(model.body[1].num_batches_tracked) == 0


def test_scale_head__a_model_that_fails_is_as_before():
    model = registry.create("deepstarr", n_targets=T, length=61, filters=(3, 5, 7, 11), hidden=13)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match="61"):
        scale_head(model, SCALE, SHIFT, X)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
