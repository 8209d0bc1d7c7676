"""The report of an explanation: what each file adds to the page, and that it stands without any of them."""

import base64
import json
import re
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from test_report_build import Page

from ciscribe.errors import InputError, SchemaError
from ciscribe.interpret.patterns import Pattern
from ciscribe.io.motifs import read_meme
from ciscribe.report.explain import (
    attributions_section,
    changes_section,
    explain_sections,
    hits_section,
    patterns_section,
    write_explain_report,
)
from ciscribe.report.explain_files import Maps, read_explanation, read_patterns, write_patterns
from ciscribe.report.explain_rules import robustness_section, syntax_section
from ciscribe.schema import Motif

B, L, T = 7, 127, 2
TRACKS = ["leaf", "root"]
EVIL = "<script>alert('1')</script>"
NUMBERS = {"low": -0.1, "high": 0.3, "q_value": 0.01}


def make_maps(**facts):
    """Sequence 5 matters most, and to the root; its letters are at 61 to 67."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.01, (B, 4, L, T)).astype(np.float32)
    codes = rng.integers(0, 4, (B, L)).astype(np.uint8)
    values[5, codes[5, 61:67], np.arange(61, 67), 1] = 2
    return Maps(values, codes, [f"region {i}" for i in range(B)], TRACKS, "deeplift", "log2(counts)", **facts)


def make_pattern(name="pos_0", width=11, n=13, sign=1):
    ppm = np.random.default_rng(width).dirichlet(np.full(4, 0.2), width).T
    seqlets = pd.DataFrame({"region": np.arange(n) % B, "start": 3, "end": 3 + width, "strand": "+",
                            "contribution": 0.25 * sign})
    return Pattern(Motif(name, ppm, "ours"), sign * ppm, sign * (ppm - 0.25), seqlets)


def make_tables():
    gap = np.arange(41)
    curves = [pd.DataFrame({"motif_a": a, "motif_b": b, "order": "ab", "orientation": o, "gap": gap, "track": t,
                            "mean": size * (t + 1) * np.exp(-((gap - peak) ** 2) / 9), **NUMBERS})
              for a, b, o, size, peak in (("pos_0", "pos_1", "++", 1.0, 17), ("pos_0", "pos_1", "+-", 0.3, 23),
                                          ("pos_0", "pos_0", "++", -0.1, 5)) for t in range(T)]
    names = ["pos_0", "pos_1", "neg_0"]
    position = [pd.DataFrame({"motif": m, "strand": "+", "position": np.arange(0, 100, 7), "track": 0, "mean": size,
                              **NUMBERS}) for m, size in (("pos_0", 0.1), ("pos_1", 0.7))]
    methods = ["ism", "deeplift", "random"]
    fractions = [0, 0.01, 0.1, 1]
    return {
        "tiles": pd.DataFrame({"region": np.repeat([2, 5], 25), "start": np.tile(np.arange(25) * 5, 2),
                               "end": np.tile(np.arange(25) * 5 + 10, 2), "track": 1,
                               "effect": np.r_[np.zeros(25), np.ones(25)]}),
        "matches": pd.DataFrame({"pattern": ["pos_0", "pos_0"], "match": ["ABF1", "REB1"], "q_value": [0.2, 3e-9]}),
        "hits": pd.DataFrame({"region": [0, 0, 3, 4], "strand": ["+", "-", "+", "+"],
                              "motif": ["pos_0", "pos_0", "pos_0", "pos_1"], "importance": [1.0, 2.0, 3.0, -4.0]}),
        "spacing": pd.concat(curves),
        "observed": pd.DataFrame({"motif_a": "pos_0", "motif_b": "pos_1", "gap": gap, "count": 3, "expected": 2.0,
                                  "low": 0.0, "high": 5.0}),
        "interactions": pd.DataFrame([{"motif_a": a, "motif_b": b, "track": t, "mean": 0.5 + t, **NUMBERS}
                                      for a in names for b in names for t in range(T)]),
        "position": pd.concat(position),
        "surrogate": pd.DataFrame([
            {"kind": "motif", "motif_a": "pos_0", "motif_b": None, "strand": None, "order": None, "low": np.nan,
             "high": np.nan, "coefficient": 0.5, "effect": -0.123, "n": 1009},
            {"kind": "pair", "motif_a": "pos_0", "motif_b": "pos_1", "strand": "+-", "order": "ab", "low": 10.0,
             "high": 20.0, "coefficient": 1.5, "effect": 0.877, "n": 211}]),
        "faithfulness": pd.DataFrame([{"method": m, "curve": c, "track": 0, "fraction": f, "score": f}
                                      for m in methods for c in ("insertion", "deletion") for f in fractions]),
        "methods": pd.DataFrame({"method": methods, "track": 0, "insertion": [0.9, 0.8, 0.5], "gap": [0.4, 0.3, 0.0],
                                 "seconds": np.nan}),
        "consistency": pd.DataFrame([{"a": a, "b": b, "track": 0, "metric": "pearson", "value": 0.613}
                                     for a, b in combinations(methods, 2)]),
        "randomization": pd.DataFrame([{"n_layers": n, "track": 0, "metric": "spearman_abs", "value": 1 / n,
                                        "chance": 0.0} for n in (1, 3, 5)]),
        "labels": pd.DataFrame([{"model": "1", "track": 0, "metric": "pearson", "value": 0.021}]),
    }


def make_folder(folder, only=None):
    """All files of an explanation, or the named ones."""
    folder.mkdir(exist_ok=True)
    maps = make_maps()

    def wanted(name):
        return only is None or name in only

    names = {"codes": maps.codes, "regions": np.array(maps.regions), "tracks": np.array(TRACKS),
             "units": maps.units}
    if wanted("attributions"):
        np.savez(folder / "attributions.npz", hypothetical=maps.values.astype(np.float16), method="deeplift",
                 predicted=np.full((B, T), 3.25), observed=np.full((B, T), np.nan), **names)
    if wanted("ism"):
        np.savez(folder / "ism.npz", effects=maps.values, **names)
    if wanted("patterns"):
        write_patterns(folder, [make_pattern(), make_pattern("pos_1", 17), make_pattern("neg_0", 5, 3, -1)])
    for name, table in make_tables().items():
        if wanted(name):
            table.to_parquet(folder / f"{name}.parquet")
    if wanted("surrogate"):
        (folder / "surrogate.json").write_text(json.dumps({"r2": 0.823, "r2_additive": 0.611}))
    return folder


def cells_of(html):
    return [re.sub("<[^>]+>", "", c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", html)]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = make_folder(tmp_path_factory.mktemp("explain"))
    write_explain_report(folder, title="Why?", subtitle="127 bp")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_report__is_well_formed_and_has_all_sections(html):
    page = Page(html)
    ids = [v for k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids))
    assert {"contributions", "changes", "patterns", "hits", "syntax", "robustness"} <= set(ids)
    assert {v[1:] for k, v in page.attributes if k == "href" and v.startswith("#")} <= set(ids)
    assert not {"script", "img", "iframe"} & set(page.tags)
    assert [v for k, v in page.attributes if k == "href" and not v.startswith(("#", "data:"))] == []


def test_report__colors_serve_dark_pages(html):
    svg = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    hard = {c for c in re.findall(r"#[0-9a-f]{6}", svg) if c not in ("#000000", "#ffffff")}
    assert not hard


def test_report__same_files_same_bytes(tmp_path):
    pages = []
    for name in "ab":
        folder = make_folder(tmp_path / name, ["attributions", "patterns", "spacing"])
        write_explain_report(folder, title="x")
        pages.append((folder / "report.html").read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(("name", "anchor"), [
    ("attributions", "contributions"), ("ism", "changes"), ("tiles", "changes"), ("patterns", "patterns"),
    ("hits", "hits"), ("spacing", "syntax"), ("interactions", "syntax"), ("position", "syntax"),
    ("surrogate", "syntax"), ("faithfulness", "robustness"), ("methods", "robustness"),
    ("consistency", "robustness"), ("randomization", "robustness"), ("labels", "robustness")])
def test_sections__one_file_gives_one_section(tmp_path, name, anchor):
    sections = explain_sections(read_explanation(make_folder(tmp_path / "one", [name])))
    assert [s.anchor for s in sections if s is not None] == [anchor]


def test_sections__an_empty_folder_gives_none(tmp_path):
    assert set(explain_sections(read_explanation(tmp_path))) == {None}
    write_explain_report(tmp_path, title="nothing yet")
    assert "nothing yet" in (tmp_path / "report.html").read_text()


def test_attributions__the_most_instructive_sequence_comes_first_with_its_values():
    maps = make_maps(predicted=np.full((B, T), 3.254), observed=np.full((B, T), -1.0))
    html = attributions_section(maps, most=3).html
    headings = re.findall(r"<h3[^>]*>(.*?)</h3>", html)
    assert len(headings) == 3
    assert headings[0] == 'region 5 <span class="aside">root · predicted 3.25 · measured −1.00</span>'


def test_attributions__unknown_values_are_not_shown():
    headings = re.findall(r"<h3[^>]*>(.*?)</h3>", attributions_section(make_maps()).html)
    assert "predicted" not in headings[0]


def test_changes__tiles_take_the_sequence_with_the_largest_effect_first():
    html = changes_section(None, make_tables()["tiles"], make_maps(), most=1).html
    assert "region 5" in html
    assert "region 2" not in html


def test_patterns__table_names_the_best_match_and_the_link_holds_all_motifs(tmp_path):
    patterns = [make_pattern(), make_pattern("pos_1", 17)]
    html = patterns_section(patterns, make_tables()["matches"]).html
    cells = cells_of(html)
    assert cells[7:14] == ["pos_0", "REB1", "3 × 10⁻⁹", "11", "13", "7", "+0.250"]
    assert cells[14:17] == ["pos_1", "–", "–"]
    link = re.search(r'href="data:text/plain;charset=utf-8;base64,([^"]+)" download="patterns.meme"', html)
    (tmp_path / "a.meme").write_bytes(base64.b64decode(link[1]))
    read = read_meme(tmp_path / "a.meme")
    assert [m.name for m in read] == ["pos_0", "pos_1"]
    np.testing.assert_allclose(read[1].ppm, patterns[1].motif.ppm, atol=1e-6)


def test_patterns__none_found_is_said():
    assert "No pattern was found" in patterns_section([]).html


def test_patterns__read_back_as_written(tmp_path):
    patterns = [make_pattern(), make_pattern("neg_0", 5, 3, -1)]
    write_patterns(tmp_path, patterns)
    for read, written in zip(read_patterns(tmp_path), patterns, strict=True):
        assert (read.name, read.motif.source, read.sign) == (written.name, "ours", written.sign)
        np.testing.assert_array_equal(read.cwm, written.cwm)
        np.testing.assert_array_equal(read.hypothetical, written.hypothetical)
        pd.testing.assert_frame_equal(read.seqlets, written.seqlets)


def test_patterns__no_pattern_is_written_and_read(tmp_path):
    write_patterns(tmp_path, [])
    assert read_patterns(tmp_path) == []


def test_hits__counts_and_shares():
    cells = cells_of(hits_section(make_tables()["hits"], 10).html)
    assert cells[7:14] == ["pos_0", "3", "2", "20%", "1.50", "67%", "+2.000"]
    assert cells[14:] == ["pos_1", "1", "1", "10%", "1.00", "100%", "−4.000"]


def test_hits__the_rarest_are_counted_and_no_hit_is_said():
    hits = make_tables()["hits"]
    assert "1 rarer motifs" in hits_section(hits, most=1).html
    assert "No instance" in hits_section(hits.iloc[:0]).html
    with pytest.raises(SchemaError, match="missing: motif"):
        hits_section(hits.drop(columns="motif"))


def test_syntax__best_gaps_of_the_strongest_track():
    html = syntax_section(make_tables()["spacing"], tracks=TRACKS).html
    cells = cells_of(html)
    assert cells[5:10] == ["pos_0, pos_1", "pos_0(+) pos_1(+)", "17", "+2.000", "−0.100 to 0.300"]
    assert cells[10:14] == ["pos_0, pos_1", "pos_0(+) pos_1(−)", "23", "+0.600"]
    assert cells[15:19] == ["pos_0, pos_0", "pos_0(+) pos_0(+)", "5", "−0.200"]
    assert "Track: root" in html
    assert "Bars count" not in html
    assert "Bars count" in syntax_section(make_tables()["spacing"], make_tables()["observed"]).html


def test_syntax__position_curves_by_strength():
    html = syntax_section(position=make_tables()["position"]).html
    labels = re.findall(r'aria-label="Effect of (\w+)', html)
    assert labels == ["pos_1", "pos_0"]


def test_syntax__the_surrogate_in_words_and_terms():
    html = syntax_section(surrogate={"r2": 0.823, "r2_additive": 0.611}, coefficients=make_tables()["surrogate"]).html
    assert re.search(r"<b>0.611</b>.*<b>0.823</b>", html)
    cells = cells_of(html)
    assert cells[6:12] == ["pos_0 with pos_1", "pair", "+− ab 10 to 20 bp", "+1.500", "+0.877", "211"]
    assert cells[12:] == ["pos_0", "motif", "", "+0.500", "−0.123", "1,009"]


def test_robustness__methods_without_what_was_not_measured():
    html = robustness_section(methods=make_tables()["methods"]).html
    assert cells_of(html)[:7] == ["Method", "Insertion area", "Gain over random order", "ism", "0.900", "0.400",
                                  "deeplift"]


def test_sections__names_are_escaped():
    maps = make_maps()
    maps = Maps(maps.values, maps.codes, [EVIL] * B, [EVIL, "b"], EVIL, EVIL)
    tables = {name: table.replace({"pos_0": EVIL, "REB1": EVIL, "ism": EVIL}) for name, table in make_tables().items()}
    sections = [attributions_section(maps), changes_section(maps, tables["tiles"], maps),
                patterns_section([make_pattern(EVIL)], tables["matches"]), hits_section(tables["hits"]),
                syntax_section(tables["spacing"], tables["observed"], tables["interactions"], tables["position"], None,
                               tables["surrogate"], tracks=[EVIL, "b"], units=EVIL),
                robustness_section(tables["faithfulness"], tables["methods"], tables["consistency"])]
    for section in sections:
        assert "<script" not in section.html
        assert "&lt;script&gt;" in section.html


def test_read__an_array_is_missing_or_does_not_fit(tmp_path):
    make_folder(tmp_path, ["attributions"])
    with np.load(tmp_path / "attributions.npz") as saved:
        arrays = dict(saved)
    np.savez(tmp_path / "attributions.npz", **(arrays | {"tracks": np.array(["only"])}))
    with pytest.raises(InputError, match=r"attributions.npz: 7 regions, 1 tracks .*hypothetical \(7, 4, 127, 1\)"):
        read_explanation(tmp_path)
    np.savez(tmp_path / "attributions.npz", **{k: v for k, v in arrays.items() if k != "codes"})
    with pytest.raises(InputError, match="missing: codes"):
        read_explanation(tmp_path)
    np.savez(tmp_path / "attributions.npz", **(arrays | {"predicted": np.zeros((T, B))}))
    with pytest.raises(InputError, match="predicted must be"):
        read_explanation(tmp_path)
