"""From files of elements, genes and signals to links: tables that other programs read, a page, and what is refused."""

import json

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
])
def test_what_cannot_be_used_is_said(made, tmp_path, change, error, says):
    folder, _, _, raw = made
    with pytest.raises(error, match=says):
        run(folder, raw | change, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
