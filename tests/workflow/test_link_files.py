"""From files of elements, genes and signals to links: tables that other programs read, a page, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from ciscribe.data.world import world
from ciscribe.errors import CiscribeError, ConfigError, InputError, SchemaError
from ciscribe.io.bed import write_bed
from ciscribe.io.genes import write_gtf
from ciscribe.io.links import read_links
from ciscribe.io.motifs import write_meme
from ciscribe.links.combine import fit_combiner
from ciscribe.schema import Motif, check_links
from ciscribe.workflow.links import compare_links, score_config

QUIET = {"tell": lambda line: None, "progress": False}
CELL = "liver"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A world as files, its elements as a BED, tested pairs from its truth, and a configuration."""
    folder = tmp_path_factory.mktemp("links")
    w = world(n_genes=40, n_chroms=2, seed=3)
    files = w.write(folder / "world")
    elements = w.elements.loc[w.elements["kind"] != "decoy_closed"]
    elements = elements.drop_duplicates(["chrom", "start", "end"])
    write_bed(folder / "elements.bed", elements[["chrom", "start", "end", "name"]])
    truth = w.links.loc[(w.links["cell"] == CELL) & (w.links["kind"] != "promoter")]
    tested = truth.rename(columns={"effect": "drop"}).drop(columns="name")
    tested.to_csv(folder / "tested.tsv", sep="\t", index=False)
    write_gtf(folder / "other.gtf", w.genes.assign(chrom="chr9"))
    write_meme(folder / "known.meme", [Motif(f.name, f.ppm, "world") for f in w.motifs])
    raw = {"name": "small", "root": str(folder), "cell": CELL, "genes": {"path": "world/genes.gtf"},
           "elements": {"path": "elements.bed"}, "accessibility": {"bigwig": f"world/atac_{CELL}.bw"},
           "h3k27ac": {"bigwig": f"world/h3k27ac_{CELL}.bw"}, "max_distance": 20_000}
    return folder, w, files, raw


def run(folder, raw, out):
    path = folder / f"{out.name}.yaml"
    path.write_text(yaml.safe_dump(raw))
    return score_config(path, out, **QUIET)


def test_links_follow_the_formula_and_every_file_is_there(made, tmp_path):
    folder, w, _, raw = made
    out = run(folder, raw | {"threshold": 0.05}, tmp_path / "out")
    assert {p.name for p in out.iterdir()} == {"config.yaml", "links.parquet", "links.parquet.json", "called.tsv.gz",
                                               "called.bedpe", "report.html", "provenance.json"}
    links = read_links(out / "links.parquet")
    check_links(links)
    assert set(links["cell"]) == {CELL}
    row = links.iloc[int(links["abc"].to_numpy().argmax())]
    gene = w.genes.set_index("gene_id").loc[row["gene_id"]]
    assert row["distance"] == abs((row["start"] + row["end"]) / 2 - gene["tss"])
    # the activity is the geometric mean of what the tracks hold over the element
    at = {track.name: track for track in w.tracks}
    total = []
    for name in (f"atac_{CELL}", f"h3k27ac_{CELL}"):
        start, end, value = at[name].runs[row["chrom"]]
        inside = np.minimum(end, row["end"]) - np.maximum(start, row["start"])
        total.append(float((value * np.maximum(inside, 0)).sum()))
    assert row["activity"] == pytest.approx(np.sqrt(total[0] * total[1]), rel=1e-4)
    called = read_links(out / "called.tsv.gz")
    assert len(called)
    assert (called["abc_reported"] >= 0.05).all()
    state = json.loads((out / "provenance.json").read_text())
    assert state["gene_universe"]["n"] == 40
    page = (out / "report.html").read_text()
    assert 'id="links"' in page
    assert 'id="linked-loci"' in page
    assert 'id="crispri"' not in page


def test_links_are_held_against_pairs_and_joined_with_motifs_and_variants(made, tmp_path):
    folder, w, _, raw = made
    effects = w.variants.assign(track=CELL, diff=-w.variants[f"effect_{CELL}"])
    effects.to_parquet(folder / "effects.parquet", index=False)
    more = {"crispri": "tested.tsv", "motifs": "known.meme", "genome": "world/genome.fa", "effects": "effects.parquet",
            "threshold": 0.01}
    out = run(folder, raw | more, tmp_path / "out")
    table = pd.read_parquet(out / "benchmark.parquet")
    whole = table.loc[table["stratum"] == "all"].set_index("predictor")
    truth = w.links.loc[(w.links["cell"] == CELL) & (w.links["kind"] != "promoter")]
    assert whole.loc["abc", "n_pairs"] == len(truth)
    assert whole.loc["abc", "n_positive"] == truth["label"].sum()
    assert whole.loc["abc", "average_precision"] > 2 * truth["label"].mean()
    called = pd.read_csv(out / "called.tsv.gz", sep="\t")
    assert called["n_hits"].sum() > 0
    best = called.loc[called["n_variants"] > 0].iloc[0]
    assert best["top_variant"].startswith(f"{best['chr'] if 'chr' in best else best['chrom']}:")
    page = (out / "report.html").read_text()
    assert 'id="crispri"' in page
    assert "CRISPRi: regulated" in page
    assert "strongest variant" in page


def test_candidates_are_made_of_peaks(made, tmp_path):
    folder, w, _, raw = made
    out = run(folder, raw | {"elements": {"path": "elements.bed", "peaks": True, "n_strongest": 30}}, tmp_path / "out")
    links = read_links(out / "links.parquet")
    own = links.loc[links["is_self_promoter"].to_numpy(bool)]
    assert set(own["gene_id"]) == set(w.genes["gene_id"])  # every promoter joins
    counts = {"counts": "elements.bed"}
    with pytest.raises(ConfigError, match="peaks"):
        run(folder, raw | {"elements": {"path": "elements.bed", "peaks": True}, "accessibility": counts},
            tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_counts_must_be_those_of_the_elements(made, tmp_path):
    folder, w, _, raw = made
    elements = w.elements.drop_duplicates(["chrom", "start", "end"])
    some = elements[["chrom", "start", "end"]].assign(name=[str(i % 7 + 1) for i in range(len(elements))])
    write_bed(folder / "counts.bed", some)
    given = raw | {"accessibility": {"counts": "counts.bed", "total": 2e6}, "h3k27ac": None, "assay": "atac"}
    links = read_links(run(folder, given, tmp_path / "out") / "links.parquet")
    count = some.set_index(["chrom", "start", "end"])["name"].astype(float)
    wanted = count.reindex(pd.MultiIndex.from_frame(links[["chrom", "start", "end"]])).to_numpy() / 2
    assert np.allclose(links["activity"], wanted)
    write_bed(folder / "counts.bed", some.iloc[5:])
    with pytest.raises(InputError, match="elements have no count"):
        run(folder, given, tmp_path / "again")


@pytest.mark.parametrize(("change", "error", "says"), [
    ({"motifs": "known.meme"}, ConfigError, "genome"),
    ({"accessibility": {"bigwig": "a", "counts": "b"}}, ConfigError, "exactly one"),
    ({"elements": {"path": "none.bed"}}, CiscribeError, "none.bed"),
    ({"genes": {"path": "other.gtf"}}, SchemaError, "no element lies within"),
    ({"expression": {"path": "tpm.tsv", "transform": "log2p1"}}, ConfigError,
     "expression: transform 'log2p1' would do nothing: links read only which genes are expressed"),
    ({"report": {"genes": ["gene0003", "gene0004x"]}}, ConfigError,
     "1 of 2 are not among.*'gene0004x'; did you mean 'gene0004'"),
    ({"combiner": "none.json"}, CiscribeError, "none.json"),
])
def test_what_cannot_be_used_is_said(made, tmp_path, change, error, says):
    folder, _, _, raw = made
    with pytest.raises(error, match=says):
        run(folder, raw | change, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_report_shows_the_genes_that_are_asked_for_by_name_or_id(made, tmp_path):
    folder, w, _, raw = made
    plain = run(folder, raw | {"threshold": 0.3}, tmp_path / "plain")
    called = read_links(plain / "called.tsv.gz")
    without = w.genes.loc[~w.genes["gene_id"].isin(called.loc[~called["is_self_promoter"], "gene_id"])]
    asked = [str(without["gene_name"].iloc[0]), str(w.genes["gene_id"].iloc[5])]
    out = run(folder, raw | {"threshold": 0.3, "report": {"genes": asked}}, tmp_path / "out")
    page = (out / "report.html").read_text()
    for name in (asked[0], w.genes["gene_name"].iloc[5]):
        assert f"Links of {name}" in page  # also where none is called
    assert page.count("Links of ") == 2


def test_the_seed_is_that_of_the_resampling(made, tmp_path):
    folder, _, _, raw = made
    tables = []
    for seed in (0, 7):
        out = run(folder, raw | {"crispri": "tested.tsv", "seed": seed}, tmp_path / f"seed{seed}")
        assert json.loads((out / "provenance.json").read_text())["seed"] == seed
        tables.append(pd.read_parquet(out / "benchmark.parquet"))
    assert (tables[0]["average_precision"] == tables[1]["average_precision"]).all()
    assert (tables[0]["average_precision_low"] != tables[1]["average_precision_low"]).any()


@pytest.fixture(scope="module")
def combined(made):
    """A combiner of two features, trained on pairs of chr1 in two groups."""
    folder, w, _, raw = made
    rng = np.random.default_rng(3)
    label = np.arange(60) % 3 == 0
    pairs = pd.DataFrame({"group": np.where(np.arange(60) % 2, "chr1", "chr7"), "label": label,
                          "distance": np.where(label, 500, 5_000) + rng.integers(0, 3_000, 60),
                          "activity": rng.random(60) + label})
    combiner = fit_combiner(pairs, ["distance", "activity"], groups="group")
    (folder / "combiner.json").write_text(combiner.to_json())
    more = replace(combiner, features=("distance", "ctcf", "activity", "h3k4me1"))
    (folder / "more.json").write_text(more.to_json())
    return folder, w, raw | {"combiner": "combiner.json"}


def test_a_combiner_says_what_it_lacks(combined, tmp_path):
    folder, _, raw = combined
    with pytest.raises(ConfigError, match=r"2 of 4 features.*ctcf, h3k4me1; there are distance.*Fit a combiner"):
        run(folder, raw | {"combiner": "more.json"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_is_told_that_a_combiner_has_seen_the_chromosomes_that_judge_it(combined, tmp_path):
    folder, _, raw = combined
    told = []
    path = folder / "judged.yaml"
    path.write_text(yaml.safe_dump(raw | {"crispri": "tested.tsv"}))
    out = score_config(path, tmp_path / "out", tell=told.append, progress=False)
    pairs = pd.read_csv(folder / "tested.tsv", sep="\t")
    caution = f"{(pairs['chrom'] == 'chr1').sum()} of {len(pairs)} pairs are on chromosomes that the combiner of small"
    assert [line for line in told if line.startswith(f"caution: {caution} was trained on (first: chr1)")]
    assert json.loads((out / "provenance.json").read_text())["cautions"][0].startswith(caution)
    assert caution in (out / "report.html").read_text()
    told.clear()
    given = folder / "tested.tsv", folder / "world" / "genes.gtf", tmp_path / "bench"
    compare_links({"mine": out / "links.parquet"}, *given, cell=CELL, match_on="gene_id", tell=told.append)
    assert [line for line in told if "combiner of mine was trained on (first: chr1)" in line]


def test_it_is_told_how_many_pairs_a_table_does_not_cover(made, tmp_path):
    folder, _, _, raw = made
    out = run(folder, raw, tmp_path / "out")
    links = read_links(out / "links.parquet")
    links.loc[links["chrom"] == "chr2"].to_parquet(tmp_path / "half.parquet", index=False)
    told = []
    given = folder / "tested.tsv", folder / "world" / "genes.gtf"
    files = {"whole": out / "links.parquet", "half": tmp_path / "half.parquet"}
    _, where = compare_links(files, *given, tmp_path / "bench", cell=CELL, match_on="gene_id", tell=told.append)
    pairs = pd.read_csv(folder / "tested.tsv", sep="\t")
    caution = (f"{(pairs['chrom'] == 'chr1').sum()} of {len(pairs)} pairs are on chromosomes without any link in half "
               "(first: chr1)")
    assert [line for line in told if "caution" in line] == [line for line in told if caution in line] != []
    assert caution in (where / "report.html").read_text()
    assert json.loads((where / "provenance.json").read_text())["cautions"][0].startswith(caution)


def test_tables_of_links_are_compared(made, tmp_path):
    folder, _, _, raw = made
    out = run(folder, raw, tmp_path / "out")
    files = {"abc": out / "links.parquet"}
    table, where = compare_links(files, folder / "tested.tsv", folder / "world" / "genes.gtf", tmp_path / "bench",
                                 cell=CELL, match_on="gene_id", tell=lambda line: None)
    assert {"abc", "distance", "nearest_tss"} <= set(table["predictor"])
    score = table.set_index("predictor")["average_precision"]
    assert score["abc"] > score["nearest_tss"]
    assert (where / "report.html").is_file()
    assert len(pd.read_parquet(where / "curves.parquet"))
