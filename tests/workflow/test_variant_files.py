"""A file of variants scored by runs and motifs: tables, annotated VCF, page, and what is refused with nothing left."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import small_world as small
from ciscribe.config import ReporterConfig, parse_config
from ciscribe.errors import ConfigError, InputError, SchemaError
from ciscribe.io.genome import Genome, write_fasta
from ciscribe.io.motifs import write_meme
from ciscribe.io.variants import iter_vcf, write_vcf
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.schema import Motif, check_effects
from ciscribe.sequence import decode, encode, one_hot_tensor
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.run import Run
from ciscribe.workflow.variants import score_file
from planted import LENGTH, MOTIF, one_model, planted, write

QUIET = {"tell": lambda line: None, "progress": False}
SIZES = {"chr1": 1501, "chr2": 701}
SITES = (200, 500, 900)  # of the motif on chr1


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def known_motif():
    ppm = np.full((4, len(MOTIF)), 0.01)
    ppm[encode(MOTIF), np.arange(len(MOTIF))] = 0.97
    return Motif("planted", ppm, "test")


@pytest.fixture(scope="module")
def assay(tmp_path_factory):
    """A genome with three sites of the motif of an assay, its trained model, and variants in and beside the sites."""
    folder = tmp_path_factory.mktemp("variants")
    rng = np.random.default_rng(11)
    genome = {name: rng.integers(0, 4, size).astype(np.uint8) for name, size in SIZES.items()}
    for at in SITES:
        genome["chr1"][at:at + len(MOTIF)] = encode(MOTIF)
    write_fasta(folder / "genome.fa", genome)
    write_meme(folder / "known.meme", [known_motif()])
    rows = []
    for at in SITES:
        for name, pos in (("inside", at + 3), ("beside", at + 60)):
            ref = int(genome["chr1"][pos])
            rows.append(("chr1", pos, "ACGT"[ref], "ACGT"[(ref + 2) % 4], f"{name}{at}"))
    variants = pd.DataFrame(rows, columns=["chrom", "pos", "ref", "alt", "name"])
    write_vcf(folder / "some.vcf", variants, SIZES)
    write(planted(), folder / "assay.tsv")
    raw = one_model(folder, train={"epochs": 12})
    ReporterRun(folder / "run", parse_config(raw, "it.yaml", ReporterConfig), **QUIET).run("train")
    return folder, variants


def files(folder):
    return {path.name for path in folder.iterdir()}


def test_a_reporter_run_and_motifs_agree_on_what_breaks_a_site(assay, tmp_path):
    folder, variants = assay
    out = score_file(folder / "some.vcf", tmp_path / "out", run=folder / "run", genome=folder / "genome.fa",
                     motifs=[folder / "known.meme"], n_shuffles=7, **QUIET)
    assert files(out) == {"effects.parquet", "motifs.parquet", "variants.vcf.gz", "report.html", "provenance.json"}
    effects = pd.read_parquet(out / "effects.parquet")
    check_effects(effects)
    inside = effects["name"].str.startswith("inside").to_numpy()
    assert effects["diff"][inside].max() < 3 * -effects["diff"][~inside].abs().max()  # broken sites lower it most
    assert (effects["diff_p"][inside] < effects["diff_p"][~inside].min()).all()
    changes = pd.read_parquet(out / "motifs.parquet")
    assert set(changes["name"]) == set(effects["name"][inside])
    assert (changes["d_pwm"] < 0).all()
    info = [line.split("\t")[7] for chunk in iter_vcf(out / "variants.vcf.gz") for line in chunk.lines]
    written = [float(dict(f.split("=") for f in text.split(";"))["diff_activity"]) for text in info]
    assert np.allclose(written, effects["diff"], rtol=1e-4)
    page = (out / "report.html").read_text()
    assert "Variants with the largest effects" in page
    assert "planted" in page
    state = json.loads((out / "provenance.json").read_text())
    assert state["tally"]["kept"] == len(variants)


def test_scores_are_those_of_the_model_on_both_strands(assay, tmp_path):
    folder, variants = assay
    out = score_file(folder / "some.vcf", tmp_path / "out", run=folder / "run", genome=folder / "genome.fa", **QUIET)
    effects = pd.read_parquet(out / "effects.parquet")
    model, _ = registry.load(folder / "run" / "model")
    oracle, genome = Oracle(model), Genome(folder / "genome.fa")
    for row, diff in zip(variants.itertuples(), effects["diff"], strict=True):
        start = row.pos - LENGTH // 2
        ref = genome.fetch("chr1", start, start + LENGTH)
        alt = ref.copy()
        alt[LENGTH // 2] = encode(row.alt)[0]
        both = [one_hot_tensor(torch.from_numpy(codes[None])) for codes in (ref, alt)]
        before, after = (np.mean([float(oracle.predict(x)[0, 0]), float(oracle.predict(x.flip(1, 2))[0, 0])])
                         for x in both)
        assert diff == pytest.approx(after - before, abs=1e-5)


def test_motifs_alone_need_no_run(assay, tmp_path):
    folder, _ = assay
    out = score_file(folder / "some.vcf", tmp_path / "out", genome=folder / "genome.fa",
                     motifs=[folder / "known.meme"], **QUIET)
    assert files(out) == {"motifs.parquet", "variants.vcf.gz", "report.html", "provenance.json"}
    assert "planted" in (out / "report.html").read_text()


def test_a_table_counts_as_it_says(assay, tmp_path):
    folder, variants = assay
    variants.assign(pos=variants["pos"] + 1).to_csv(tmp_path / "some.tsv", sep="\t", index=False)
    given = {"genome": folder / "genome.fa", "run": folder / "run"}
    out = score_file(tmp_path / "some.tsv", tmp_path / "out", one_based=True, **given, **QUIET)
    assert pd.read_parquet(out / "effects.parquet")["pos"].tolist() == variants["pos"].tolist()
    with pytest.raises((InputError, ConfigError), match=r"one_based|count"):
        score_file(tmp_path / "some.tsv", tmp_path / "again", **given, **QUIET)
    with pytest.raises(SchemaError, match=r"6 .*|first"):  # counted from the wrong end
        score_file(tmp_path / "some.tsv", tmp_path / "again", one_based=False, **given, **QUIET)
    assert not (tmp_path / "again").exists()


def test_mismatches_are_refused_flipped_or_dropped(assay, tmp_path):
    folder, variants = assay
    wrong = variants.copy()
    wrong.loc[0, ["ref", "alt"]] = variants.loc[0, ["alt", "ref"]].to_numpy()
    write_vcf(tmp_path / "wrong.vcf", wrong, SIZES)
    given = {"genome": folder / "genome.fa", "run": folder / "run"} | QUIET
    with pytest.raises(SchemaError, match="1 "):
        score_file(tmp_path / "wrong.vcf", tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
    straight = pd.read_parquet(score_file(folder / "some.vcf", tmp_path / "straight", **given) / "effects.parquet")
    flipped = pd.read_parquet(score_file(tmp_path / "wrong.vcf", tmp_path / "flip", mismatch="flip", **given)
                              / "effects.parquet")
    assert np.allclose(flipped["diff"], straight["diff"])
    assert flipped["flipped"].tolist() == [True] + [False] * 5
    dropped = pd.read_parquet(score_file(tmp_path / "wrong.vcf", tmp_path / "drop", mismatch="drop", **given)
                              / "effects.parquet")
    assert dropped["name"].tolist() == variants["name"].tolist()[1:]
    info = [line.split("\t")[7] for c in iter_vcf(tmp_path / "drop" / "variants.vcf.gz") for line in c.lines]
    assert [text == "." for text in info] == [True] + [False] * 5


def test_repeated_and_flipped_rows_say_what_stands_in_the_file(assay, tmp_path):
    folder, variants = assay
    wrong = pd.concat([variants, variants.head(1)], ignore_index=True).assign(
        name=[f"v{i}" for i in range(len(variants) + 1)])
    wrong.loc[2, ["ref", "alt"]] = variants.loc[2, ["alt", "ref"]].to_numpy()
    write_vcf(tmp_path / "again.vcf", wrong, SIZES)
    out = score_file(tmp_path / "again.vcf", tmp_path / "out", genome=folder / "genome.fa", run=folder / "run",
                     mismatch="flip", **QUIET)
    effects = pd.read_parquet(out / "effects.parquet").set_index("pos")["diff"]
    assert len(effects) == len(variants)
    info = {line.split("\t")[2]: float(line.split("\t")[7].split("=")[1])
            for chunk in iter_vcf(out / "variants.vcf.gz") for line in chunk.lines}
    assert info["v0"] == info[f"v{len(variants)}"] == pytest.approx(effects[variants["pos"][0]], rel=1e-4)
    assert info["v2"] == pytest.approx(-effects[variants["pos"][2]], rel=1e-4)


def test_effects_go_through_linked_elements(assay, tmp_path):
    folder, _ = assay
    links = pd.DataFrame({"chrom": "chr1", "start": [SITES[0]], "end": [SITES[0] + len(MOTIF)], "gene_id": "g1",
                          "cell": "K", "distance": 100, "score": 0.5})
    links.to_parquet(tmp_path / "links.parquet", index=False)
    out = score_file(folder / "some.vcf", tmp_path / "out", genome=folder / "genome.fa", run=folder / "run",
                     links=tmp_path / "links.parquet", **QUIET)
    effects = pd.read_parquet(out / "effects.parquet").set_index("name")
    assert effects.loc["inside200", "element"] == pytest.approx(0.5 * effects.loc["inside200", "diff"])
    assert effects.loc["inside200", "gene_id"] == "g1"
    assert (effects.drop(index="inside200")["element"] == 0).all()


def test_several_pieces_are_one(assay, tmp_path, monkeypatch):
    folder, _ = assay
    given = {"genome": folder / "genome.fa", "run": folder / "run"} | QUIET
    whole = pd.read_parquet(score_file(folder / "some.vcf", tmp_path / "whole", **given) / "effects.parquet")
    monkeypatch.setattr("ciscribe.workflow.variants._CHUNK", 2)
    parts = pd.read_parquet(score_file(folder / "some.vcf", tmp_path / "parts", **given) / "effects.parquet")
    pd.testing.assert_frame_equal(whole, parts, atol=1e-6)


def test_an_ensemble_says_its_spread(assay, tmp_path):
    folder, _ = assay
    other = tmp_path / "other"
    raw = one_model(folder, train={"epochs": 2}, seed=4)
    ReporterRun(other, parse_config(raw, "it.yaml", ReporterConfig), **QUIET).run("train")
    given = {"genome": folder / "genome.fa", "run": folder / "run"} | QUIET
    effects = pd.read_parquet(score_file(folder / "some.vcf", tmp_path / "out", others=[other], **given)
                              / "effects.parquet")
    assert (effects["diff_sd"] > 0).any()


def test_what_is_missing_is_said(assay, tmp_path):
    folder, _ = assay
    with pytest.raises(ConfigError, match="--run"):
        score_file(folder / "some.vcf", tmp_path / "out", genome=folder / "genome.fa", **QUIET)
    with pytest.raises(ConfigError, match="--genome"):
        score_file(folder / "some.vcf", tmp_path / "out", run=folder / "run", **QUIET)
    with pytest.raises(ConfigError, match="scorers are of"):
        score_file(folder / "some.vcf", tmp_path / "out", run=folder / "run", scorers=["dif"], **QUIET)


def test_what_only_a_model_can_be_asked_needs_one(assay, tmp_path):
    folder, _ = assay
    with pytest.raises(ConfigError, match=r"--others, --snap would do nothing"):
        score_file(folder / "some.vcf", tmp_path / "out", genome=folder / "genome.fa", motifs=[folder / "known.meme"],
                   others=[folder / "run"], snap=8, **QUIET)


@pytest.fixture(scope="module")
def genes_run(tmp_path_factory):
    """A trained run of genes, and variants of which some lie in no window."""
    folder = tmp_path_factory.mktemp("genes")
    raw = small.write_inputs(folder)
    Run.from_config(small.write_yaml(folder / "c.yaml", raw), folder / "run", **QUIET).run("train")
    genome, genes = small.make_genome(), small.make_genes()
    rows = []
    for gene in genes.itertuples():
        pos = min(max(gene.tss + 30, 0), len(genome[gene.chrom]) - 1)
        ref = int(genome[gene.chrom][pos])
        if ref < 4:
            rows.append((gene.chrom, pos, "ACGT"[ref], "ACGT"[(ref + 1) % 4], gene.gene_id))
    return folder, pd.DataFrame(rows, columns=["chrom", "pos", "ref", "alt", "name"]).drop_duplicates(
        ["chrom", "pos"], ignore_index=True)


def test_a_run_of_genes_scores_each_gene_in_reach(genes_run, tmp_path):
    folder, variants = genes_run
    write_vcf(tmp_path / "some.vcf", variants, small.SIZES)
    out = score_file(tmp_path / "some.vcf", run=folder / "run", n_matched=2, **QUIET)
    assert out == folder / "run" / "variants" / "some"
    effects = pd.read_parquet(out / "effects.parquet")
    check_effects(effects)
    assert set(effects["track"]) == set(small.CELLS)
    assert effects["diff_percentile"].between(0, 100).all()
    run = Run(folder / "run", **QUIET)
    store, oracle = run.store, run.oracle()
    windows = store.windows().set_index("gene_id")
    for row in effects.drop_duplicates("gene_id").itertuples():  # both directions of reading
        at = int(np.flatnonzero(store.genes["gene_id"] == row.gene_id)[0])
        batch = store.batch(np.array([at]))
        alt = batch.codes.clone()
        window = windows.loc[row.gene_id]
        minus = store.genes["strand"].iloc[at] == "-"
        place = int(window["end"]) - 1 - row.pos if minus else row.pos - int(window["start"])
        base = encode(row.alt)[0]
        assert decode(alt.numpy()[0, place:place + 1]) == decode(np.array([3 - encode(row.ref)[0]], np.uint8)
                                                                 if minus else encode(row.ref))
        alt[0, place] = int(3 - base if minus else base)
        both = [oracle.predict(codes, batch.signals)[0].numpy() for codes in (batch.codes, alt)]
        track = list(store.target_names).index(row.track)
        assert row.diff == pytest.approx(both[1][track] - both[0][track], abs=1e-5)
    page = (out / "report.html").read_text()
    assert 'id="linked-loci"' in page
    with pytest.raises(ConfigError, match="matched"):
        score_file(tmp_path / "some.vcf", tmp_path / "out", run=folder / "run", n_shuffles=3, **QUIET)
    with pytest.raises(ConfigError, match=r"--snap 8 would do nothing"):
        score_file(tmp_path / "some.vcf", tmp_path / "out", run=folder / "run", snap=8, **QUIET)


def test_variants_far_from_all_genes_are_an_error(genes_run, tmp_path):
    folder, _ = genes_run
    genes = small.make_genes()
    taken = genes.loc[genes["chrom"] == "chr3", "tss"].to_numpy()
    far = [p for p in range(3001) if np.abs(taken - p).min() > 113 and small.make_genome()["chr3"][p] < 4]
    base = int(small.make_genome()["chr3"][far[0]])
    table = pd.DataFrame({"chrom": ["chr3"], "pos": far[:1], "ref": "ACGT"[base], "alt": "ACGT"[(base + 1) % 4]})
    write_vcf(tmp_path / "far.vcf", table, small.SIZES)
    with pytest.raises(InputError, match="none of 1 variants"):
        score_file(tmp_path / "far.vcf", tmp_path / "out", run=folder / "run", **QUIET)
    assert not (tmp_path / "out").exists()
