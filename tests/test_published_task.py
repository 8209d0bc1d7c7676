"""The published human task on a miniature in the published layout: shipped configuration to report, EPInformer too."""

import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

import published_layout as layout
from ciscribe.config import RunConfig, parse_config, read_config
from ciscribe.data.inputs import build_store, input_paths, read_inputs
from ciscribe.errors import ConfigError, DataMissingError, InputError
from ciscribe.io.tracks import Track, write_bigwig
from ciscribe.models import registry
from ciscribe.sequence import decode
from ciscribe.workflow.run import Run

HALF = 128
SMALL = {"d_model": 8, "n_layers": 1, "d_state": 2, "expand": 1, "include_bp": 20, "center_bp": 20}
MRNA = layout.MRNA


def small(root, folder, cell="K562", steps=7):
    """The shipped configuration with another root, a narrow window and a tiny model; nothing else differs."""
    raw = yaml.safe_load((root / "configs" / f"human_{cell.lower()}.yaml").read_text())
    raw["data"]["root"] = str(folder)
    raw["window"]["half_width"] = HALF
    raw["model"]["arguments"] |= SMALL
    raw["train"] |= {"steps": steps, "n_workers": 0, "n_threads": 1, "device": "cpu"}
    raw["report"] |= {"n_loci": 1}
    return raw


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """A download and its genes; tests that break something copy it."""
    folder = tmp_path_factory.mktemp("GeneExp")
    return folder, layout.write(folder)


@pytest.mark.parametrize("cell", ["K562", "GM12878"])
def test_configs__state_what_was_published(root, cell):
    config = read_config(root / "configs" / f"human_{cell.lower()}.yaml")
    assert (config.window.half_width, config.window.resolution, config.window.strand_aware) == (100_000, 1, False)
    assert config.window.transform == "none"
    train = config.train
    assert (train.steps, train.batch_size, train.precision, train.gradient_clip) == (50_000, 8, "bf16", 1.0)
    assert (train.learning_rate, train.final_learning_rate, train.weight_decay) == (5e-4, 1e-4, 1e-6)
    assert (train.warmup, train.loss.kind, train.loss.mask_kl) == (0.1, "smooth_l1", 0.01)
    assert config.data.covariate_names == [*MRNA, "promoter_activity"]
    assert [t.name for t in config.data.tracks] == ["H3K27ac", "DNase"]
    assert config.split.folds is not None
    assert config.split.folds.column == "fold_11"
    given = config.model.arguments
    assert (given["thresholds"], given["weights"]) == ([1.5, 0.2, 1.0], [2.0, 2.0, 1.0])
    published = {k: v for k, v in given.items() if k not in ("thresholds", "weights", "calibrate", "empty_token")}
    defaults = registry.arguments("seq2exp") | {"sparsity": 0.1, "concentration": 10.0, "prior_scale": 10.0,
                                                "beta_min": 1.0}
    assert published == {k: defaults[k] for k in published}


@pytest.fixture(scope="module")
def finished(root, download, tmp_path_factory):
    """The run of the shipped configuration, as `ciscribe run` does it."""
    where = tmp_path_factory.mktemp("human")
    (where / "human.yaml").write_text(yaml.safe_dump(small(root, download[0])))
    lines: list[str] = []
    run = Run.from_config(where / "human.yaml", where / "run", tell=lines.append, progress=False)
    run.run()
    return run, lines


def test_run__from_shipped_configuration_to_report(finished):
    run, lines = finished
    assert "  folds: 30 train, 7 valid, 5 test" in lines
    assert any(line.startswith("  epoch 2/2: ") for line in lines)  # 4 steps an epoch, 7 in all
    assert len(pd.read_csv(run.folder / "log.csv")) == 2
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["split"]["test"] == {"chroms": ["chr3"], "n_genes": 5}
    assert metrics["split"]["train"]["chroms"] == ["chr1", "chrX"]
    assert metrics["targets"] == ["K562"]
    assert run.store.track_names == ["H3K27ac", "DNase", "hic"]
    assert run.store.covariate_names == [*MRNA, "promoter_activity"]
    page = (run.folder / "report.html").read_text()
    assert "K562: the published task, fold 11" in page
    model, _ = registry.load(run.folder / "model", expect="seq2exp")
    assert model.bottleneck.mask.thresholds.tolist() == pytest.approx([1.5, 0.2, 1.0])
    assert model.bottleneck.mask.weights.tolist() == pytest.approx([0.4, 0.4, 0.2])
    assert model.bottleneck.mask.scale.tolist() == [1, 1, 1]
    assert np.load(run.folder / "mask.npz")["mean"].shape == (5, 2 * HALF)


def test_run__second_time_does_nothing_and_a_new_contact_file_does_all(finished):
    run, _ = finished
    assert all(run.is_done(step) for step in Run.STEPS)
    assert {f"contacts hic_feat_{c}.h5" for c in layout.SIZES} <= set(input_paths(run.config))
    before = run.fingerprint("data")
    parts = {"data": run.config.data.model_copy(update={"contacts": None})}
    run.config, kept = run.config.model_copy(update=parts), run.config
    assert run.fingerprint("data") != before
    run.config = kept


def test_store__windows_are_the_published_ones(finished, download):
    store, genes = finished[0].store, download[1].set_index("symbol")
    genome = {c: decode(codes) for c, codes in layout.make_genome().items()}
    dense = [layout.dense(layout.make_track(name, seed, scale))
             for name, seed, scale in (("h3k27ac", 3, 2.0), ("dnase", 4, 1.0))]
    batch = store.batch(np.arange(len(store)))
    for i, gene_id in enumerate(store.genes["gene_id"]):
        chrom, tss, size = genes["chr"][gene_id], int(genes["tss"][gene_id]), layout.SIZES[genes["chr"][gene_id]]
        bases = range(tss - HALF, tss + HALF)  # on both strands: nothing is flipped
        assert decode(batch.codes[i].numpy()) == "".join(genome[chrom][p] if 0 <= p < size else "N" for p in bases)
        for t, track in enumerate(dense):
            expected = [track[chrom][p] if 0 <= p < size else 0 for p in bases]
            np.testing.assert_allclose(batch.signals[i, t], expected, rtol=1e-6)
        expected = np.log10(layout.contact(chrom, tss, HALF) + 1)
        np.testing.assert_allclose(batch.signals[i, 2], expected, rtol=1e-5, atol=1e-6)
        black = [chrom == "chr1" and (0 <= p < 83 or 901 <= p < 1013) for p in bases]
        assert (batch.keep[i].numpy() == 0).tolist() == black


def test_store__targets_and_covariates_are_the_published_ones(finished, download):
    store, (folder, genes) = finished[0].store, download
    table = pd.read_csv(folder / "promo_enhan_inter" / layout.EXPRESSION, index_col="ENSID").loc[store.genes["gene_id"]]
    np.testing.assert_allclose(store.targets[:, 0], np.log10(table["K562_CAGE_128*3_sum"] + 1), rtol=1e-5)
    listed = genes.set_index("symbol").loc[store.genes["gene_id"]]
    activity = np.sqrt(listed["H3K27ac.RPM.TSS1Kb"] * listed["DHS.RPM.TSS1Kb"])
    expected = np.column_stack([table[MRNA], activity])
    train = store.rows("train")
    expected = (expected - expected[train].mean(axis=0)) / expected[train].std(axis=0)
    np.testing.assert_allclose(store.covariates, expected, rtol=1e-3, atol=1e-4)


def test_store__the_other_cell_reads_its_own_files(root, tmp_path):
    layout.write(tmp_path, "GM12878")
    config = parse_config(small(root, tmp_path, "GM12878"))
    assert all(path.is_file() for path in input_paths(config).values())
    store = build_store(tmp_path / "store", config, read_inputs(config))
    assert store.target_names == ["GM12878"]
    assert store.batch([0, 41]).signals.shape == (2, 3, 2 * HALF)


# -- bad input -----------------------------------------------------------------------------------------------


def break_and_build(root, download, tmp_path, do, change=None):
    """Build the store of a copy of the download in which something was broken."""
    folder = tmp_path / "GeneExp"
    shutil.copytree(download[0], folder)
    do(folder / "promo_enhan_inter")
    raw = small(root, folder)
    if change is not None:
        change(raw)
    config = parse_config(raw, kind=RunConfig)
    return build_store(tmp_path / "store", config, read_inputs(config))


def edit_csv(name, change):
    def do(folder):
        table = pd.read_csv(folder / name)
        change(table).to_csv(folder / name, index=False)
    return do


def edit_hic(chrom, change):
    def do(folder):
        with h5py.File(folder / "HiC" / "K562" / f"hic_feat_{chrom}.h5", "a") as file:
            for key in change(file):
                data = change(file)[key]
                del file[key]
                if data is not None:
                    file[key] = data
    return do


def keys_of(file):
    return sorted(file, key=lambda key: int(key.rpartition("_")[2]))


def one_longer(file):
    key = keys_of(file)[2]
    return {key: np.ones(2 * layout.HALF + 4)}


def mostly_nan(file):
    return {key: np.full(2 * layout.HALF, np.nan) for key in keys_of(file)[1:]}


def other_build(folder):
    sizes = layout.SIZES | {"chr2": 4007}
    write_bigwig(folder / "DNase-seq" / "K562" / "ENCFF414OGC.bigWig", Track("dnase", {}), sizes)


@pytest.mark.parametrize(("do", "error", "says"), [
    pytest.param(edit_csv(layout.FOLDS, lambda t: t.assign(fold_11=t["fold_11"].replace("test", "train"))), InputError,
                 rf"{layout.FOLDS}: column 'fold_11' puts none of 42 genes into test", id="fold without genes"),
    pytest.param(edit_csv(layout.FOLDS, lambda t: t[t["fold_11"] != "test"].assign(
        fold_11=lambda u: ["test", *u["fold_11"][1:]], ENSID=lambda u: ["ENSG9", *u["ENSID"][1:]])), InputError,
        rf"{layout.FOLDS}, column 'fold_11': none of the 1 genes of the test fold \(first: ENSG9\) is among the 42",
        id="fold of other genes"),
    pytest.param(edit_csv(layout.FOLDS, lambda t: t.assign(fold_11=["tst", *t["fold_11"][1:]])), InputError,
                 "1 of 42 rows of folds .* have a fold_11 other than train, valid, test; first: row 0, gene "
                 "ENSG00000000000 has 'tst'", id="word that is no fold"),
    pytest.param(lambda folder: (folder / "HiC" / "K562" / "hic_feat_chr2.h5").unlink(), DataMissingError,
                 r"contacts expected at .*hic_feat_chr2\.h5, but nothing is there", id="no file of a chromosome"),
    pytest.param(edit_hic("chr3", lambda f: dict.fromkeys(f)), InputError,
                 r"contacts .*hic_feat_chr3\.h5 have no chromosome 'chr3', on which 5 genes lie", id="empty file"),
    pytest.param(edit_hic("chr3", lambda f: {k: None for k in keys_of(f)[1:3] if k in f}), InputError,
                 r"contacts .*hic_feat_chr3\.h5 lack . of 5 genes; first: ENSG0{9}\d\d as 'chr3_\d+'", id="gene lacks"),
    pytest.param(edit_hic("chrX", one_longer), InputError,
                 r"contacts 'chrX_\d+' in .*chrX\.h5 must have 262 bases, as 'chr1_29' in .*chr1\.h5 has; got shape "
                 r"\(266,\)", id="another window"),
    pytest.param(edit_hic("chr2", mostly_nan), InputError,
                 r"contacts .*chr2\.h5: 6 of 7 genes are NaN on more than half of their window; first: chr2_\d+",
                 id="mostly NaN"),
    pytest.param(edit_hic("chr1", lambda f: {keys_of(f)[0]: np.full(2 * layout.HALF, -1.0)}), InputError,
                 r"contacts 'chr1_29' in .*chr1\.h5: 262 of 262 values are negative or infinite; first: -1\.0 at base",
                 id="negative"),
    pytest.param(lambda folder: (folder / "HiC" / "K562" / "hic_feat_chr1.h5").write_bytes(b"no HDF5"), InputError,
                 r"contacts .*hic_feat_chr1\.h5 is truncated or no HDF5", id="no HDF5"),
    pytest.param(edit_csv(layout.EXPRESSION, lambda t: t.assign(CDSGC=[np.nan, *t["CDSGC"][1:]])), InputError,
                 rf"1 of 42 rows of gene features .*{layout.EXPRESSION} have no finite CDSGC; first: row 0, gene ENSG",
                 id="feature missing"),
    pytest.param(edit_csv(layout.EXPRESSION, lambda t: t.rename(columns={"CDSGC": "CDS_GC"})), InputError,
                 r"lacks 1 of 8 columns; first: 'CDSGC'; did you mean 'CDS_GC'", id="column missing"),
    pytest.param(other_build, InputError, "track DNase: 1 of 4 chromosomes have another length", id="another build"),
])
def test_build__bad_files_are_named_with_the_first_offender(root, download, tmp_path, do, error, says):
    with pytest.raises(error, match=says):
        break_and_build(root, download, tmp_path, do)
    assert not (tmp_path / "store").exists()


def test_build__a_window_wider_than_the_contacts(root, download, tmp_path):
    def wider(raw):
        raw["window"]["half_width"] = 132

    with pytest.raises(InputError, match=r"contacts 'chr1_29' in .*chr1\.h5 cover 262 bp, the window is 264 bp; lower "
                                         "window.half_width to 131"):
        break_and_build(root, download, tmp_path, lambda folder: None, wider)


def test_build__nan_of_some_genes_is_read_as_0(root, download, tmp_path):
    def some(file):
        return {keys_of(file)[1]: np.full(2 * layout.HALF, np.nan)}

    store = break_and_build(root, download, tmp_path, edit_hic("chr2", some))
    assert store.meta["contacts_missing"] == pytest.approx(1 / 42)
    signals = store.read_signals(store.rows("valid"))
    assert (signals[1, 2] == 0).all()
    assert (signals[2, 2] > 0).all()


def test_build__a_feature_that_the_genes_have_already(root, download, tmp_path):
    def twice(raw):
        raw["data"]["features"][1] = {"path": raw["data"]["genes"]["path"], "gene_id": "symbol",
                                      "columns": ["DHS.RPM.TSS1Kb"]}

    with pytest.raises(ConfigError, match=r"GeneList\.txt gives 'DHS\.RPM\.TSS1Kb', which the genes have already"):
        break_and_build(root, download, tmp_path, lambda folder: None, twice)


def test_build__genes_without_features(root, download, tmp_path):
    def elsewhere(raw):
        raw["data"]["features"][0]["path"] = "promo_enhan_inter/few.csv"

    def few(folder):
        pd.read_csv(folder / layout.EXPRESSION).iloc[3:].to_csv(folder / "few.csv", index=False)

    with pytest.raises(InputError, match=r"gene features .*few\.csv lack 3 of 42 genes; first: ENSG"):
        break_and_build(root, download, tmp_path, few, elsewhere)
