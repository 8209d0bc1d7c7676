import pytest
import torch
from torch import nn

from ciscribe.errors import ConfigError, SchemaError
from ciscribe.models.caduceus import Caduceus
from ciscribe.models.deepstarr import DeepSTARR
from ciscribe.models.xpresso import Xpresso
from ciscribe.nn.conv import Conv1d
from ciscribe.nn.strands import BothStrands
from ciscribe.oracle import Oracle
from ciscribe.sequence import one_hot_tensor, reverse_complement

B, L = 3, 53


def sequences(length=L, seed=0):
    return one_hot_tensor(torch.randint(0, 5, (B, length), generator=torch.Generator().manual_seed(seed)))


class Tracks(nn.Module):
    """Five tracks at every base, or a dictionary of them."""

    def __init__(self, outputs=None):
        super().__init__()
        self.conv, self.outputs = Conv1d(4, 5, 7, padding="same"), outputs

    def forward(self, X):
        y = self.conv(X)
        whole = {"profile": y, "counts": y.sum(dim=-1), "one": y.sum(dim=(1, 2)).unsqueeze(1), "human": y[:, :3]}
        return {k: whole[k] for k in self.outputs} if self.outputs else y


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("combine", ["mean", "max"])
def test_scalars__do_not_depend_on_the_strand(combine):
    inner = DeepSTARR(7, length=L, filters=(11, 13, 5, 3), hidden=17).eval()
    model = BothStrands(inner, combine)
    X = sequences()
    ahead, back = inner(X), inner(reverse_complement(X))
    assert not torch.allclose(ahead, back)
    torch.testing.assert_close(model(X), model(reverse_complement(X)))
    torch.testing.assert_close(model(X), torch.maximum(ahead, back) if combine == "max" else (ahead + back) / 2)
    assert model.model is inner


def test_covariates__belong_to_both_strands():
    inner = Xpresso(7, 5, length=307, filters=(11, 13), hidden=(17, 19)).eval()
    model, X, covariates = BothStrands(inner), sequences(307), torch.randn(B, 5)
    torch.testing.assert_close(model(X, covariates=covariates), model(reverse_complement(X), covariates=covariates))
    torch.testing.assert_close(Oracle(model, device="cpu").predict(X, covariates=covariates),
                               model(X, covariates=covariates).detach())


def test_signals_and_keep__are_turned_with_the_sequence():
    inner = Caduceus(7, 2, 0, resolution=16, d_model=11, n_layers=1, d_state=3, expand=1).eval()
    model, X, S = BothStrands(inner), sequences(11 * 16), torch.rand(B, 2, 11)
    keep = (torch.rand(B, 11) > 0.3).float()
    a = model(X, S, keep=keep)["expression"]
    torch.testing.assert_close(a, model(reverse_complement(X), S.flip(-1), keep=keep.flip(-1))["expression"])
    assert not torch.allclose(a, model(reverse_complement(X), S, keep=keep.flip(-1))["expression"])
    assert not torch.allclose(a, model(reverse_complement(X), S.flip(-1), keep=keep)["expression"])


@pytest.mark.parametrize("combine", ["mean", "max"])
@pytest.mark.parametrize("swap", [None, (1, 0, 2, 4, 3)])
def test_tracks__turn_with_the_sequence_and_swap(combine, swap):
    inner = Tracks().eval()
    model, X = BothStrands(inner, combine, swap), sequences()
    partners = list(swap or range(5))
    turned = model(reverse_complement(X)).flip(-1)[:, partners]
    torch.testing.assert_close(model(X), turned)
    back = inner(reverse_complement(X)).flip(-1)[:, partners]
    torch.testing.assert_close(model(X), torch.maximum(inner(X), back) if combine == "max" else (inner(X) + back) / 2)


def test_dictionary__each_entry_by_its_shape():
    swap = [1, 0, 2, 4, 3]
    model, X = BothStrands(Tracks(("profile", "counts", "one")), swap=swap), sequences()
    a, b = model(X), model(reverse_complement(X))
    assert {k: tuple(v.shape) for k, v in a.items()} == {"profile": (B, 5, L), "counts": (B, 5), "one": (B, 1)}
    torch.testing.assert_close(a["profile"], b["profile"].flip(-1)[:, swap])
    torch.testing.assert_close(a["counts"], b["counts"][:, swap])
    torch.testing.assert_close(a["one"], b["one"])
    assert not torch.allclose(a["counts"], b["counts"])


def test_dictionary__a_swap_for_each_head():
    model, X = BothStrands(Tracks(("human", "profile")), swap={"human": (1, 0, 2)}), sequences()
    a, b = model(X), model(reverse_complement(X))
    torch.testing.assert_close(a["human"], b["human"].flip(-1)[:, [1, 0, 2]])
    torch.testing.assert_close(a["profile"], b["profile"].flip(-1))


def test_refuses():
    with pytest.raises(ConfigError, match="2 of 3 tracks are not their partner's partner; first: track 0 → 1"):
        BothStrands(Tracks(), swap=(1, 2, 2))
    with pytest.raises(ConfigError, match=r"swap of 'human'.*first: track 1 → 7"):
        BothStrands(Tracks(), swap={"human": (0, 7)})
    with pytest.raises(SchemaError, match="pairs 3 tracks, but the model's output has 5"):
        BothStrands(Tracks(), swap=(1, 0, 2))(sequences())
    with pytest.raises(SchemaError, match="names the output 'mouse', but the model returned human, one"):
        BothStrands(Tracks(("human", "one")), swap={"mouse": (1, 0)})(sequences())
    with pytest.raises(SchemaError, match="returned one tensor; give swap as a sequence"):
        BothStrands(Tracks(), swap={"mouse": (1, 0)})(sequences())


def test_refuses__language_models():
    class Language(Tracks):
        def forward(self, X):
            return {"logits": self.conv(X), "embedding": X}

    with pytest.raises(SchemaError, match="returned logits, embedding: the tokens of a language model"):
        BothStrands(Language())(sequences())
