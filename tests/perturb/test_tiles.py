"""Pieces that are removed, against strings and loops; what fills keep; whose effect has which sign."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import apply_edits
from ciscribe.perturb.reading import before_after, padded_edits, predict, shuffles
from ciscribe.perturb.tiles import ablate, block_shuffle, tile_deletion, tile_windows
from ciscribe.sequence import codes_of, decode, encode, one_hot, one_hot_tensor
from reference import perturb as twin

L = 61
LETTERS = "".join(np.random.default_rng(5).choice(list("ACGT"), L))
FIRST = twin.replaced(twin.replaced(LETTERS, 3, twin.A), 3 + 7 + twin.GAP, twin.B)  # A 3-10, B 21-26
SECOND = twin.replaced(LETTERS[:55] + "NN" + LETTERS[57:], 40, twin.R)  # R 40-47
THIRD = twin.replaced(LETTERS[::-1], L - 7, twin.A)  # A ends where the sequence ends
SEQUENCES = (FIRST, SECOND, THIRD)
X = np.stack([encode(s) for s in SEQUENCES])


def oracle(model=None):
    torch.set_num_threads(1)
    return Oracle(model or twin.Grammar(), device="cpu")


class Seen:
    """A reading that keeps the sequences it is asked about and answers with their composition."""

    def __init__(self):
        self.sequences = []

    def __call__(self, oracle, X, S=None, covariates=None, *, batch_size=64):
        codes = codes_of(X)
        self.sequences += [decode(c) for c in codes]
        return one_hot(codes).sum(axis=2)


def intervals(*rows, **more):
    return pd.DataFrame(rows, columns=["region", "start", "end"]).assign(**more)


def test_grammar__is_its_twin():
    got = oracle().predict(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(got, [twin.grammar(s) for s in SEQUENCES], atol=1e-5)
    assert got[0, 0] - got[2, 0] >= 6  # A, B and their synergy against an A


@pytest.mark.parametrize(("length", "width", "stride"), [(249, 10, 5), (250, 10, 5), (251, 10, 5), (23, 23, 7),
                                                         (23, 7, 7), (23, 5, 1), (29, 11, 3), (1, 1, 1)])
def test_tile_windows__cover_everything_and_end_at_the_end(length, width, stride):
    windows = tile_windows(length, width, stride)
    assert [tuple(w) for w in windows] == twin.tile_windows(length, width, stride)
    assert len(windows) == {249: 49, 250: 49, 251: 50}.get(length, len(windows))


@pytest.mark.parametrize(("width", "stride", "fault"), [
    (62, 5, "a tile of 62 bp does not fit into a sequence of 61 bp"), (0, 1, "a tile of 0 bp"),
    (10, 11, "a stride lies between 1 and the width of 10 bp.*got 11"), (10, 0, "got 0")])
def test_tile_deletion__refuses_grids_that_do_not_fit(width, stride, fault):
    with pytest.raises(SchemaError, match=fault):
        tile_deletion(oracle(), X, width=width, stride=stride)


@pytest.mark.parametrize(("width", "stride"), [(10, 5), (7, 7), (11, 3)])
@pytest.mark.parametrize("given", ["codes", "one-hot", "tensor"])
def test_tile_deletion__with_n_is_the_slow_twin(width, stride, given):
    batch = {"codes": X, "one-hot": one_hot(X), "tensor": one_hot_tensor(torch.from_numpy(X))}[given]
    kept = np.array(batch)
    windows, scores = tile_deletion(oracle(), batch, width=width, stride=stride, fill="N", batch_size=17)
    assert (np.array(batch) == kept).all()
    assert scores.dims == ("region", "position", "track")
    assert scores.shape == (3, L, 2)
    for i, sequence in enumerate(SEQUENCES):
        effects, per_base = twin.tile_deletion(twin.grammar, sequence, width, stride)
        rows = windows[windows["region"] == i]
        np.testing.assert_allclose(rows["effect"].to_numpy().reshape(-1, 2), effects, atol=1e-5)
        np.testing.assert_allclose(scores[i], per_base, atol=1e-5)
        spans = rows.loc[rows["track"] == 1, ["start", "end"]].to_numpy()
        assert [tuple(s) for s in spans] == twin.tile_windows(L, width, stride)
    assert windows["se"].isna().all()
    np.testing.assert_allclose(windows["before"] - windows["after"], windows["effect"], atol=1e-6)
    np.testing.assert_allclose(windows["effect"] / windows["before"], windows["relative"], atol=1e-6)
    assert scores.attrs == {"method": "tile_deletion", "units": str(oracle().readout), "width": width,
                            "stride": stride, "fill": "N"}


def test_tile_deletion__finds_what_raises_and_what_lowers():
    result = tile_deletion(oracle(), X, width=10, stride=5, n_fills=7)
    scores = result.scores.sel(track=0)
    assert scores[0, 3:10].min() > 2  # A and its part in the synergy
    assert scores[0, 21:26].min() > 2
    assert scores[1, 40:47].max() < -1  # the repressor is signed negative …
    assert result.scores.sel(track=1)[1, 40:47].min() > 0.3  # … and raises the second track
    assert abs(scores[1, :35]).max() == 0
    assert result.scores.attrs["fill"] == "shuffle"
    assert result.scores.attrs["n_fills"] == 7


@pytest.mark.parametrize("fill", ["shuffle", "dinucleotide", "donor", "N"])
def test_fills__keep_what_they_promise(fill):
    seen = Seen()
    donors = np.stack([encode("ACGT"[i % 4] * L) for i in range(11)])
    given = {"donors": donors} if fill == "donor" else {}
    table = ablate(oracle(), X, intervals((1, 29, 58), (0, 8, 31)), fill=fill, n_fills=5, func=seen, **given)
    made = seen.sequences[3:]  # first the sequences as they are
    repeats = 1 if fill == "N" else 5
    assert len(made) == 2 * repeats
    for k, sequence in enumerate(made):
        original, start, end = (SECOND, 29, 58) if k < repeats else (FIRST, 8, 31)
        assert sequence[:start] + sequence[end:] == original[:start] + original[end:]
        piece, was = sequence[start:end], original[start:end]
        if fill == "N":
            assert set(piece) == {"N"}
        elif fill == "donor":
            assert len(set(piece)) == 1
        else:
            assert piece != was
            assert Counter(piece) == Counter(was)
        if fill == "dinucleotide":
            assert Counter(pairwise(piece)) == Counter(pairwise(was))
    if fill in ("shuffle", "dinucleotide"):
        assert (table["effect"] == 0).all()  # of the composition
        assert len(set(made)) > 5
    if fill == "N":
        assert table.groupby("start")["effect"].sum().tolist() == [23, 29 - 2]  # two N were there already


def test_donors__are_drawn_without_repeats_and_shared_by_intervals_taken_together():
    seen = Seen()
    donors = np.stack([encode("ACG"[i] * L) for i in range(3)])
    ablate(oracle(), X, intervals((0, 2, 4), (0, 7, 13)), fill="donor", donors=donors, n_fills=3, together=True,
           func=seen)
    pieces = [(s[2:4], s[7:13]) for s in seen.sequences[3:]]
    assert sorted(pieces) == [(letter * 2, letter * 6) for letter in "ACG"]
    two = Seen()
    ablate(oracle(), X, intervals((0, 2, 4), (1, 2, 4), (2, 2, 4)), fill="donor", donors=donors, n_fills=3, func=two)
    orders = {tuple(s[2] for s in two.sequences[k:k + 3]) for k in (3, 6, 9)}
    assert len(orders) > 1  # each sequence draws its own


def test_ablate__alone_and_together():
    hits = intervals((0, 3, 10), (1, 40, 47), (0, 21, 26), motif=["A", "R", "B"], effect=[9, 9, 9])
    alone = ablate(oracle(), X, hits, fill="N")
    wild = [twin.grammar(s) for s in SEQUENCES]
    for (region, start, end), rows in alone.groupby(["region", "start", "end"]):
        after = twin.grammar(twin.erased(SEQUENCES[region], [(start, end)]))
        np.testing.assert_allclose(rows["after"], after, atol=1e-5)
        np.testing.assert_allclose(rows["effect"], np.subtract(wild[region], after), atol=1e-5)
    assert alone["motif"].tolist() == ["A", "A", "R", "R", "B", "B"]  # columns and order are kept
    assert alone["track"].tolist() == [0, 1] * 3
    assert alone["effect"][[0, 2, 4]].tolist() == pytest.approx([7, -3, 6], abs=1e-5)

    both = ablate(oracle(), X, hits, fill="N", together=True)
    assert both[["region", "start", "end", "n_intervals"]].drop_duplicates().to_numpy().tolist() == [
        [0, 3, 26, 2], [1, 40, 47, 1]]
    assert both["effect"][0] == pytest.approx(8, abs=1e-5)  # not 13: the synergy is lost once
    np.testing.assert_allclose(both["after"][:2], twin.grammar(twin.erased(FIRST, [(3, 10), (21, 26)])), atol=1e-5)
    np.testing.assert_allclose(both["effect"][2:], alone["effect"][2:4])


@pytest.mark.parametrize("together", [False, True])
def test_ablate__mean_and_error_are_those_of_its_fills(together):
    seen = Seen()
    pieces = intervals((2, 5, 18), (0, 3, 5), (0, 21, 24))  # so short that fills may leave the motif
    ablate(oracle(), X, pieces, n_fills=7, seed=3, func=seen, together=together)
    table = ablate(oracle(), X, pieces, n_fills=7, seed=3, together=together)
    y = np.array([twin.grammar(s) for s in seen.sequences[3:]]).reshape(-1, 7, 2)
    np.testing.assert_allclose(table["after"].to_numpy().reshape(-1, 2), y.mean(1), atol=1e-5)
    np.testing.assert_allclose(table["se"].to_numpy().reshape(-1, 2), y.std(1, ddof=1) / 7**0.5, atol=1e-5)
    assert table["se"].max() > 0.1


def test_ablate__seed_and_rows():
    pieces = intervals((0, 1, 12), (0, 19, 31))
    args = {"fill": "shuffle", "n_fills": 5}
    one = ablate(oracle(), X, pieces, seed=3, **args)
    pd.testing.assert_frame_equal(one, ablate(oracle(), X, pieces, seed=3, batch_size=3, **args))
    pd.testing.assert_frame_equal(one, ablate(oracle(), X[:1], pieces, seed=3, **args))  # other rows do not matter
    seen = [Seen(), Seen(), Seen()]
    for s, seed in zip(seen, (3, 4, None), strict=True):
        ablate(oracle(), X, pieces, seed=seed, func=s, **args)
    assert seen[0].sequences != seen[1].sequences != seen[2].sequences


def test_ablate__no_intervals_give_an_empty_table():
    table = ablate(oracle(), X, intervals((0, 1, 5)).iloc[:0])
    assert len(table) == 0
    assert {"region", "track", "effect", "se"} <= set(table)
    assert len(ablate(oracle(), X, intervals((0, 1, 5)).iloc[:0], together=True)) == 0


def test_ablate__further_inputs_stay_with_their_sequence():
    S, covariates = torch.tensor([1.0, 10, 100]).view(3, 1, 1), torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    table = ablate(oracle(), X, intervals((1, 40, 47), (0, 3, 10)), S, covariates, fill="N")
    assert table.loc[table["track"] == 0, "effect"].tolist() == pytest.approx([-30, 7], abs=1e-4)
    assert table["before"][0] == pytest.approx(twin.grammar(SECOND, 10, 7)[0], abs=1e-4)


@pytest.mark.parametrize(("change", "fault"), [
    ({"intervals": intervals((0, 5, 9)).drop(columns="end")}, "missing: end; got: region, start"),
    ({"intervals": intervals((0, 5, 9), (3, 5, 9))}, "1 of 2 intervals name a sequence .* among 3; first: row 1"),
    ({"intervals": intervals((0, 9, 9))}, "1 of 1 intervals are empty; first: row 0, sequence 0, 9-9"),
    ({"intervals": intervals((0, 55, 62))}, "leave their sequence of 61 bp"),
    ({"intervals": intervals((0, 5.5, 9))}, "column start of intervals must be whole numbers; got dtype float64"),
    ({"fill": "dinuc"}, "unknown fill 'dinuc'; did you mean 'dinucleotide'"),
    ({"fill": "donor"}, "fill='donor' and donors=... go together"),
    ({"donors": X}, "go together"),
    ({"fill": "donor", "donors": X}, "at least n_fills=10 sequences of 61 bp; got 3 of 61 bp"),
    ({"fill": "donor", "donors": X[:, :60], "n_fills": 2}, "got 3 of 60 bp"),
    ({"n_fills": 0}, "at least one fill"),
    ({"X": one_hot_tensor(torch.from_numpy(X)) * 0.5}, "one-hot"),
    ({"func": lambda oracle, X, S, covariates, batch_size: np.zeros((len(X), 2, 3))}, r"needs readings \(n, T\)"),
])
def test_ablate__refuses(change, fault):
    arguments = {"X": X, "intervals": intervals((0, 5, 9))} | change
    with pytest.raises(SchemaError, match=fault):
        ablate(oracle(), **arguments)


def test_ablate__leaves_the_model_as_it_was_after_an_exception():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(1, 1)

        def forward(self, X):
            raise RuntimeError("no")

    model = Fails().train()
    with pytest.raises(RuntimeError, match="no"):
        ablate(oracle(model), X, intervals((0, 5, 9)))
    assert model.training
    assert model.inner.weight.requires_grad


def test_block_shuffle__reorders_intact_blocks():
    seen = Seen()
    table = block_shuffle(oracle(), X, block=13, n_shuffles=5, func=seen, seed=2)
    made = seen.sequences[3:]
    assert len(set(made)) == 15
    assert (table["effect"] == 0).all()  # of the composition
    for k, sequence in enumerate(made):
        was = SEQUENCES[k // 5]
        lost = Counter(pairwise(was)) - Counter(pairwise(sequence))
        assert sum(lost.values()) <= 5  # six pieces of a row of 61 have five cuts
    assert table["region"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_block_shuffle__tells_arrangement_from_number():
    spaced = np.stack([encode(FIRST), encode(twin.replaced(THIRD, 31, twin.B))])  # pair, and B without A
    table = block_shuffle(oracle(), spaced, block=20, n_shuffles=50)
    effect = table.loc[table["track"] == 0, "effect"].to_numpy()
    assert effect[0] > 4  # most orders part A and B
    assert abs(effect[1]) < 1  # one motif is only lost when it is cut
    assert table["se"][0] < 1


@pytest.mark.parametrize("block", [0, 31])
def test_block_shuffle__needs_two_blocks(block):
    with pytest.raises(SchemaError, match=f"1 to 30 of 61 bp; got {block}"):
        block_shuffle(oracle(), X, block=block)


def test_before_after__joins_any_change_and_any_reading():
    def gradient(oracle, X, S=None, covariates=None, *, scale=1.0):
        one = one_hot_tensor(X).requires_grad_()
        with oracle.evaluating(gradients=True) as ask:
            ask(one, S, covariates)[:, 0].sum().backward()
        return scale * one.grad

    changed = np.stack([encode(twin.replaced(s, 50, twin.A)) for s in SEQUENCES])
    plain = before_after(oracle(), X, changed)
    np.testing.assert_allclose(plain.effect, np.subtract([twin.grammar(s) for s in SEQUENCES],
                                                         [twin.grammar(decode(c)) for c in changed]), atol=1e-5)
    some = before_after(oracle(), one_hot(X), changed, func=gradient, scale=3.0)
    assert some.effect.shape == (3, 4, L)
    assert some.after[2, 3, 50] == 6  # the T of the new motif: weight 2, times 3
    assert some.before[2, 3, 50] == 0
    shorter = before_after(oracle(), X, X[:, :53], func=predict, batch_size=2)
    assert shorter.effect.shape == (3, 2)
    with pytest.raises(SchemaError, match="got 3 and 2 sequences"):
        before_after(oracle(), X, X[:2])
    with pytest.raises(SchemaError, match=r"differ in shape, \(3, 4, 61\) and \(3, 4, 53\)"):
        before_after(oracle(), X, X[:, :53], func=gradient)


def test_padded_edits__write_each_piece_where_it_belongs():
    row, start = [2, 0, 1, 0], [58, 0, 31, 60]
    pieces = [encode(p) for p in ("ACG", "TTTTT", "NN", "G")]
    edits = padded_edits(X, row, start, pieces)
    assert edits.bases.shape == (4, 5)
    for made, r, at, piece in zip(apply_edits(X, edits), row, start, ("ACG", "TTTTT", "NN", "G"), strict=True):
        assert decode(made) == SEQUENCES[r][:at] + piece + SEQUENCES[r][at + len(piece):]


def test_shuffles__keep_dinucleotides_and_do_not_depend_on_other_rows():
    made = shuffles(X, 5, seed=1)
    assert made.shape == (3, 5, L)
    for row, original in zip(made, SEQUENCES, strict=True):
        for shuffled in map(decode, row):
            assert shuffled != original
            assert Counter(pairwise(shuffled)) == Counter(pairwise(original))
    assert (shuffles(X[:2], 5, seed=1) == made[:2]).all()
