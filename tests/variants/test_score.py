"""Scores of variants against strings and loops: sign, strands, indels, windows of genes, ensembles, bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ciscribe.errors import SchemaError
from ciscribe.io.genome import MemoryGenome
from ciscribe.oracle import LogCounts, Oracle, Profile, Scalar
from ciscribe.schema import check_effects
from ciscribe.sequence import encode
from ciscribe.train.profiles import jensen_shannon
from ciscribe.variants.score import SCORERS, element_effects, iter_scores, score_variants
from reference import alleles as twin
from reference.perturb import A, B, Grammar, R, grammar

SIZE, LENGTH = 4001, 101


def genome_letters():
    rng = np.random.default_rng(11)
    letters = list(rng.choice(list("ACGT"), SIZE))
    for at in range(30, SIZE - 60, 37):  # sites everywhere, or hardly a variant would do anything
        motif = (A, B, R)[at % 3]
        letters[at:at + len(motif)] = motif
    return "".join(letters)


LETTERS = genome_letters()
GENOME = MemoryGenome({"chr1": encode(LETTERS), "chr2": encode(LETTERS[::-1])})


def variants_of(rng, n, widths=(1,), grown=(0,)):
    rows = set()
    while len(rows) < n:
        width, pos = int(rng.choice(widths)), int(rng.integers(0, SIZE - 20))
        ref = LETTERS[pos:pos + width]
        alt = "".join(rng.choice(list("ACGT"), max(1, width + int(rng.choice(grown)))))
        if alt != ref:
            rows.add(("chr1", pos, ref, alt))
    return pd.DataFrame(sorted(rows), columns=["chrom", "pos", "ref", "alt"])


def oracle(model=None, readout=None):
    torch.set_num_threads(1)
    return Oracle(model or Grammar(), readout, device="cpu")


class Place(nn.Module):
    """Every base at every position has a weight of its own; two tracks, and two profiles of 17 bins of 3 bp."""

    def __init__(self, seed=0, length=LENGTH, negative=True):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        weight = torch.randn(4 * length, 2, generator=draw)
        self.weight = nn.Parameter(weight if negative else weight.abs())
        self.mix = nn.Conv1d(4, 2, 5, padding=2)
        self.drop = nn.Dropout(0.5)

    def forward(self, X, S=None, covariates=None):
        y = self.drop(X.flatten(1)) @ self.weight
        y = y if S is None else y * S[:, :, :3].sum((1, 2))[:, None]
        y = y if covariates is None else y + covariates.sum(1, keepdim=True) ** 2 * y
        return {"expression": y, "counts": y, "profile": self.mix(X)}


def by_hand(f, variants, length=LENGTH, both=True, snap=1):
    """diff of strings, strands averaged, indels both ways; ``(n, T)``."""
    out = []
    for _, pos, ref, alt in variants[["chrom", "pos", "ref", "alt"]].itertuples(index=False):
        middle = pos + (len(ref) - 1) // 2
        start = (middle + snap // 2) // snap * snap - length // 2
        effects = []
        for anchor in ("left", "right"):
            for turn in (False, True) if both else (False,):
                before, after = (twin.reverse_complement(s) if turn else s for s in
                                 twin.windows(LETTERS, pos, ref, alt, length, anchor, start))
                effects.append(np.subtract(f(after), f(before)))
        out.append(np.mean(effects, axis=0))
    return np.array(out)


def place(model):
    weight = model.weight.detach().numpy().reshape(4, -1, 2)
    return lambda s: sum(weight["ACGT".index(base), i] for i, base in enumerate(s) if base != "N")


MIXED = variants_of(np.random.default_rng(3), 71, (1, 1, 1, 2, 5), (0, 0, 0, 1, -1, 3))


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("snap", [1, 17])
def test_score__is_the_mean_difference_of_edited_strings(both, snap):
    model = Place().eval()
    for asked, law in ((oracle(), grammar), (oracle(model), place(model))):
        effects = score_variants(asked, GENOME, MIXED, length=LENGTH, both_strands=both, snap=snap, batch_size=13)
        check_effects(effects)
        got = effects["diff"].to_numpy().reshape(len(MIXED), 2)
        np.testing.assert_allclose(got, by_hand(law, MIXED, both=both, snap=snap), atol=2e-5)
        assert np.abs(got).max() > 1
        assert effects["track"].tolist() == [0, 1] * len(MIXED)
        assert (effects["pos"].to_numpy()[::2] == MIXED["pos"]).all()
        assert (effects["gene_id"] == ".").all()


def test_score__is_positive_where_the_alternative_raises_the_output():
    at = LETTERS.index(A, 1000)
    lost = pd.DataFrame({"chrom": "chr1", "pos": [at + 3], "ref": [A[3]], "alt": ["G"], "name": ["rs1"], "label": [7]})
    genome = MemoryGenome({"chr1": encode(LETTERS[:at + 3] + "G" + LETTERS[at + 4:])})
    won = lost.assign(ref="G", alt=A[3])
    a = score_variants(oracle(), GENOME, lost, length=29, both_strands=False)
    b = score_variants(oracle(), genome, won, length=29, both_strands=False)
    assert a["diff"].tolist() == [-2.0, 0.5]
    assert b["diff"].tolist() == [2.0, -0.5]
    assert a["name"].tolist() == ["rs1", "rs1"]
    assert a["label"].tolist() == [7, 7]


def test_score__snap_changes_nothing_where_the_place_does_not_matter():
    # the sum over a motif that is far from both ends is the same wherever the window begins
    at = LETTERS.index(A, 2000)
    variants = pd.DataFrame({"chrom": "chr1", "pos": np.arange(at, at + 7), "ref": list(A), "alt": list("ACCCCCC")})
    variants["alt"] = ["ACGT"[("ACGT".index(r) + 1) % 4] for r in variants["ref"]]
    asked = oracle(readout=Scalar(track=0))
    exact, near = (score_variants(asked, GENOME, variants, length=61, snap=snap)["diff"] for snap in (1, 19))
    np.testing.assert_allclose(exact, near, atol=1e-5)
    assert (exact.abs() >= 1).sum() >= 5


class Local(nn.Module):
    """A profile whose logits at a base are read within 5 bp: it moves with the sequence."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv1d(4, 3, 11)
        with torch.no_grad():
            self.conv.weight *= 3

    def forward(self, X):
        return {"profile": self.conv(X).exp()}


@pytest.mark.parametrize(("ref_width", "alt"), [(1, "GATTACA"), (7, "C"), (1, "T" * 40), (31, "GA")])
def test_profile__an_indel_has_an_effect_only_where_it_can_be_seen(ref_width, alt):
    pos = 1500
    ref = LETTERS[pos:pos + ref_width]
    alt = ref[0] + alt[1:]
    variants = pd.DataFrame({"chrom": ["chr1"], "pos": [pos], "ref": [ref], "alt": [alt]})
    asked = oracle(Local().eval(), Profile(n_tracks=3, logits=False))
    effects = score_variants(asked, GENOME, variants, length=211, both_strands=False,
                             scorers=("max_abs_sad", "l2", "jsd"))
    # by hand: predictions at bases that both alleles have, and that are still in the window
    kept = min(len(ref), len(alt))
    start = pos + (len(ref) - 1) // 2 - 105
    expected = []
    for anchor in ("left", "right"):
        both = twin.windows(LETTERS, pos, ref, alt, 211, anchor, start)
        y = asked.predict(torch.from_numpy(np.stack([encode(s) for s in both]))).numpy().reshape(2, 3, -1)
        first = start if anchor == "left" else start + len(alt) - len(ref)  # of the edited chromosome
        pairs = []
        for i in range(201):
            base = start + 5 + i
            if base < pos + kept:
                there = base
            elif base < pos + len(ref):
                continue
            else:
                there = base + len(alt) - len(ref)
            j = there - first - 5
            if 0 <= j < 201:
                pairs.append((i, j))
        i, j = np.array(pairs).T
        before, after = y[0][:, i], y[1][:, j]
        change = after - before
        far = (i + 5 + start < pos - 12) | (i + 5 + start > pos + len(ref) + 12)
        np.testing.assert_allclose(change[:, far], 0, atol=1e-4)
        expected.append([np.abs(change).max(axis=1), np.sqrt((change.astype(float) ** 2).sum(axis=1)),
                         jensen_shannon(before.astype(float), after.astype(float)) / np.sqrt(np.log(2))])
    got = effects[["max_abs_sad", "l2", "jsd"]].to_numpy().T
    np.testing.assert_allclose(got, np.mean(expected, axis=0), rtol=1e-4)


def test_profile__bins_wider_than_a_base_keep_their_places():
    class Pooled(Local):
        def forward(self, X):
            return {"profile": torch.nn.functional.avg_pool1d(super().forward(X)["profile"], 13)}

    pos = 1500
    variants = pd.DataFrame({"chrom": "chr1", "pos": [pos], "ref": LETTERS[pos], "alt": LETTERS[pos] + "G" * 26})
    readout = Profile(n_tracks=3, resolution=13, logits=False)
    model = Pooled().eval()
    effects = score_variants(oracle(model, readout), GENOME, variants, length=205, both_strands=False,
                             scorers=("l2",))  # 195 positions are 15 bins, two of which an insertion of 26 moves
    inside = Oracle(model, readout, device="cpu")
    changed = []
    for anchor in ("left", "right"):
        both = twin.windows(LETTERS, pos, LETTERS[pos], LETTERS[pos] + "G" * 26, 205, anchor)
        before, after = inside.predict(torch.from_numpy(np.stack([encode(s) for s in both]))).numpy().reshape(2, 3, 15)
        middle = 5 + 13 * (np.arange(15) + 0.5)
        right = middle >= 103
        shift = np.where(right, 2, 0) if anchor == "left" else np.where(right, 0, -2)
        j = np.arange(15) + shift
        i = np.flatnonzero((j >= 0) & (j < 15))
        changed.append(np.sqrt(((after[:, j[i]] - before[:, i]) ** 2).sum(axis=1)))
    np.testing.assert_allclose(effects["l2"], np.mean(changed, axis=0), rtol=1e-4)


def test_profile__both_strands_turn_the_bins():
    class Skewed(nn.Module):  # one strand sees A, the other T: the mean sees both, in their places
        def forward(self, X):
            return {"profile": X[:, :2] * 5 + 1}

    variants = MIXED[MIXED["ref"].str.len() == MIXED["alt"].str.len()]
    asked = oracle(Skewed(), Profile(n_tracks=2, logits=False))
    effects = score_variants(asked, GENOME, variants, length=LENGTH, scorers=("max_abs_sad", "diff"))
    expected = []
    for _, _, ref, alt in variants.itertuples(index=False):
        pairs = [[5 * ((a == x) - (b == x) + (a == y) - (b == y)) / 2 for a, b in zip(alt, ref, strict=True)]
                 for x, y in (("A", "T"), ("C", "G"))]
        expected += [(np.abs(p).max(), sum(p)) for p in pairs]
    np.testing.assert_allclose(effects[["max_abs_sad", "diff"]], expected, atol=1e-5)
    turned = score_variants(asked, GENOME, variants, length=LENGTH, scorers=("diff",), reverse_tracks=(1, 0))
    by_base = [[5 * ((s.count("A") + s.count("G")) / 2) for s in (ref, alt)] for _, _, ref, alt in
               variants.itertuples(index=False)]
    np.testing.assert_allclose(turned["diff"][::2], [b - a for a, b in by_base], atol=1e-4)
    with pytest.raises(SchemaError, match=r"each of 2 tracks once; got \[0, 0\]"):
        score_variants(asked, GENOME, variants, length=LENGTH, reverse_tracks=(0, 0))


def test_counts__fold_changes():
    model = Place(negative=False).eval()
    model.weight.data /= 7
    linear, log = oracle(model), oracle(model, LogCounts())
    variants = MIXED[:23]
    options = {"length": LENGTH, "both_strands": False, "scorers": ("diff", "logfc", "abs_logfc", "l2", "max_abs_sad")}
    table = score_variants(log, GENOME, variants, **options)
    np.testing.assert_allclose(table["logfc"], table["diff"] / np.log(2))
    np.testing.assert_allclose(table["abs_logfc"], table["logfc"].abs(), atol=1e-6)
    same = variants[variants["ref"].str.len() == variants["alt"].str.len()]
    table = score_variants(linear, GENOME, same, pseudocount=0.25, **options)
    law = place(model)
    for i, (_, pos, ref, alt) in enumerate(same.itertuples(index=False)):
        before, after = map(law, twin.windows(LETTERS, pos, ref, alt, LENGTH, "left"))
        rows = table.iloc[2 * i:2 * i + 2]
        np.testing.assert_allclose(rows["logfc"], np.log2((after + 0.25) / (before + 0.25)), atol=1e-5)
        np.testing.assert_allclose(rows["l2"], np.sqrt(((after - before) ** 2).sum()), atol=1e-5)
        np.testing.assert_allclose(rows["max_abs_sad"], np.abs(after - before).max(), atol=1e-5)


def test_ism__is_the_change_of_what_single_substitutions_do():
    variants = MIXED.iloc[[1, 8, 20, 41, 60, 70]].reset_index(drop=True)
    table = score_variants(oracle(), GENOME, variants, length=LENGTH, both_strands=False, scorers=("ism",),
                           ism_width=6)

    def around(sequence, at, width):
        before, effects = np.array(grammar(sequence)), []
        for p in range(max(0, at - 6), min(len(sequence), at + width + 6)):
            effects += [np.abs(np.array(grammar(sequence[:p] + b + sequence[p + 1:])) - before)
                        for b in "ACGT" if b != sequence[p] and sequence[p] != "N"]
        return np.mean(effects, axis=0)

    expected = []
    for _, pos, ref, alt in variants.itertuples(index=False):
        start = pos + (len(ref) - 1) // 2 - LENGTH // 2
        each = []
        for anchor in ("left", "right"):
            before, after = twin.windows(LETTERS, pos, ref, alt, LENGTH, anchor, start)
            at = pos - start + (0 if anchor == "left" else len(ref) - len(alt))
            each.append(around(after, at, len(alt)) - around(before, pos - start, len(ref)))
        expected.append(np.mean(each, axis=0))
    np.testing.assert_allclose(table["ism"].to_numpy().reshape(-1, 2), expected, atol=1e-5)
    assert len({len(r) - len(a) for r, a in zip(variants["ref"], variants["alt"], strict=True)}) > 1


def windows_table():
    start = np.array([900, 950, 1300, -20, 3000])
    return pd.DataFrame({"chrom": ["chr1", "chr1", "chr1", "chr1", "chr2"], "start": start, "end": start + LENGTH,
                         "strand": ["+", "-", "-", "+", "+"], "gene_id": ["g0", "g1", "g2", "g3", "g4"]})


def test_windows__every_variant_in_every_window_that_holds_it():
    windows = windows_table()
    rng = np.random.default_rng(2)
    pos = [905, 999, 960, 975, 1050, 1399, 1000, 5, 2000, 950, 1349]
    width = [1, 2, 1, 4, 1, 2, 1, 3, 1, 1, 1]
    ref = [LETTERS[p:p + w] for p, w in zip(pos, width, strict=True)]
    alt = ["".join(rng.choice([b for b in "ACGT" if b != r[0]], n)) for r, n in
           zip(ref, [1, 2, 4, 1, 1, 2, 1, 3, 1, 3, 1], strict=True)]
    variants = pd.DataFrame({"chrom": "chr1", "pos": pos, "ref": ref, "alt": alt})
    model = Place().eval()
    S = torch.from_numpy(rng.random((5, 2, 31), dtype=np.float32))
    C = torch.from_numpy(rng.random((5, 3), dtype=np.float32))
    table = score_variants(oracle(model), GENOME, variants, windows=windows, S=S, covariates=C, tracks=("k562", "gm"))
    check_effects(table)
    law, rows = place(model), []
    for _, p, r, a in variants.itertuples(index=False):
        inside = windows[(windows["chrom"] == "chr1") & (windows["start"] <= p) & (windows["end"] >= p + len(r))]
        for w, window in inside.iterrows():
            both = twin.windows(LETTERS, p, r, a, LENGTH, "center", window["start"])
            if window["strand"] == "-":
                both = map(twin.reverse_complement, both)
            scale = float(S[w, :, :3].sum()) * (1 + float(C[w].sum()) ** 2)
            before, after = (law(s) * scale for s in both)
            rows += [(p, window["gene_id"], t, v) for t, v in zip(("k562", "gm"), after - before, strict=True)]
    assert len(rows) > 2 * len(variants)
    assert list(table[["pos", "gene_id", "track"]].itertuples(index=False, name=None)) == [row[:3] for row in rows]
    np.testing.assert_allclose(table["diff"], [row[3] for row in rows], atol=2e-3)


def test_windows__signals_from_a_function_of_the_windows():
    seen = []

    def signals(table):
        seen.append(table)
        return torch.ones(len(table), 2, 31) * torch.from_numpy((table["start"] % 7 + 1).to_numpy(np.float32))[:, None,
                                                                                                              None]

    model = Place().eval()
    variants = MIXED[:13]
    table = score_variants(oracle(model), GENOME, variants, length=LENGTH, S=signals)
    plain = score_variants(oracle(model), GENOME, variants, length=LENGTH)
    start = variants["pos"] + (variants["ref"].str.len() - 1) // 2 - LENGTH // 2
    np.testing.assert_allclose(table["diff"], plain["diff"] * np.repeat(6 * (start % 7 + 1).to_numpy(), 2), atol=1e-3)
    assert list(seen[0]) == ["chrom", "start", "end", "strand", "gene_id"]


def test_ensemble__mean_and_deviation():
    models = [Place(seed).eval() for seed in (1, 2, 3)]
    scorers = ("diff", "l2", "max_abs_sad")
    each = [score_variants(oracle(m), GENOME, MIXED, length=LENGTH, scorers=scorers) for m in models]
    table = score_variants([oracle(m) for m in models], GENOME, MIXED, length=LENGTH, scorers=scorers)
    for name in scorers:
        values = np.stack([t[name] for t in each])
        np.testing.assert_allclose(table[name], values.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(table[f"{name}_sd"], values.std(axis=0, ddof=1), atol=1e-9)
    assert not any(c.endswith("_sd") for c in each[0])


def test_score__leaves_model_and_table_as_they_were():
    model = Place().train()
    model.drop.eval()
    kept, values = MIXED.copy(), model.weight.detach().clone()
    modes = [m.training for m in model.modules()]
    score_variants(oracle(model), GENOME, MIXED, length=LENGTH)
    with pytest.raises(RuntimeError):
        score_variants(oracle(model), GENOME, MIXED, length=LENGTH + 2)
    assert [m.training for m in model.modules()] == modes
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(model.weight, values)
    pd.testing.assert_frame_equal(MIXED, kept)


def test_iter_scores__is_the_whole_in_chunks():
    some = MIXED[:17]
    chunks = [some[:11], some[11:11], some[11:]]
    parts = list(iter_scores(oracle(), GENOME, chunks, length=LENGTH, scorers=("diff", "ism"), ism_width=2))
    whole = score_variants(oracle(), GENOME, some, length=LENGTH, scorers=("diff", "ism"), ism_width=2)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole, atol=1e-5)
    windows = windows_table()
    inside = MIXED[(MIXED["pos"] > 905) & (MIXED["pos"] < 1040)]
    outside = MIXED[MIXED["pos"] > 1500]
    assert len(list(iter_scores(oracle(), GENOME, [outside, inside], windows=windows))) == 1
    with pytest.raises(SchemaError, match=f"none of {len(outside)} variants lies in any of 5 windows"):
        list(iter_scores(oracle(), GENOME, [outside[:3], outside[3:]], windows=windows))
    empty = score_variants(oracle(), GENOME, MIXED[:0], length=LENGTH)
    check_effects(empty)


def test_element__the_effect_goes_through_the_element_and_its_link():
    effects = pd.DataFrame({
        "chrom": "chr1", "pos": [105, 105, 205, 305, 410, 999], "ref": "A", "alt": "C",
        "name": list("aabcde"), "track": [0, 1, 0, 0, 0, 0], "gene_id": ".", "diff": [2.0, -3.0, 5.0, 7.0, 11.0, 13.0]})
    elements = pd.DataFrame({"chrom": "chr1", "start": [100, 200, 300, 400], "end": [120, 220, 306, 420]})
    links = pd.DataFrame({"chrom": "chr1", "start": [95, 100, 195, 404], "end": [125, 120, 225, 408],
                          "gene_id": ["g", "h", "g", "g"], "cell": "k", "distance": 1, "score": [0.5, 0.25, 0.1, 0.3]})
    kept = effects.copy()
    table = element_effects(effects, elements, links)
    check_effects(table)
    pd.testing.assert_frame_equal(effects, kept)
    assert list(table[["name", "track", "gene_id", "element", "element_id"]].itertuples(index=False, name=None)) == [
        ("a", 0, "g", 1.0, "chr1:100-120"), ("a", 0, "h", 0.5, "chr1:100-120"), ("a", 1, "g", -1.5, "chr1:100-120"),
        ("a", 1, "h", -0.75, "chr1:100-120"), ("b", 0, "g", 0.5, "chr1:200-220"), ("c", 0, ".", 0.0, "chr1:300-306"),
        ("d", 0, "g", pytest.approx(3.3), "chr1:400-420"), ("e", 0, ".", 0.0, ".")]
    of_gene = effects.assign(gene_id=["h", "h", "h", "h", "g", "g"])
    assert element_effects(of_gene, elements, links)["element"].tolist() == pytest.approx([0.5, -0.75, 0, 0, 3.3, 0])
    with pytest.raises(SchemaError, match=r"no score 'dif'; did you mean 'diff'"):
        element_effects(effects, elements, links, score="dif")
    with pytest.raises(SchemaError, match=r"2 cell types \(k, l"):
        element_effects(effects, elements, links.assign(cell=list("kkll")))


@pytest.mark.parametrize(("arguments", "fault"), [
    ({"scorers": ("dif",)}, "unknown scorer 'dif'; did you mean 'diff'"),
    ({"scorers": "diff"}, "several names of"),
    ({"scorers": ("jsd",)}, r"jsd compares profiles: use Oracle\(model, Profile"),
    ({"scorers": ("logfc",)}, r"logfc needs counts; Scalar.* gave \d+ negative of .*; use diff"),
    ({"length": None}, "length=.* or windows="),
    ({"windows": windows_table()}, "length=.* or windows="),
    ({"snap": 90}, "got length=101, snap=90"),
    ({"S": torch.ones(71, 2, 31)}, "take S from a function .*got Tensor"),
    ({"tracks": ("one",)}, "gives 2 tracks; got 1 names"),
])
def test_score__refuses(arguments, fault):
    with pytest.raises(SchemaError, match=fault):
        score_variants(oracle(Place()), GENOME, MIXED, **{"length": LENGTH} | arguments)


def test_score__refuses_variants_and_windows_that_do_not_fit():
    windows = windows_table()
    inside = pd.DataFrame({"chrom": "chr1", "pos": [960], "ref": LETTERS[960], "alt": ["ACGT".strip(LETTERS[960])[0]]})
    for variants, given, fault in (
            (MIXED.assign(pos=MIXED["pos"] + 1), None, "have a REF that is not what the genome has"),
            (pd.concat([MIXED, MIXED[:3]]), None, "3 of 74 variants repeat; first: row 71"),
            (inside, windows.assign(end=windows["end"] + [0, 1, 0, 0, 0]), "of the one length .* got 2: 101, 102 bp"),
            (inside, windows.assign(gene_id="g"), r"1 of 2 pairs .* repeat a gene; first: variant 0, gene_id 'g'"),
            (inside, windows.drop(columns="end"), "missing: end"),
            (inside.assign(pos=2000, ref=LETTERS[2000], alt="N"), windows, "none of 1 variants lies in any of 5")):
        where = {"length": LENGTH} if given is None else {"windows": given}
        with pytest.raises(SchemaError, match=fault):
            score_variants(oracle(), GENOME, variants, **where)
    with pytest.raises(SchemaError, match="one row for each of the windows; got 1 rows"):
        score_variants(oracle(Place()), GENOME, inside, windows=windows, covariates=torch.ones(1, 3))


@pytest.mark.parametrize("name", ["diff", "logfc", "abs_logfc", "ism"])
def test_score__refuses_totals_of_shapes(name):
    assert name in SCORERS
    with pytest.raises(SchemaError, match=f"{name} (compares totals|needs one number)"):
        score_variants(oracle(Place(), Profile(n_tracks=2)), GENOME, MIXED, length=LENGTH, scorers=(name,))
