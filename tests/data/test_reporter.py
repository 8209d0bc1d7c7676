"""Reporter tables in every form that labs pass on, their faults by name, counts of barcodes, and batches."""

import gzip

import numpy as np
import pandas as pd
import pytest
import torch

from ciscribe.data.reporter import ReporterSet, activity_from_counts, loader, read_reporter, reporter_set
from ciscribe.errors import ConfigError, DataMissingError, InputError, SchemaError
from ciscribe.sequence import decode, one_hot_tensor

TABLE = pd.DataFrame({"name": ["a", "b", "c"], "sequence": ["acgTA", "GGN", "TTTT"], "activity": [1.5, -2.0, 8.0],
                      "other": [3.0, np.nan, 5.0], "gene": ["NA", "x", "x"]})


def written(folder, kind):
    path = folder / f"t.{kind}"
    if kind == "parquet":
        TABLE.to_parquet(path)
        return path
    text = TABLE.to_csv(sep="," if "csv" in kind or kind == "txt" else "\t", index=False, na_rep="NA")
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "tsv.gz", "txt", "parquet"])
def test_read_reporter__reads_every_kind_of_table(tmp_path, kind):
    data = read_reporter(written(tmp_path, kind), activity=["activity", "other"])
    assert len(data) == 3
    assert [decode(row) for row in data.codes] == ["ACGTA", "NGGNN", "TTTTN"]
    np.testing.assert_array_equal(data.targets, np.array([[1.5, 3], [-2, np.nan], [8, 5]], np.float32))
    assert data.targets.dtype == np.float32
    assert data.target_names == ("activity", "other")
    assert data.table["name"].tolist() == ["a", "b", "c"]
    assert data.table["sequence"].tolist() == ["ACGTA", "GGN", "TTTT"]
    assert data.table["gene"].tolist() == ["NA", "x", "x"]
    assert data.notes == ("2 of 3 sequences of 3 to 5 bp were padded with N on both sides to 5 bp",)


def test_read_reporter__without_header_with_other_columns_and_separators(tmp_path):
    path = tmp_path / "t.txt.gz"
    path.write_bytes(gzip.compress(b"ACG;1.5;p\nTTT;2;q\n"))
    data = read_reporter(path, columns=["dna", "y", "set"], sequence="dna", activity="y", separator=";", length=7)
    assert [decode(row) for row in data.codes] == ["NNACGNN", "NNTTTNN"]
    assert data.table.columns.tolist() == ["name", "sequence", "y", "set"]
    assert data.table["name"].tolist() == ["seq0", "seq1"]
    path.write_bytes(gzip.compress(b"ACG 1.5\nTTT   2\n"))
    assert read_reporter(path, columns=["sequence", "activity"]).targets.tolist() == [[1.5], [2.0]]
    with pytest.raises(InputError, match=r"has 2 columns, but 3 names were given \(a, b, c\)"):
        read_reporter(path, columns=["a", "b", "c"])


def test_read_reporter__joins_files_and_keeps_rows_asked_for(tmp_path):
    for i in (1, 2):
        (tmp_path / f"{i}.tsv").write_text(f"id\tset\tsequence\tactivity\nx{i}\ttrain\tACG{'ACGT'[i]}\t{i}\n"
                                           f"y{i}\ttest\tTTT{'ACGT'[i]}\t{i + 5}\nz{i}\t7\tGGG{'ACGT'[i]}\t9\n")
    paths = [tmp_path / "1.tsv", tmp_path / "2.tsv"]
    data = read_reporter(paths, where={"set": ["train", 7]}, name="id")
    assert data.table["name"].tolist() == ["x1", "z1", "x2", "z2"]
    assert data.table["source"].tolist() == ["1.tsv", "1.tsv", "2.tsv", "2.tsv"]
    assert read_reporter(paths, where={"set": "test"}).targets.tolist() == [[6], [7]]
    with pytest.raises(InputError, match=r"no row of .*1.tsv has set = trian; did you mean 'train'\?"):
        read_reporter(paths, where={"set": "trian"})
    with pytest.raises(InputError, match="fits all of"):
        read_reporter(paths, where={"set": "train", "id": "z1"})


def test_read_reporter__fasta(tmp_path):
    path = tmp_path / "t.fa.gz"
    path.write_bytes(gzip.compress(b">a activity=1.5 gene=g1\nACG\nTA\n>b 2 gene=g2 some words\nGGNTT\n"))
    data = read_reporter(path)
    assert data.table["name"].tolist() == ["a", "b"]
    assert data.table["gene"].tolist() == ["g1", "g2"]
    assert data.targets.tolist() == [[1.5], [2.0]]
    assert [decode(row) for row in data.codes] == ["ACGTA", "GGNTT"]
    (tmp_path / "y.csv").write_text("name,leaf,root\nb,3,4\na,1,2\nc,0,0\n")
    assert read_reporter(path, activity=["leaf", "root"], activities=tmp_path / "y.csv").targets.tolist() == [[1, 2],
                                                                                                             [3, 4]]
    (tmp_path / "y.csv").write_text("name,leaf\nb,3\n")
    with pytest.raises(InputError, match=r"1 of 2 rows .* have no row of their name in .*y.csv; first: row 0, 'a'"):
        read_reporter(path, activity="leaf", activities=tmp_path / "y.csv")
    with pytest.raises(InputError, match=r"2 of 2 rows of FASTA .* have no 'leaf' in the header .*'>name leaf=1.2'"):
        read_reporter(path, activity=["activity", "leaf"])
    plain = tmp_path / "p.fasta"
    plain.write_text("ACG\n")
    with pytest.raises(InputError, match="does not start with '>'"):
        read_reporter(plain)
    plain.write_text(">x\nACG\n>y\nACT\n")
    data = read_reporter(plain, activity=())
    assert data.targets.shape == (2, 0)


@pytest.mark.parametrize(("log", "base"), [("log2", 2), ("log10", 10), ("ln", np.e)])
def test_read_reporter__log_pseudocount_and_floor(log, base):
    table = pd.DataFrame({"sequence": ["AC", "CC", "GC"], "activity": [-1.0, 7.0, np.nan], "b": [1.0, 2.0, 3.0]})
    data = reporter_set(table, activity=["activity", "b"], log=log, pseudocount=1, floor=0)
    expected = np.log([[1, 2], [8, 3], [np.nan, 4]]) / np.log(base)
    np.testing.assert_allclose(data.targets, expected, rtol=1e-6)
    assert data.table["activity"].tolist()[:2] == [-1, 7]
    assert data.notes == ("1 of 6 activities below 0 were raised to it", f"targets are {log}(activity + 1)")
    with pytest.raises(InputError, match=f"1 of 3 activities .* have no {log}.* row 0, activity = -1; give .*floor="):
        reporter_set(table, log=log, pseudocount=1)


def test_reporter_set__leaves_out_rows_without_any_activity():
    table = pd.DataFrame({"sequence": ["AC", "CC", "GC"], "activity": ["1", "na", " 2 "], "b": ["", "", "4"]})
    data = reporter_set(table, activity=["activity", "b"])
    assert data.table["sequence"].tolist() == ["AC", "GC"]
    assert data.notes == ("1 of 3 rows without any activity were left out",)


def test_reporter_set__duplicates():
    table = pd.DataFrame({"sequence": ["AC", "GG", "ac", "AC", "GG"], "activity": [1.0, 5, 2, 6, 5],
                          "b": [np.nan, 1, 4, np.nan, 3], "gene": list("vwxyz")})
    mean = reporter_set(table, activity=["activity", "b"], duplicates="mean")
    assert mean.targets.tolist() == [[3, 4], [5, 2]]
    assert mean.table["gene"].tolist() == ["v", "w"]
    assert mean.notes == ("3 of 5 rows repeated a sequence and were joined with it; different activities of 2 "
                          "sequences were averaged",)
    keep = reporter_set(table, duplicates="keep")
    assert len(keep) == 5
    assert "put them into one fold" in keep.notes[0]
    with pytest.raises(InputError, match="1 sequences .* different activities; first: row 0 activity = 1, row 2 "
                                         r"activity = 2, .*\(AC…\); give duplicates='mean' .* duplicates='keep'"):
        reporter_set(table)
    same = reporter_set(table.iloc[[1, 4, 0]])
    assert same.targets.tolist() == [[5], [1]]
    assert same.notes == ("1 of 3 rows repeated a sequence and were joined with it; their activities were equal",)


def changed(**columns):
    return pd.DataFrame({"sequence": ["ACGT", "CCGT", "GGGT"], "activity": [1.0, 2.0, 3.0]}).assign(**columns)


@pytest.mark.parametrize(("table", "options", "message"), [
    (changed(sequence=["ACGT", "AXGT", "R"]), {}, "2 of 3 rows .* other than ACGTN; first: row 1, 'X' at position 1"),
    (changed(sequence=["ACGU", "ACG", "A"]), {}, "1 of 3 .* 'U' at position 3 .* RNA"),
    (changed(sequence=["ACGT", "", None]), {}, "2 of 3 rows .* have no sequence; first: row 1"),
    (changed(activity=["1", "high", "low"]), {}, "2 of 3 rows .* activity that is not a number; first: row 1, 'high'"),
    (changed(activity=[1, np.inf, 2]), {}, "1 of 3 rows .* infinite"),
    (changed(activity=7), {}, "all 3 activities in 'activity' .* are 7: there is nothing to learn"),
    (changed(activity=np.nan), {}, "(has no number in the column|without any)"),
    (changed(b=np.nan), {"activity": ["activity", "b"]}, "has no number in the column 'b'"),
    (changed(), {"activity": "activty"}, "lacks 1 of 2 columns; first: 'activty'; did you mean 'activity'"),
    (changed(sequence=["ACGT", "ACGTA", "A"]), {"mixed_lengths": "error"},
     "3 lengths, 1 to 5 bp.* row 0 has 4 bp, row 1 has 5"),
    (changed(sequence=["ACGT", "ACGTA", "A"]), {"length": 3}, r"2 of 3 rows .* longer than length=3 bp .* row 0, 4 bp"),
    (changed().iloc[:0], {}, "holds no rows"),
])
def test_reporter_set__names_the_fault(table, options, message):
    with pytest.raises(InputError, match=message):
        reporter_set(table, **options)


def test_read_reporter__of_what_is_not_there(tmp_path):
    with pytest.raises(DataMissingError, match=r"no.tsv"):
        read_reporter(tmp_path / "no.tsv")
    with pytest.raises(InputError, match="at least one path"):
        read_reporter([])
    path = written(tmp_path, "csv")
    with pytest.raises(InputError, match=r"t.csv lacks 1 of 2 columns; first: 'seqence'; did you mean 'sequence'"):
        read_reporter(path, sequence="seqence")
    with pytest.raises(InputError, match=r"two columns 'sequence' .*'gene'"):
        read_reporter(path, sequence="gene")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot be read as parquet"):
        read_reporter(tmp_path / "t.parquet")


def sample(n=23):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"sequence": ["".join(rng.choice(list("ACGT"), 11)) for _ in range(n)],
                          "activity": np.arange(n, dtype=float)})
    return reporter_set(table)


def test_take__by_number_and_mask():
    data = sample()
    some = data.take([7, 3, 7])
    assert some.targets[:, 0].tolist() == [7, 3, 7]
    assert some.table["sequence"].tolist() == data.table["sequence"][[7, 3, 7]].tolist()
    assert (some.codes == data.codes[[7, 3, 7]]).all()
    mask = np.arange(23) > 19
    assert data.take(mask).targets[:, 0].tolist() == [20, 21, 22]
    with pytest.raises(SchemaError, match="a mask of rows needs 23 entries; got 5"):
        data.take(mask[:5])


def test_reporter_set__members_must_fit():
    data = sample()
    with pytest.raises(SchemaError, match=r"\(22, 23, 23\) rows"):
        ReporterSet(data.table[1:], data.codes, data.targets, ("activity",))
    with pytest.raises(SchemaError, match="2 names of 1 columns"):
        ReporterSet(data.table, data.codes, data.targets, ("activity", "b"))


def test_loader__deals_every_row_once_in_an_order_of_seed_and_epoch():
    data = sample()
    batches = loader(data, np.arange(3, 23), 7, shuffle=True, seed=5)
    first = [b.index.tolist() for b in batches]
    assert [len(b) for b in first] == [7, 7, 6]
    assert sorted(row for step in first for row in step) == list(range(3, 23))
    assert [b.index.tolist() for b in batches] == first
    batches.sampler.set_epoch(1)
    second = [b.index.tolist() for b in batches]
    assert second != first
    workers = loader(data, np.arange(3, 23), 7, shuffle=True, seed=5, n_workers=2)
    assert [b.index.tolist() for b in workers] == first
    assert [b.index.tolist() for b in loader(data, np.arange(3, 23), 7, shuffle=True, seed=6)] != first
    assert [b.index.tolist() for b in loader(data, [5, 1, 2], 2)] == [[5, 1], [2]]
    assert [b.index.tolist() for b in loader(data, np.arange(23) > 20, 2)] == [[21, 22]]


def test_loader__gives_the_batch_of_the_house():
    data = sample()
    S, C = np.random.default_rng(1).random((23, 3, 13)), np.random.default_rng(2).random((23, 5))
    [batch] = loader(data, [2, 19], 4, signals=S, covariates=C)
    assert torch.equal(batch.codes, torch.from_numpy(data.codes[[2, 19]]))
    np.testing.assert_allclose(batch.signals, S[[2, 19]].astype(np.float32))
    np.testing.assert_allclose(batch.covariates, C[[2, 19]].astype(np.float32))
    assert batch.targets.tolist() == [[2], [19]]
    assert batch.keep.shape == (2, 0)
    assert batch.index.dtype == torch.int64
    assert one_hot_tensor(batch.codes).shape == (2, 4, 11)
    [bare] = loader(data, [2, 19], 4)
    assert bare.signals.shape == (2, 0, 11)
    assert bare.covariates.shape == (2, 0)


@pytest.mark.parametrize(("n", "shuffle", "sizes"), [(22, True, [7, 7, 8]), (22, False, [7, 7, 7, 1]), (1, True, [1]),
                                                     (8, True, [8])])
def test_loader__leaves_no_single_row_for_batch_norm(n, shuffle, sizes):
    batches = loader(sample(), np.arange(n), 7, shuffle=shuffle)
    assert [len(b.index) for b in batches] == sizes
    assert len(batches) == len(sizes)


def test_loader__says_what_does_not_fit():
    data = sample()
    with pytest.raises(SchemaError, match=r"rows lie in 0..22 .* 1 of 2 do not; first: 23"):
        loader(data, [3, 23], 4)
    with pytest.raises(SchemaError, match="not empty"):
        loader(data, [], 4)
    with pytest.raises(SchemaError, match=r"covariates need 2 axes and 23 rows; got shape \(5, 2\)"):
        loader(data, [3], 4, covariates=np.zeros((5, 2)))
    with pytest.raises(ConfigError, match="batch_size is at least 1"):
        loader(data, [3], 0)


def barcodes(n_elements=41, n_barcodes=7, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 1.5, n_elements)
    element = np.repeat(np.arange(n_elements), n_barcodes)
    dna = rng.poisson(rng.gamma(5, 40, len(element)))
    counts = {"name": [f"e{i}" for i in element], "dna": dna}
    for i, depth in enumerate((1.0, 3.0)):
        counts[f"rna{i}"] = rng.poisson(depth * dna * 2 ** true[element])
    return pd.DataFrame(counts), true


def test_activity_from_counts__recovers_planted_activities():
    counts, true = barcodes()
    table, quality = activity_from_counts(counts, dna=["dna"], rna=["rna0", "rna1"])
    assert table["name"].tolist() == [f"e{i}" for i in range(41)]
    assert np.corrcoef(table["activity"], true)[0, 1] > 0.99
    assert np.std(table["activity"] - true) < 0.1  # in log2 units; the depth of a library does not matter
    assert abs(table["rna1"].mean() - table["rna0"].mean()) < 0.1
    np.testing.assert_allclose(table["activity_sd"], table[["rna0", "rna1"]].std(axis=1, ddof=1))
    [pair] = quality["pairs"]
    assert (pair["a"], pair["b"], pair["n"]) == ("rna0", "rna1", 41)
    assert pair["pearson"] == pytest.approx(table["rna0"].corr(table["rna1"]))
    assert pair["spearman"] == pytest.approx(table["rna0"].rank().corr(table["rna1"].rank()))
    assert quality["depth"] == {c: int(counts[c].sum()) for c in ("dna", "rna0", "rna1")}


def test_activity_from_counts__by_hand():
    counts = pd.DataFrame({"name": list("aaabbbcc"), "d": [10, 20, 9, 30, 30, 40, 50, 11],
                           "r": [40, 0, 999, 9, 11, 20, 13, 8]})
    table, quality = activity_from_counts(counts, dna=["d"], rna=["r"], min_barcodes=2)
    expected = [np.log2(41 / 1100 / (31 / 200)), np.log2(41 / 1100 / (101 / 200)), np.log2(22 / 1100 / (62 / 200))]
    np.testing.assert_allclose(table["activity"], expected)
    assert table["activity_sd"].isna().all()
    assert table["n_barcodes"].tolist() == [2, 3, 2]
    assert quality["pairs"] == []
    assert (quality["n_barcodes"], quality["barcodes_dropped"], quality["n_elements"]) == (8, 1, 3)
    table, quality = activity_from_counts(counts, dna=["d"], rna=["r"])
    assert table["name"].tolist() == ["b"]
    assert quality["elements_dropped"] == 2


def test_activity_from_counts__names_the_fault():
    counts, _ = barcodes()
    with pytest.raises(InputError, match="'rna2'; did you mean 'rna"):
        activity_from_counts(counts, dna=["dna"], rna=["rna0", "rna2"])
    with pytest.raises(ConfigError, match="one for each of the 2 rna columns; got 3"):
        activity_from_counts(counts, dna=["dna"] * 3, rna=["rna0", "rna1"])
    with pytest.raises(InputError, match=r"1 of 287 rows .* first: row 3, rna0 = -1"):
        activity_from_counts(counts.assign(rna0=[5, 5, 5, -1] + [5] * 283), dna=["dna"], rna=["rna0"])
    with pytest.raises(InputError, match="1 of 2 libraries hold no read; first: rna0"):
        activity_from_counts(counts.assign(rna0=0), dna=["dna"], rna=["rna0"])
    with pytest.raises(InputError, match=r"none of 41 elements has 8 barcodes .*the best has 7"):
        activity_from_counts(counts, dna=["dna"], rna=["rna0"], min_barcodes=8)


@pytest.mark.realdata
@pytest.mark.parametrize(("path", "options", "n", "length"), [
    ("plant/CNN_test_leaf.tsv.gz", {"activity": "enrichment", "name": "gene"}, 7154, 170),
    ("plant/CNN_test_proto.tsv.gz", {"activity": "enrichment"}, 7595, 170),
    ("ecoli_150bp/train_genome_split.txt.gz", {"columns": ["sequence", "expression"], "activity": "expression",
                                               "log": "log2", "floor": 0, "pseudocount": 0.1}, 13029, 150),
    ("ecoli_50bp/seq_exp_94.txt", {"columns": ["sequence", "activity", "name"], "duplicates": "mean"}, 94, 56),
    ("yeast/Random_defined.csv.gz", {"sequence": "seq110", "activity": "meanEL"}, 5289, 110),
])
def test_read_reporter__of_published_sets(data_dir, path, options, n, length):
    data = read_reporter(data_dir / "mpra" / path, **options)
    assert data.codes.shape == (n, length)
    assert np.isfinite(data.targets).all()


@pytest.mark.realdata
def test_read_reporter__of_the_fly_sample(data_dir):
    paths = [data_dir / "mpra" / "fly_sample" / f"sample_{part}.txt.gz" for part in ("train", "val", "test")]
    data = read_reporter(paths, sequence="Sequence", activity=["Dev_log2_enrichment", "Hk_log2_enrichment"],
                         name="ID", duplicates="mean")
    assert data.codes.shape == (2969, 249)
    assert data.targets.shape == (2969, 2)
    assert data.table["source"].nunique() == 3


@pytest.mark.parametrize("suffix", ["npy", "npy.gz"])
def test_read_reporter__arrays_of_strings(suffix, tmp_path):
    sequences, values = np.array(["ACGTA", "CCGTT", "TTTGA"]), np.array(["1.5", "2", "4"])
    for name, array in (("sequences", sequences), ("values", values)):
        with (gzip.open if suffix.endswith("gz") else open)(tmp_path / f"{name}.{suffix}", "wb") as file:
            np.save(file, array)
    data = read_reporter(tmp_path / f"sequences.{suffix}", activity="expression",
                         activities=tmp_path / f"values.{suffix}", log="log2")
    assert data.table["sequence"].tolist() == sequences.tolist()
    np.testing.assert_allclose(data.targets[:, 0], np.log2([1.5, 2, 4]), rtol=1e-6)
    with pytest.raises(InputError, match="name the array of activities"):
        read_reporter(tmp_path / f"sequences.{suffix}", activity="expression")
    with pytest.raises(InputError, match="must hold 3 rows of 2 activities"):
        read_reporter(tmp_path / f"sequences.{suffix}", activity=["a", "b"], activities=tmp_path / f"values.{suffix}")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="plain values"):
        read_reporter(tmp_path / "pickled.npy", activity=())
