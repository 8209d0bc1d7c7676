import numpy as np
import pandas as pd
import pytest

import small_world as small
from ciscribe.config import parse_config
from ciscribe.data.inputs import build_store, input_paths, read_inputs, read_tracks, window_spec
from ciscribe.errors import ConfigError, InputError, SchemaError
from ciscribe.io.tracks import Runs, Track, write_bedgraph, write_bigwig


@pytest.fixture
def raw(tmp_path):
    return small.write_inputs(tmp_path)


def test_read_inputs__gives_back_what_was_written(raw, tmp_path):
    config = parse_config(raw)
    inputs = read_inputs(config)
    pd.testing.assert_frame_equal(inputs.genes, small.make_genes(), check_like=True)
    assert [t.name for t in inputs.tracks] == ["atac", "mark"]
    assert inputs.blacklist is not None
    assert len(inputs.blacklist) == len(small.BLACKLIST)
    assert list(inputs.expression.columns) == list(small.CELLS)
    assert inputs.notes[0] == "genes: 3 of 3 chromosome names match the genome, all as they are"
    assert "expression: 31 of 31 genes have it; 0 rows of expression have no gene" in inputs.notes
    assert inputs.notes[-1] == "folds: 19 train, 7 valid, 5 test"
    store = build_store(tmp_path / "store", config, inputs)
    direct = small.build(tmp_path / "direct", window_spec(config.window), blacklist=small.BLACKLIST)
    for a, b in zip(store.batch(np.arange(31)), direct.batch(np.arange(31)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_read_inputs__reconciles_chromosome_names_and_tells(raw, tmp_path):
    genes = pd.read_csv(tmp_path / "genes.tsv", sep="\t")
    genes["chrom"] = genes["chrom"].str.removeprefix("chr")
    genes.to_csv(tmp_path / "genes.tsv", sep="\t", index=False)
    sizes = {c.removeprefix("chr"): n for c, n in small.SIZES.items()} | {"MT": 101}
    atac = small.make_track("atac", 3)
    runs = {c.removeprefix("chr"): r for c, r in atac.runs.items()}
    write_bigwig(tmp_path / "atac.bw", Track("atac", runs), sizes)
    inputs = read_inputs(parse_config(raw))
    assert "genes: 3 of 3 chromosome names match the genome, 3 of them renamed (1 → chr1, 2 → chr2, 3 → chr3)" \
        in inputs.notes
    assert any(n.startswith("track atac: 3 of 4") and "1 dropped, not in the genome (MT)" in n for n in inputs.notes)
    for chrom, run in inputs.tracks[0].runs.items():
        assert np.array_equal(run.start, atac.runs[chrom].start)
    assert set(inputs.genes["chrom"]) == set(small.SIZES)


def test_read_inputs__sets_genes_without_expression_aside(raw, tmp_path):
    table = pd.read_csv(tmp_path / "expression.tsv", sep="\t")
    extra = table.iloc[[0]].assign(gene_id="nobody")
    pd.concat([table.drop(index=[3, 20]), extra]).to_csv(tmp_path / "expression.tsv", sep="\t", index=False)
    inputs = read_inputs(parse_config(raw))
    assert "expression: 29 of 31 genes have it; 1 rows of expression have no gene" in inputs.notes
    assert not inputs.genes["gene_id"].isin(["chr1g3", "chr2g1"]).any()
    assert inputs.genes.index.tolist() == list(range(29))
    assert inputs.notes[-1] == "folds: 18 train, 6 valid, 5 test"


def test_read_inputs__guard_covers_windows_context_and_shifts(raw):
    raw["split"] = {"valid": ["chr2"], "test": ["chr3", "chr1:3000-6007"]}
    fold = {}
    for name, change in {"windows": {}, "far": {"split": {"guard": 1000}}, "off": {"split": {"guard": -1}},
                         "context": {"window": {"context_half_width": 1024}},
                         "shift": {"train": {"max_shift": 400}}}.items():
        inputs = read_inputs(parse_config(raw | {k: raw[k] | v for k, v in change.items()}))
        fold[name] = inputs.genes["fold"]
        inside = inputs.genes["tss"][(fold[name] == "test") & (inputs.genes["chrom"] == "chr1")].min()
        train = inputs.genes["tss"][fold[name] == "train"].max()
        reach = {"windows": 224, "far": 1224, "context": 2048, "shift": 624, "off": 0}[name]
        assert inside - train >= reach - 1  # a reversed window begins a base later
    n = {name: int((f == "guarded").sum()) for name, f in fold.items()}
    assert n["off"] == n["windows"] == 0
    assert 0 < n["shift"] < n["far"] < n["context"]


def test_read_tracks__every_kind_of_source(raw, tmp_path):
    atac = small.make_track("atac", 3)
    write_bedgraph(tmp_path / "atac.bg", atac)
    pd.DataFrame({"seq": ["chr1", "chr2"], "from": [10, 20], "to": [17, 31], "h1": [3.0, 5.0], "h2": [7.0, 11.0]}
                 ).to_csv(tmp_path / "sites.tsv", sep="\t", index=False)
    raw["data"]["tracks"] = [
        {"sites": {"path": "sites.tsv", "chrom": "seq", "start": "from", "end": "to",
                   "values": {"b": "h2", "a": "h1"}}},
        {"name": "graph", "bedgraph": "atac.bg"}, {"bigwig": "atac.bw"}]
    config = parse_config(raw)
    tracks = read_tracks(config)
    assert [t.name for t in tracks] == ["b", "a", "graph", "atac"]
    assert tracks[0].runs["chr2"].value.tolist() == [11.0]
    for chrom in small.SIZES:
        for part in range(3):
            assert np.array_equal(tracks[2].runs[chrom][part], tracks[3].runs[chrom][part])
    assert sorted(p.name for p in input_paths(config).values()) == [
        "atac.bg", "atac.bw", "blacklist.bed", "expression.tsv", "genes.tsv", "genome.fa", "sites.tsv"]


def test_read_tracks__two_of_one_name(raw):
    raw["data"]["tracks"][1]["name"] = "atac"
    with pytest.raises(ConfigError, match="2 of 2 tracks are called 'atac'; give each a name of its own"):
        read_inputs(parse_config(raw))


def test_input_paths__a_track_called_genome_hides_nothing(raw):
    raw["data"]["tracks"][1]["name"] = "genome"
    assert {p.name for p in input_paths(parse_config(raw)).values()} >= {"genome.fa", "atac.bw", "mark.bw"}


def edit(name, change):
    def do(folder):
        table = pd.read_csv(folder / name, sep="\t")
        change(table).to_csv(folder / name, sep="\t", index=False)
    return do


def other_build(folder):
    sizes = small.SIZES | {"chr2": 4007}
    write_bigwig(folder / "mark.bw", Track("mark", small.make_track("mark", 4).runs), sizes)


def foreign(folder):
    write_bigwig(folder / "mark.bw", Track("mark", {"NC_000001.11": Runs(
        np.array([3], np.int32), np.array([5], np.int32), np.array([1], np.float32))}), {"NC_000001.11": 6007})


def setting(row, column, value):
    def change(table):
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table
    return change


@pytest.mark.parametrize(("spoil", "error", "says"), [
    (edit("genes.tsv", setting(18, "tss", 6007)), SchemaError,
     "1 of 31 genes have a TSS off the end of their chromosome; first: row 18 .* chr1g18"),
    (edit("genes.tsv", setting(4, "gene_id", "chr1g3")), InputError,
     r"genes\.tsv.*1 of 31 genes repeat a gene_id; first: row 4 .* chr1g3"),
    (edit("genes.tsv", setting(4, "strand", ".")), InputError, "strand other than .*chr1g4"),
    (edit("expression.tsv", setting(2, "blood", "")), InputError,
     r"expression\.tsv.*1 of 93 expression values are missing or infinite; first: gene chr1g2, column blood"),
    (edit("expression.tsv", setting(2, "blood", -0.5)), InputError,
     r"1 of 93 expression values are negative; first: gene chr1g2, column blood = -0\.5"),
    (edit("expression.tsv", setting(2, "gene_id", "chr1g1")), InputError, "repeat a gene_id; first: chr1g1"),
    (edit("expression.tsv", lambda t: t.assign(gene_id=t["gene_id"] + ".1")), InputError,
     r"no gene_id of the 31 genes \(first: chr1g0\) is among the 31 rows of expression \(first: chr1g0\.1\)"),
    (edit("genes.tsv", lambda t: t.assign(chrom="scaffold_" + t["chrom"])), InputError,
     "no chromosome name of the genes is in the genome: the genes has scaffold_chr1"),
    (other_build, InputError,
     "track mark: 1 of 3 chromosomes have another length .*chr2 has 4,007 bp in the track, 4,001 in the genome"),
    (foreign, InputError, "no chromosome name of the track mark is in the genome.* perhaps NC_000001.11 → chr1"),
    (lambda folder: (folder / "mark.bw").write_bytes((folder / "mark.bw").read_bytes()[:700]), InputError,
     r"mark\.bw is not a whole bigWig"),
    (lambda folder: (folder / "genome.fa").write_text(""), InputError, r"genome\.fa"),
])
def test_read_and_build__bad_input_is_named(raw, tmp_path, spoil, error, says):
    spoil(tmp_path)
    config = parse_config(raw)
    with pytest.raises(error, match=says):
        build_store(tmp_path / "store", config, read_inputs(config))
    assert not (tmp_path / "store").exists()


def test_read_inputs__empty_training_fold(raw):
    raw["split"] = {"valid": ["chr1", "chr2"], "test": ["chr3"]}
    with pytest.raises(ConfigError, match="the train fold is empty: no gene of 31 falls in it"):
        read_inputs(parse_config(raw))


def test_read_inputs__a_guard_that_leaves_no_training_gene(raw):
    raw["split"] = {"valid": ["chr2"], "test": ["chr3", "chr1:3000-6007"], "guard": 10_000}
    with pytest.raises(ConfigError, match="the guard of 10,000 bp leaves no train gene: all 10 genes set aside lie"):
        read_inputs(parse_config(raw))


def test_read_inputs__covariate_that_is_no_column(raw, tmp_path):
    raw["data"]["covariates"] = ["gcc"]
    config = parse_config(raw)
    with pytest.raises(ConfigError, match=r"'gcc'.*did you mean 'gc'"):
        build_store(tmp_path / "store", config, read_inputs(config))
