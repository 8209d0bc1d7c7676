"""Links asked of a model: the effect lands on the element that the model reads, wherever and however it was read."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError, UnsupportedError
from ciscribe.io.genome import MemoryGenome
from ciscribe.links.model import (
    CARDS,
    abc_attribution_links,
    attention_links,
    element_segments,
    ism_links,
    mask_links,
)
from ciscribe.models.epinformer import EPInformer
from ciscribe.oracle import Oracle
from ciscribe.schema import check_links
from ciscribe.sequence import N, reverse_complement_codes

BP, BINS = 7, 29
L = BP * BINS
CELLS = ("liver", "blood")
RAISES, LOWERS = (21, 35), (140, 147)  # bins 3, 4 and bin 20 of a row


class Toy(nn.Module):
    """Liver counts A and signal in two bins, blood is lowered by C and signal in another."""

    def __init__(self, fails=False):
        super().__init__()
        self.scale, self.fails = nn.Parameter(torch.ones(1)), fails
        self.dropout = nn.Dropout(0.5)

    def forward(self, X, S=None, covariates=None, keep=None):
        if self.fails and len(X) < 5:
            raise RuntimeError("it fails, as it was told to")
        letters = X.unflatten(-1, (BINS, BP)).sum(dim=-1)
        a, c = letters[:, 0], letters[:, 1]
        if S is not None:
            a, c = a + 10 * S[:, 0], c + 10 * S[:, 0]
        if keep is not None:
            a, c = a * keep, c * keep
        y = torch.stack([a[:, 3:5].sum(dim=1), 5 - c[:, 20]], dim=1)
        return self.dropout(y * self.scale)


class Blind(nn.Module):
    """Reads the sequence and has neither mask nor attention."""

    def forward(self, X):
        return X.sum(dim=-1)[:, :2]


def setup(seed=0):
    """Genome, windows of five genes on either strand, their codes and signals as read."""
    rng = np.random.default_rng(seed)
    genome = rng.integers(0, 4, 1999).astype(np.uint8)
    strands, starts = ["+", "-", "+", "-", "."], np.array([101, 233, 607, 859, 1301])
    signal = rng.random(1999)
    codes, signals = [], []
    for strand, start in zip(strands, starts, strict=True):
        piece, level = genome[start:start + L], signal[start:start + L].reshape(BINS, BP).mean(axis=1)
        codes.append(reverse_complement_codes(piece) if strand == "-" else piece)
        signals.append(level[::-1] if strand == "-" else level)
    windows = pd.DataFrame({"chrom": "chr1", "start": starts, "end": starts + L, "strand": strands,
                            "gene_id": [f"g{i}" for i in range(5)]})
    S = torch.tensor(np.stack(signals)[:, None], dtype=torch.float32)
    return genome, windows, np.stack(codes), torch.cat([S, S], dim=1)


def place(windows, row, span):
    """Genomic interval of a span of a row."""
    w = windows.iloc[row]
    a, b = span if w["strand"] != "-" else (L - span[1], L - span[0])
    return w["start"] + a, w["start"] + b


def elements_of(windows, *spans):
    """Each span of each row, and one off all windows."""
    places = [place(windows, row, span) for row in range(5) for span in spans]
    return pd.DataFrame({"chrom": "chr1", "start": [a for a, _ in places] + [1900],
                         "end": [b for _, b in places] + [1950]})


def oracle(model=None):
    return Oracle(Toy() if model is None else model, device="cpu")


def own(links, windows, row, span, cell):
    start, end = place(windows, row, span)
    found = links.loc[(links["start"] == start) & (links["end"] == end) & (links["gene_id"] == f"g{row}")
                      & (links["cell"] == cell)]
    assert len(found) == 1
    return found.iloc[0]


def amounts(codes, S, row):
    """What liver reads in its bins, and what lowers blood, as (bases, signal)."""
    liver = (codes[row, 21:35] == 0).sum(), 10 * float(S[row, 0, 3:5].sum())
    blood = (codes[row, 140:147] == 1).sum(), 10 * float(S[row, 0, 20])
    return liver, blood


@pytest.mark.parametrize("how", ["erase", "n", "signals", "both"])
def test_mask_links__effect_lands_on_the_element_that_is_read(how):
    _, windows, codes, S = setup()
    links = mask_links(oracle(), codes, S, None, windows, elements_of(windows, RAISES, LOWERS), cells=CELLS, how=how)
    check_links(links)
    assert set(links["method"]) == {f"mask_{how}"}
    bases, signal = {"erase": (1, 1), "n": (1, 0), "signals": (0, 1), "both": (1, 1)}[how]
    for row in range(5):
        liver, blood = amounts(codes, S, row)
        raises, lowers = own(links, windows, row, RAISES, "liver"), own(links, windows, row, LOWERS, "blood")
        assert raises["effect"] == pytest.approx(bases * liver[0] + signal * liver[1], abs=1e-4)
        assert raises["score"] == raises["effect"] > 0
        assert raises["before"] == pytest.approx(sum(liver), abs=1e-4)
        assert lowers["effect"] == pytest.approx(-bases * blood[0] - signal * blood[1], abs=1e-4)
        assert lowers["effect"] < 0 == lowers["score"]
        assert own(links, windows, row, RAISES, "blood")["effect"] == pytest.approx(0, abs=1e-5)


def test_mask_links__pairs_distances_and_range():
    _, windows, codes, S = setup()
    elements = elements_of(windows, RAISES, LOWERS)
    links = mask_links(oracle(), codes, S, None, windows, elements, cells=CELLS)
    touching = sum((e["start"] < w["end"]) and (e["end"] > w["start"]) for _, e in elements.iterrows()
                   for _, w in windows.iterrows())
    assert len(links) == 2 * touching > 20
    for row, strand in enumerate(windows["strand"]):
        start, end = place(windows, row, RAISES)
        tss = windows["end"][row] - 1 - L // 2 if strand == "-" else windows["start"][row] + L // 2
        assert own(links, windows, row, RAISES, "liver")["distance"] == abs((start + end) // 2 - tss)
    near = mask_links(oracle(), codes, S, None, windows, elements, cells=CELLS, max_distance=60)
    assert len(near) == (links["distance"] <= 60).sum() > 0
    moved = mask_links(oracle(), codes, S, None, windows.assign(tss=windows["start"]), elements, cells=CELLS)
    assert own(moved, windows, 0, RAISES, "liver")["distance"] == 28
    assert len(mask_links(oracle(), codes, S, None, windows, elements.tail(1), cells=CELLS)) == 0


def test_mask_links__only_the_part_on_the_window_counts():
    _, windows, codes, S = setup()
    elements = pd.DataFrame({"chrom": "chr1", "start": [0], "end": [101 + 28]})  # bins 0 to 3 of the first row
    links = mask_links(oracle(), codes[:1], S[:1], None, windows.head(1), elements, cells=CELLS)
    expected = (codes[0, 21:28] == 0).sum() + 10 * float(S[0, 0, 3])
    assert links.set_index("cell").loc["liver", "effect"] == pytest.approx(expected, abs=1e-4)


def test_mask_links__tracks_that_stay_and_shuffles():
    _, windows, codes, S = setup()
    elements = elements_of(windows, RAISES)
    other = mask_links(oracle(), codes, S, None, windows, elements, cells=CELLS, how="signals", tracks=[1])
    assert other["effect"].abs().max() == 0  # the model reads track 0

    class First(nn.Module):  # one base decides, so that a shuffle moves it away
        def forward(self, X):
            return X[:, :2, 25]

    codes[0, 20:36] = 1
    codes[0, 25] = 0
    shuffled = mask_links(oracle(First()), codes, None, None, windows, elements, cells=CELLS, how="shuffle",
                          n_shuffles=11)
    hit = own(shuffled, windows, 0, RAISES, "liver")
    assert 0.5 < hit["effect"] <= 1
    assert hit["effect_se"] < 0.3
    again = mask_links(oracle(First()), codes, None, None, windows, elements, cells=CELLS, how="shuffle", n_shuffles=11)
    pd.testing.assert_frame_equal(shuffled, again)


@pytest.mark.parametrize("fails", [False, True])
def test_mask_links__leaves_everything_as_it_was(fails):
    _, windows, codes, S = setup()
    elements, model = elements_of(windows, RAISES), Toy(fails).train()
    before = codes.copy(), S.clone(), windows.copy(), elements.copy()
    for how in ("erase", "both", "n"):
        if fails:
            with pytest.raises(RuntimeError, match="as it was told to"):
                mask_links(oracle(model), codes, S, None, windows, elements, cells=CELLS, how=how, batch_size=3)
        else:
            mask_links(oracle(model), codes, S, None, windows, elements, cells=CELLS, how=how, batch_size=3)
    assert model.training
    assert model.dropout.training
    assert model.scale.requires_grad
    np.testing.assert_array_equal(codes, before[0])
    torch.testing.assert_close(S, before[1])
    pd.testing.assert_frame_equal(windows, before[2])
    pd.testing.assert_frame_equal(elements, before[3])


def test_mask_links__batches_do_not_matter():
    _, windows, codes, S = setup()
    elements = elements_of(windows, RAISES, LOWERS)
    one, many = (mask_links(oracle(), codes, S, None, windows, elements, cells=CELLS, how="both", batch_size=n)
                 for n in (1, 64))
    pd.testing.assert_frame_equal(one, many)


def test_mask_links__errors():
    _, windows, codes, S = setup()
    elements = elements_of(windows, RAISES)

    def ask(model=None, codes=codes, S=S, windows=windows, elements=elements, cells=CELLS, **options):
        return mask_links(oracle(model), codes, S, None, windows, elements, cells=cells, **options)

    with pytest.raises(UnsupportedError, match="Blind has no mask that could be closed"):
        ask(Blind(), S=None)
    with pytest.raises(SchemaError, match="sets signals to 0, but there are none"):
        ask(S=None, how="both")
    with pytest.raises(SchemaError, match="how is one of erase, both, n, signals, shuffle; got 'cut'"):
        ask(how="cut")
    with pytest.raises(SchemaError, match=r"2 of 8 repeat; first: chr1:122-136"):
        ask(elements=pd.concat([elements, elements.head(2)]))
    with pytest.raises(SchemaError, match=r"one row for each of the 5 sequences, 203 bp long; got 4 rows"):
        ask(windows=windows.head(4))
    with pytest.raises(SchemaError, match="1 of another length"):
        ask(windows=windows.assign(end=windows["end"] + [0, 0, 3, 0, 0]))
    with pytest.raises(SchemaError, match="each gene has one window; 4 repeat; first: g"):
        ask(windows=windows.assign(gene_id="g"))
    with pytest.raises(SchemaError, match="missing: strand"):
        ask(windows=windows.drop(columns="strand"))
    with pytest.raises(SchemaError, match="strand of windows is one of"):
        ask(windows=windows.assign(strand="x"))
    with pytest.raises(SchemaError, match="the oracle gives 2 numbers a gene"):
        ask(cells=("liver",))
    with pytest.raises(SchemaError, match="elements end at or before their start"):
        ask(elements=elements.assign(end=elements["start"]))
    with pytest.raises(SchemaError, match="resolution=11"):
        ask(resolution=11)


def test_ism_links__is_the_loss_over_the_substitutions():
    _, windows, codes, S = setup()
    codes[2, 23] = N
    spans = (RAISES, LOWERS)
    elements = elements_of(windows, *spans)
    mean, largest = (ism_links(oracle(), codes, S, None, windows, elements, cells=CELLS, summary=summary)
                     for summary in ("mean", "largest"))
    check_links(mean)
    for row in range(5):
        for j, (cell, span) in enumerate(zip(CELLS, spans, strict=True)):
            wanted = []
            for p in range(*span):
                if codes[row, p] < N:
                    other = np.repeat(codes[row:row + 1], 3, axis=0)
                    other[:, p] = [b for b in range(4) if b != codes[row, p]]
                    y = oracle().predict(torch.from_numpy(other), S[row:row + 1].expand(3, -1, -1))
                    wanted.append(float(oracle().predict(torch.from_numpy(codes[row:row + 1]), S[row:row + 1])[0, j]
                                        - y[:, j].mean()))
            one = own(mean, windows, row, span, cell)
            assert one["n_positions"] == len(wanted)
            assert one["effect"] == pytest.approx(np.mean(wanted), abs=1e-5)
            most = own(largest, windows, row, span, cell)["effect"]
            assert most == pytest.approx(wanted[int(np.abs(wanted).argmax())], abs=1e-5)
    some = ism_links(oracle(), codes, S, None, windows, elements, cells=CELLS, step=3)
    assert own(some, windows, 0, RAISES, "liver")["n_positions"] == len(range(21, 35, 3))
    with pytest.raises(SchemaError, match="summary is mean or largest"):
        ism_links(oracle(), codes, S, None, windows, elements, cells=CELLS, summary="sum")


# ---- sets of segments, attention


LENGTH = 37


def gene_set():
    rng = np.random.default_rng(5)
    genome = MemoryGenome({"chr1": rng.integers(0, 4, 3001).astype(np.uint8)})
    genes = pd.DataFrame({"chrom": "chr1", "start": [400, 900, 10], "end": [800, 1500, 60], "strand": ["+", "-", "+"],
                          "gene_id": ["a", "b", "c"], "gene_name": ["A", "B", "C"], "tss": [400, 1499, 10]})
    start = np.array([430, 700, 1000, 1300, 1800, 2950])
    rows = [(g, s) for g in ("a", "b", "x") for s in start]
    tss = {"a": 400, "b": 1499, "x": 0}
    links = pd.DataFrame({"chrom": "chr1", "start": [s for _, s in rows], "end": [s + 50 for _, s in rows],
                          "gene_id": [g for g, _ in rows], "cell": "liver",
                          "distance": [abs(s + 25 - tss[g]) for g, s in rows], "score": 0.0})
    return genome, genes, links.assign(activity=np.arange(len(links)) + 0.5)


def test_element_segments__cuts_what_is_there():
    genome, genes, links = gene_set()
    made = element_segments(genome, genes, links, features=("distance", "activity"), length=LENGTH, n_elements=4,
                            max_distance=1500, min_distance=100)
    codes = made.codes.reshape(3, 5, LENGTH)
    assert made.features.shape == (3, 2, 5)
    assert made.slots["gene_id"].value_counts().to_dict() == {"a": 4, "b": 4}
    nearest = {"a": [700, 1000, 1300, 1800], "b": [1300, 1800, 1000, 700]}
    for gene, group in made.slots.groupby("gene_id"):
        assert group["start"].tolist() == nearest[gene]
    assert set(made.slots["slot"]) == {0, 1, 3, 4}
    for row in made.slots.to_dict("records"):
        middle = row["start"] + 25
        there = genome.fetch("chr1", middle - 18, middle + 19)
        if row["gene_id"] == "b":  # read 5'→3': position 18 is the same base
            there = reverse_complement_codes(there)
        np.testing.assert_array_equal(codes[row["row"], row["slot"]], there)
        np.testing.assert_allclose(made.features[row["row"], :, row["slot"]], [row["distance"], row["activity"]])
    for g, tss in enumerate(genes["tss"]):
        assert codes[g, 2, 18] == (3 - genome.fetch("chr1", tss, tss + 1)[0] if g == 1
                                   else genome.fetch("chr1", tss, tss + 1)[0])
    assert (codes[2, [0, 1, 3, 4]] == N).all()
    assert (codes[2, 2, :8] == N).all()  # off the chromosome
    assert (made.features[2] == 0).all()


def test_element_segments__errors():
    genome, genes, links = gene_set()
    with pytest.raises(SchemaError, match="n_elements is even"):
        element_segments(genome, genes, links, features=(), n_elements=3)
    with pytest.raises(SchemaError, match="missing: contact"):
        element_segments(genome, genes, links)
    with pytest.raises(SchemaError, match="of one cell are needed; got liver, blood"):
        element_segments(genome, genes, pd.concat([links, links.assign(cell="blood")]), features=())
    with pytest.raises(SchemaError, match=r"1 of 18 links have others; first: row 0 chr1:430"):
        element_segments(genome, genes, links.assign(activity=[np.nan, *range(17)]), features=("activity",))


class Looks(nn.Module):
    """Every segment looks at the one whose feature is large."""

    def attention(self, X, S):
        n = S.shape[2]
        return S[:, :1].softmax(dim=-1)[:, :, None].expand(-1, 3, n, n)

    def forward(self, X, S):
        return S.sum(dim=(1, 2))[:, None]


def test_attention_links__attention_times_activity():
    genome, genes, links = gene_set()
    made = element_segments(genome, genes, links, features=("activity",), length=LENGTH, n_elements=4,
                            max_distance=1500, min_distance=100)
    S = torch.from_numpy(made.features)
    found = attention_links(oracle(Looks()), made.codes, S, made.slots, batch_size=2)
    check_links(found)
    weight = S[:, 0].softmax(dim=-1).numpy()
    np.testing.assert_allclose(found["attention"], weight[made.slots["row"], made.slots["slot"]], rtol=1e-5)
    np.testing.assert_allclose(found["score"], found["attention"] * found["activity"])
    assert "slot" not in found
    torch.manual_seed(0)
    model = EPInformer(n_signals=1, n_covariates=0, length=LENGTH, channels=(5, 7, 6), n_layers=2, n_heads=3).train()
    real = attention_links(oracle(model), made.codes, S, made.slots)
    assert model.training
    totals = real.groupby("gene_id")["attention"].sum()
    assert bool(((totals > 0) & (totals < 1)).all())  # the rest is the promoter's own


def test_attention_links__errors():
    genome, genes, links = gene_set()
    made = element_segments(genome, genes, links, features=("activity",), length=LENGTH, n_elements=4, min_distance=100)
    S = torch.from_numpy(made.features)
    with pytest.raises(UnsupportedError, match="Blind shows no attention"):
        attention_links(oracle(Blind()), made.codes, S, made.slots)
    with pytest.raises(SchemaError, match="need the columns row, slot, k27"):
        attention_links(oracle(Looks()), made.codes, S, made.slots, activity="k27")
    with pytest.raises(SchemaError, match="8 of 8 elements have a negative activity or none; first: row 0 chr1:"):
        attention_links(oracle(Looks()), made.codes, S, made.slots.assign(activity=np.nan))
    with pytest.raises(SchemaError, match="X has 1 rows of 5 segments"):
        attention_links(oracle(Looks()), made.codes[:1], S[:1], made.slots)


# ---- ABC × attribution


def test_abc_attribution_links__share_of_the_mass_in_the_element():
    _, windows, _, _ = setup()
    mass = np.random.default_rng(3).normal(size=(5, 2, BINS))
    places = [(row, span) for row in range(5) for span in (RAISES, (140, 150), (0, L))]
    at = [place(windows, row, span) for row, span in places]
    links = pd.DataFrame({"chrom": "chr1", "start": [a for a, _ in at], "end": [b for _, b in at],
                          "gene_id": [f"g{row}" for row, _ in places], "cell": "blood", "distance": 0, "score": 0.5})
    found = abc_attribution_links(links, mass, windows, cells=CELLS)
    per_base = np.repeat(np.abs(mass), BP, axis=-1)  # as read
    for (row, span), share in zip(places, found["mass"], strict=True):
        assert share == pytest.approx(per_base[row, 1, span[0]:span[1]].sum() / per_base[row, 1].sum())
    np.testing.assert_allclose(found["score"], 0.5 * found["mass"])
    np.testing.assert_allclose(found["abc"], 0.5)
    same = abc_attribution_links(links, mass[:, 1], windows)
    pd.testing.assert_frame_equal(same, found)
    off = abc_attribution_links(links.head(1).assign(start=1900, end=1950), mass[:, 1], windows)
    assert off["score"].tolist() == [0]
    other = abc_attribution_links(links.head(1).assign(chrom="chr2"), mass[:, 1], windows)
    assert other["score"].tolist() == [0]
    nothing = abc_attribution_links(links, np.zeros((5, BINS)), windows)
    assert (nothing["score"] == 0).all()


def test_abc_attribution_links__errors():
    _, windows, _, _ = setup()
    links = pd.DataFrame({"chrom": "chr1", "start": [101], "end": [108], "gene_id": ["g0"], "cell": ["lung"],
                          "distance": [3], "score": [0.5]})
    mass = np.ones((5, 2, BINS))
    with pytest.raises(SchemaError, match="1 of 1 links are of a cell without mass; first: lung"):
        abc_attribution_links(links, mass, windows, cells=CELLS)
    with pytest.raises(SchemaError, match="needs the names of its 2 cells"):
        abc_attribution_links(links, mass, windows)
    with pytest.raises(SchemaError, match="belong to a gene without a window; first: g9"):
        abc_attribution_links(links.assign(gene_id="g9"), mass[:, 0], windows)
    with pytest.raises(SchemaError, match="a bin of mass is a whole number of bp; got 13 bins"):
        abc_attribution_links(links, mass[:, 0, :13], windows)
    with pytest.raises(SchemaError, match="5 not finite"):
        abc_attribution_links(links, np.full((5, 1), np.nan), windows)


def test_cards__are_of_links():
    assert {card.kind for card in CARDS.values()} == {"links"}
    assert all(card.name in (name, f"{name}_links") for name, card in CARDS.items())
