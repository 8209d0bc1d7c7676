import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from planted_motifs import REPRESSORS, planted_importance

from ciscribe.errors import ConfigError, DependencyError, SchemaError, UnknownNameError
from ciscribe.interpret.modisco import (
    discover_motifs,
    merge_patterns,
    patterns_table,
)
from ciscribe.interpret.patterns import Pattern, pattern_similarity
from ciscribe.results import attribution_array
from ciscribe.schema import Motif
from ciscribe.sequence import one_hot, one_hot_tensor


@pytest.fixture(scope="module")
def planted():
    return planted_importance()


@pytest.fixture(scope="module")
def clusters(planted):
    return discover_motifs(planted[0], planted[1], engine="clusters", width=13)


@pytest.fixture(scope="module")
def modisco(planted):
    pytest.importorskip("modiscolite")
    return discover_motifs(planted[0], planted[1], engine="modisco", width=13)


@pytest.fixture(params=["clusters", "modisco"])
def found(request):
    return request.getfixturevalue(request.param)


def matched(patterns, ppms):
    """Motif that each pattern resembles most, and how much."""
    fits = [{k: pattern_similarity(p.motif.ppm - 0.25, ppm - 0.25) for k, ppm in ppms.items()} for p in patterns]
    return [max(f, key=lambda k: f[k].similarity) for f in fits], [max(v.similarity for v in f.values()) for f in fits]


class TestDiscovery:
    def test_every_planted_motif_is_found_once(self, planted, found):
        names, similarity = matched(found, planted[3])
        assert Counter(names) == Counter(planted[3].keys())
        assert min(similarity) > 0.95

    def test_repressors_are_negative(self, planted, found):
        for motif, pattern in zip(matched(found, planted[3])[0], found, strict=True):
            assert (pattern.sign == -1) == (motif in REPRESSORS) == pattern.name.startswith("neg_")
            assert (np.sign(pattern.seqlets["contribution"]) == pattern.sign).all()
            expected = (planted[3][motif] - 0.25) * planted[3][motif] * pattern.sign
            assert pattern_similarity(pattern.cwm, expected).similarity > 0.98

    def test_seqlets_are_the_planted_sites_on_their_strand(self, planted, found):
        truth = {(region, start): (end, strand, name) for region, start, end, strand, name in planted[2]}
        for motif, pattern in zip(matched(found, planted[3])[0], found, strict=True):
            fit = pattern_similarity(planted[3][motif] - 0.25, pattern.motif.ppm - 0.25)
            strands = {"+": "+-", "-": "-+"}[fit.strand]
            exact = 0
            for s in pattern.seqlets.itertuples():
                near = [v for (region, start), v in truth.items() if region == s.region and abs(start - s.start) <= 2]
                exact += any(name == motif and strand == strands["+-".index(s.strand)] for _, strand, name in near)
            assert exact / len(pattern.seqlets) > 0.9 or motif == "cre"  # a palindrome has no strand
            assert exact / len(pattern.seqlets) > 0.4
            assert len(pattern.seqlets) > 0.5 * sum(name == motif for *_, name in planted[2])

    def test_order_and_names(self, found):
        for name in ("pos", "neg"):
            own = [p for p in found if p.name.startswith(name)]
            assert [p.name for p in own] == [f"{name}_{i}" for i in range(len(own))]
            assert [len(p.seqlets) for p in own] == sorted((len(p.seqlets) for p in own), reverse=True)

    def test_matrices_are_those_of_the_seqlets(self, planted, found):
        codes, attributions, *_ = planted
        X, values = one_hot(codes).astype(float), attributions.values[..., 0]
        for p in found:
            sums = np.zeros((3, *p.cwm.shape))
            for s in p.seqlets.itertuples():
                parts = np.stack([X[s.region, :, s.start:s.end], values[s.region, :, s.start:s.end],
                                  (X * values)[s.region, :, s.start:s.end]])
                sums += parts if s.strand == "+" else parts[:, ::-1, ::-1]
            for ours, slow in zip((p.motif.ppm, p.hypothetical, p.cwm), sums / len(p.seqlets), strict=True):
                np.testing.assert_allclose(ours, slow, atol=1e-5)


class TestInputs:
    def test_layouts_give_the_same_and_nothing_changes(self, planted, clusters):
        codes, attributions, *_ = planted
        kept = codes.copy(), attributions.copy(deep=True)
        for X in (torch.tensor(codes), one_hot(codes), one_hot_tensor(torch.tensor(codes))):
            again = discover_motifs(X, attributions, engine="clusters", width=13)
            assert patterns_table(again).equals(patterns_table(clusters))
        np.testing.assert_array_equal(codes, kept[0])
        assert attributions.identical(kept[1])

    def test_modisco_gives_the_same_twice_and_leaves_threads_alone(self, planted, modisco):
        import numba

        before = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            again = discover_motifs(planted[0], planted[1], engine="modisco", width=13)
            assert numba.get_num_threads() == 1
        finally:
            numba.set_num_threads(before)
        assert patterns_table(again).equals(patterns_table(modisco))

    def test_track_by_name_and_place(self, planted, clusters):
        codes, attributions, *_ = planted
        values = np.concatenate([np.zeros_like(attributions.values), attributions.values], axis=3)
        two = attribution_array(values, "planted", units="output", tracks=["leaf", "root"])
        for track in ("root", 1):
            again = discover_motifs(codes, two, track=track, engine="clusters", width=13)
            assert patterns_table(again).equals(patterns_table(clusters))
        with pytest.raises(SchemaError, match="contributions are 0"):
            discover_motifs(codes, two, engine="clusters")
        with pytest.raises(UnknownNameError, match="did you mean 'root'"):
            discover_motifs(codes, two, track="roots", engine="clusters")
        with pytest.raises(UnknownNameError, match="track 2"):
            discover_motifs(codes, two, track=2, engine="clusters")

    def test_max_seqlets_is_a_draw_with_a_seed(self, planted):
        codes, attributions, *_ = planted
        runs = [patterns_table(discover_motifs(codes, attributions, engine="clusters", max_seqlets=60, min_seqlets=10,
                                               seed=seed)) for seed in (1, 1, 2)]
        assert runs[0].equals(runs[1])
        assert not runs[0].equals(runs[2])
        assert runs[0].loc[runs[0]["sign"] == 1, "seqlets"].sum() <= 60

    def test_edges_are_not_lost(self):
        codes, attributions, *_ = planted_importance(length=40)  # both slots are taken, up to the very ends
        found = discover_motifs(codes, attributions, engine="clusters", width=11)
        starts = np.concatenate([p.seqlets["start"] for p in found])
        ends = np.concatenate([p.seqlets["end"] for p in found])
        assert starts.min() == 0
        assert ends.max() == 40

    @pytest.mark.parametrize("engine", ["clusters", "modisco"])
    def test_one_sided_importance_works(self, planted, engine):
        if engine == "modisco":
            pytest.importorskip("modiscolite")
        codes, attributions, *_ = planted
        found = discover_motifs(codes, abs(attributions), engine=engine)
        assert all(p.sign == 1 for p in found)

    def test_faults(self, planted):
        codes, attributions, *_ = planted
        with pytest.raises(SchemaError, match="do not belong to X"):
            discover_motifs(codes[1:], attributions)
        with pytest.raises(SchemaError, match="do not belong to X"):
            discover_motifs(codes[:, 1:], attributions)
        with pytest.raises(SchemaError, match="contributions are 0"):
            discover_motifs(codes, attributions * 0)
        with pytest.raises(SchemaError, match="does not fit into sequences of 19 bp"):
            discover_motifs(codes[:, :19], attributions.isel(position=slice(19)))
        with pytest.raises(SchemaError, match=r"a pattern needs 900 seqlets; found \d+ that raise"):
            discover_motifs(codes, attributions, min_seqlets=900)
        with pytest.raises(UnknownNameError, match="did you mean 'modisco'"):
            discover_motifs(codes, attributions, engine="modsico")
        with pytest.raises(ConfigError, match="min_seqlets"):
            discover_motifs(codes, attributions, max_seqlets=7)

    def test_missing_extra_is_named(self, planted, monkeypatch):
        monkeypatch.setitem(sys.modules, "modiscolite", None)
        with pytest.raises(DependencyError, match=r"pip install 'ciscribe\[motifs\]'"):
            discover_motifs(planted[0], planted[1])

    def test_extra_is_not_loaded_before_it_is_used(self):
        code = "import sys, ciscribe.interpret.modisco; sys.exit('modiscolite' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestMerging:
    def test_copies_become_one_and_others_stay(self, planted, clusters):
        codes, attributions, *_ = planted
        halves = []
        for pattern in clusters:
            for i in range(2):  # the second half read on the other strand, two columns further out
                seqlets = pattern.seqlets.iloc[i::2].reset_index(drop=True)
                if i:
                    seqlets["strand"] = seqlets["strand"].map({"+": "-", "-": "+"})
                matrices = [m if i == 0 else m[::-1, ::-1] for m in (pattern.motif.ppm, pattern.cwm,
                                                                    pattern.hypothetical)]
                halves.append(Pattern(Motif(f"{pattern.name}.{i}", matrices[0]), *matrices[1:], seqlets))
        merged = merge_patterns(halves, codes, attributions)
        assert [p.name for p in merged] == [f"{p.name}.0" for p in clusters]
        for a, b in zip(merged, clusters, strict=True):
            assert len(a.seqlets) >= len(b.seqlets) - 1
            np.testing.assert_allclose(a.cwm, b.cwm, atol=0.02)
        assert len(merge_patterns(halves, codes, attributions, threshold=1.1)) == len(halves)

    def test_similarity_finds_offset_and_strand(self):
        rng = np.random.default_rng(0)
        a = rng.normal(size=(4, 23))
        for first, last in ((0, 23), (5, 16), (11, 23)):
            part = a[:, first:last]
            share = np.linalg.norm(part) / np.linalg.norm(a)
            for b, strand in ((part, "+"), (part[::-1, ::-1], "-")):
                fit = pattern_similarity(a, 3 * b)
                assert (fit.offset, fit.strand) == (first, strand)
                assert fit.similarity == pytest.approx(share)
            assert pattern_similarity(part, a).offset == -first
        assert pattern_similarity(a, a[::-1, ::-1], both_strands=False).similarity < 0.9
        assert pattern_similarity(a, 0 * a).similarity == 0

    def test_similarity_against_every_offset_by_hand(self):
        rng = np.random.default_rng(1)
        for wide, narrow in ((11, 7), (7, 11), (5, 5)):
            a, b = rng.normal(size=(4, wide)), rng.normal(size=(4, narrow))
            best = -2.0
            for other in (b, b[::-1, ::-1]):
                for offset in range(-narrow, wide + 1):
                    canvas = np.zeros((4, wide + 2 * narrow))
                    canvas[:, narrow + offset:2 * narrow + offset] = other
                    best = max(best, float((canvas[:, narrow:narrow + wide] * a).sum()))
            fit = pattern_similarity(a, b)
            assert fit.similarity == pytest.approx(best / np.linalg.norm(a) / np.linalg.norm(b))

    def test_similarity_refuses_other_shapes(self):
        with pytest.raises((SchemaError, TypeError)):
            pattern_similarity(np.ones((7, 4)), np.ones((4, 7)))


class TestTables:
    def test_table(self, planted, clusters):
        table = patterns_table(clusters)
        assert table["motif"].tolist() == [p.name for p in clusters]
        assert table["seqlets"].tolist() == [len(p.seqlets) for p in clusters]
        assert table.loc[table["sign"] == -1, "consensus"].isin(["TTCAGCACC", "GGTGCTGAA"]).all()
        assert (table["information"] > 8).all()
        assert patterns_table([]).columns.equals(table.columns)

