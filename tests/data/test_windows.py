import multiprocessing
import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import small_world as small
from ciscribe.data.windows import RESOLUTIONS, WindowSpec, WindowStore, gene_windows, loader
from ciscribe.errors import CheckpointError, ConfigError, DataMissingError, InputError, SchemaError
from ciscribe.io.gene_contacts import GeneContacts
from ciscribe.io.genome import Genome
from ciscribe.io.tracks import Runs, Track
from reference import windows as twin

TRACKS = [small.make_track("atac", 3), small.make_track("mark", 4)]
DENSE = [small.dense(t) for t in TRACKS]
GENES = small.make_genes()
ROWS = GENES.to_dict("records")
SOME = [0, 18, 1, 19, 24, 25, 26, 30]  # ends of every chromosome, both strands
SHIFT = np.array([0, 5, -7, 3, -2, 11, -13, 1])


def changed(track, chrom, factor):
    """The same track with other values on one chromosome."""
    runs = dict(track.runs)
    runs[chrom] = runs[chrom]._replace(value=runs[chrom].value * np.float32(factor))
    return Track(track.name, runs, chrom_sizes=track.chrom_sizes)


# -- equal to the slow twin ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strand_aware", [True, False])
@pytest.mark.parametrize(("resolution", "half"), [(1, 37), (10, 65), (16, 88), (32, 112), (128, 192)])
def test_batch__equals_the_per_base_twin(tmp_path, resolution, half, strand_aware):
    spec = WindowSpec(half, resolution, strand_aware=strand_aware, contact=True, contact_d0=23.0, contact_gamma=0.7,
                      contact_scale=31.0)
    store = small.build(tmp_path, spec, tracks=TRACKS, blacklist=small.BLACKLIST)
    black = {c: [0.0] * n for c, n in small.SIZES.items()}
    for chrom, start, end in small.BLACKLIST.itertuples(index=False):
        black[chrom][start:end] = [1.0] * (end - start)
    genome = small.letters()
    for shift in (None, SHIFT):
        batch = store.batch(SOME, shift)
        assert batch.codes.dtype == torch.uint8
        for i, row in enumerate(SOME):
            gene = ROWS[row]
            how = {"strand_aware": strand_aware, "shift": 0 if shift is None else int(shift[i])}
            assert batch.codes[i].tolist() == twin.window_codes(genome, gene, half, **how)
            expected = [np.log1p(twin.window_signal(d, gene, half, resolution, **how)) for d in DENSE]
            expected.append(twin.window_contact(gene, half, resolution, d0=23.0, gamma=0.7, scale=31.0, **how))
            np.testing.assert_allclose(batch.signals[i].numpy(), expected, rtol=1e-5, atol=1e-6)
            assert batch.keep[i].tolist() == twin.window_keep(black, gene, half, resolution, **how)
        assert batch.index.tolist() == SOME
        assert 0 < batch.keep.mean() < 1


@given(st.integers(0, len(ROWS) - 1), st.integers(-4000, 4000), st.integers(1, 23), st.sampled_from(RESOLUTIONS[:5]))
def test_read__any_gene_shift_and_size_equals_the_twin(store, row, shift, n, resolution):
    half = n * resolution
    codes = store.read_codes([row], np.array([shift]), half_width=half)
    assert codes[0].tolist() == twin.window_codes(small.letters(), ROWS[row], half, shift=shift)
    signals = store.read_signals([row], np.array([shift]), half_width=half, resolution=resolution, raw=True)
    expected = [twin.window_signal(d, ROWS[row], half, resolution, shift=shift) for d in DENSE]
    np.testing.assert_allclose(signals[0], expected, rtol=1e-6, atol=1e-6)


REACH = 131  # bp around the TSS that the contact files cover


@pytest.fixture(scope="module")
def contacts(tmp_path_factory):
    """Contact files in the published layout, and what they hold as gene → base → contact."""
    folder, held, rng = tmp_path_factory.mktemp("contacts"), {}, np.random.default_rng(11)
    for chrom, own in GENES.groupby("chrom"):
        with h5py.File(folder / f"{chrom}.h5", "w") as file:
            for gene in own.to_dict("records"):
                values = np.repeat(rng.integers(0, 8, 14) / 8, 19)[:2 * REACH]
                file[f"{chrom}_{gene['tss']}"] = values
                held[gene["gene_id"]] = dict(enumerate(values.tolist(), start=gene["tss"] - REACH))
    return GeneContacts(f"{folder}/{{chrom}}.h5", name="hic"), held


def build_with(folder, spec, contacts):
    small.build(folder)
    return WindowStore.build(folder / "store", Genome(folder / "genome.fa"), TRACKS, GENES,
                             small.make_expression(GENES, TRACKS[0]), spec, contacts=contacts)


@pytest.mark.parametrize("strand_aware", [True, False])
@pytest.mark.parametrize(("resolution", "half"), [(1, 37), (16, 88)])
def test_batch__contacts_equal_the_per_base_twin(tmp_path, contacts, resolution, half, strand_aware):
    store = build_with(tmp_path, WindowSpec(half, resolution, strand_aware=strand_aware), contacts[0])
    assert store.track_names == ["atac", "mark", "hic"]
    for shift in (None, SHIFT):
        signals = store.batch(SOME, shift).signals
        assert signals.shape == (8, 3, 2 * half // resolution)
        for i, row in enumerate(SOME):
            how = {"strand_aware": strand_aware, "shift": 0 if shift is None else int(shift[i])}
            expected = twin.window_gene_contact(contacts[1], ROWS[row], half, resolution, **how)
            np.testing.assert_allclose(signals[i, 2], expected, rtol=1e-5, atol=1e-6)


def test_read_signals__contacts_at_another_width_and_beyond_their_file(tmp_path, contacts):
    store = build_with(tmp_path, WindowSpec(112, 16), contacts[0])
    found = store.read_signals([5, 24], half_width=160, resolution=32)
    for i, row in enumerate((5, 24)):
        expected = twin.window_gene_contact(contacts[1], ROWS[row], 160, 32)
        np.testing.assert_allclose(found[i, 2], expected, rtol=1e-5, atol=1e-6)
    assert store.read_signals([5], raw=True).shape[1] == 2
    again = pickle.loads(pickle.dumps(store))
    assert torch.equal(again.batch(SOME).signals, store.batch(SOME).signals)
    assert store._tables["contact_value"].nbytes < 31 * 15 * 4  # runs, not bases


def test_build__contacts_measured_and_by_distance(tmp_path, contacts):
    with pytest.raises(ConfigError, match=r"either measured .* or made from the distance"):
        build_with(tmp_path, WindowSpec(112, 16, contact=True), contacts[0])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small.build(tmp_path_factory.mktemp("windows"), tracks=TRACKS, blacklist=small.BLACKLIST)


def test_batch__row_order_is_kept_and_rows_do_not_depend_on_their_neighbours(store):
    rows = [30, 2, 19, 2, 7]
    together = store.batch(rows)
    for i, row in enumerate(rows):
        alone = store.batch([row])
        assert all(torch.equal(a[i], b[0]) for a, b in zip(together, alone, strict=True))


def test_gene_windows__tss_has_the_same_place_on_both_strands(store):
    genome = small.letters()
    for row, gene in enumerate(ROWS):
        letter = genome[gene["chrom"]][gene["tss"]]
        letter = twin.PAIR[letter] if gene["strand"] == "-" else letter
        assert "ACGTN"[store.read_codes([row])[0, store.spec.half_width]] == letter
    windows = gene_windows(GENES, 37)
    assert (windows["end"] - windows["start"] == 74).all()
    assert windows["gene_id"].tolist() == GENES["gene_id"].tolist()
    start, flip = store.starts(np.array(SOME), 37)
    assert start.tolist() == windows["start"].iloc[SOME].tolist()
    assert flip.tolist() == [GENES["strand"][i] == "-" for i in SOME]


def test_store__keeps_targets_in_the_order_of_its_genes(tmp_path):
    expression = small.make_expression(GENES, TRACKS[0]).sample(frac=1, random_state=0)
    store = small.build(tmp_path, expression=expression)
    assert store.target_names == list(small.CELLS)
    np.testing.assert_allclose(store.targets, expression.loc[GENES["gene_id"]].to_numpy(np.float32))
    assert store.rows("train").tolist() == list(range(19))
    assert len(store) == 31
    assert "31 genes × 224 bp, 2 tracks at 16 bp, 3 targets" in repr(store)


def test_store__without_tracks_or_blacklist(tmp_path):
    batch = small.build(tmp_path, tracks=[]).batch([3, 5])
    assert batch.signals.shape == (2, 0, 14)
    assert batch.covariates.shape == (2, 0)
    assert bool((batch.keep == 1).all())


# -- what is fitted, is fitted on training genes -------------------------------------------------------------


def test_transform__quantile_is_the_rank_among_training_bins(tmp_path):
    store = small.build(tmp_path, WindowSpec(112, 16, transform="quantile"), tracks=TRACKS)
    raw = store.read_signals(np.arange(len(store)), raw=True)
    ranks = store.read_signals(np.arange(len(store)))
    assert ranks.min() >= 0
    assert ranks.max() <= 1
    for t in range(2):
        train = np.sort(raw[:19, t].ravel())
        expected = np.searchsorted(train, raw[:, t], side="left") / (len(train) - 1)
        np.testing.assert_allclose(ranks[:, t], np.minimum(expected, 1), atol=0.01)
        assert (ranks[:, t][raw[:, t] == 0] == 0).all()
        order = np.argsort(raw[:, t].ravel(), kind="stable")
        assert (np.diff(ranks[:, t].ravel()[order]) >= 0).all()


@pytest.mark.parametrize("chrom", ["chr2", "chr3"])
def test_build__held_out_signals_change_nothing_that_is_fitted(tmp_path, chrom):
    spec = WindowSpec(112, 16, transform="quantile", context_half_width=192, context_resolution=128)
    other = GENES.assign(gc=np.where(GENES["chrom"] == chrom, 1000.0, GENES["gc"]))
    a = small.build(tmp_path / "a", spec, tracks=TRACKS, covariates=["gc"])
    b = small.build(tmp_path / "b", spec, tracks=[changed(t, chrom, 17) for t in TRACKS], genes=other,
                    expression=small.make_expression(GENES, TRACKS[0]), covariates=["gc"])
    c = small.build(tmp_path / "c", spec, tracks=[changed(t, "chr1", 17) for t in TRACKS])
    assert np.array_equal(a._tables["quantiles"], b._tables["quantiles"])
    same = GENES["chrom"].to_numpy() != chrom
    assert np.array_equal(a.covariates[same], b.covariates[same])
    assert not np.allclose(a.covariates[~same], b.covariates[~same])
    assert torch.equal(a.batch(np.flatnonzero(same)).signals, b.batch(np.flatnonzero(same)).signals)
    assert not np.array_equal(a._tables["quantiles"], c._tables["quantiles"])  # the test can see a change


def test_covariates__are_standardized_columns_and_the_coarse_surroundings(tmp_path):
    spec = WindowSpec(112, 16, context_half_width=192, context_resolution=128)
    store = small.build(tmp_path, spec, tracks=TRACKS, covariates=["gc"])
    raw = [[gene["gc"], *(np.log1p(v) for d in DENSE for v in twin.window_signal(d, gene, 192, 128))] for gene in ROWS]
    raw = np.array(raw)
    expected = (raw - raw[:19].mean(axis=0)) / raw[:19].std(axis=0)
    np.testing.assert_allclose(store.covariates, expected, rtol=1e-4, atol=1e-5)
    assert store.covariate_names == ["gc", "atac@-192", "atac@-64", "atac@+64", "mark@-192", "mark@-64", "mark@+64"]
    assert store.batch([4]).covariates.shape == (1, 7)


def test_transform__log1p_reads_negative_signals_as_zero_and_none_leaves_them(tmp_path):
    runs = {c: Runs(np.array([0], np.int32), np.array([n], np.int32), np.array([-2], np.float32))
            for c, n in small.SIZES.items()}
    tracks = [Track("minus", runs)]
    assert float(small.build(tmp_path / "a", tracks=tracks).batch([5]).signals.abs().max()) == 0
    plain = small.build(tmp_path / "b", WindowSpec(112, 16, transform="none"), tracks=tracks)
    assert float(plain.batch([5]).signals.max()) == -2


# -- the same batches whoever reads them ---------------------------------------------------------------------


def epoch(store, n_workers, seed=3, number=0):
    batches = loader(store, "train", 5, shuffle=True, max_shift=7, seed=seed, n_workers=n_workers)
    batches.sampler.set_epoch(number)
    return list(batches)


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for p, q in zip(a, b, strict=True)
                                    for x, y in zip(p, q, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_loader__batches_are_identical_with_0_1_and_4_workers(store):
    here = epoch(store, 0)
    assert [len(b.index) for b in here] == [5, 5, 5, 4]
    assert sorted(torch.cat([b.index for b in here]).tolist()) == store.rows("train").tolist()
    assert same(here, epoch(store, 1))
    assert same(here, epoch(store, 4))


def test_loader__order_and_shifts_follow_seed_and_epoch_alone(store):
    first = epoch(store, 0)
    assert same(first, epoch(store, 0))
    assert not same(first, epoch(store, 0, number=1))
    assert not same(first, epoch(store, 0, seed=4))
    rows = torch.cat([b.index for b in first])
    shifted = torch.cat([b.codes for b in first])
    moved = [not torch.equal(c, store.batch([int(r)]).codes[0]) for r, c in zip(rows, shifted, strict=True)]
    assert sum(moved) > len(moved) / 2


def test_loader__without_shuffle_keeps_the_order_and_does_not_shift(store):
    rows = torch.cat([b.index for b in loader(store, [7, 3, 5, 2], 3)])
    assert rows.tolist() == [7, 3, 5, 2]
    assert torch.equal(next(iter(loader(store, [7, 3], 2))).codes, store.batch([7, 3]).codes)
    with pytest.raises(ConfigError, match="one of train, valid, test; got 'tset'"):
        loader(store, "tset", 3)


def test_store__pickle_carries_no_arrays_and_reads_the_same(store):
    text = pickle.dumps(store)
    assert len(text) < 20_000
    again = pickle.loads(text)
    assert all(torch.equal(a, b) for a, b in zip(store.batch(SOME, SHIFT), again.batch(SOME, SHIFT), strict=True))


def _codes_of(store, rows, queue):
    queue.put(store.batch(rows).codes.numpy())


@pytest.mark.slow
def test_store__a_spawned_process_reads_the_same(store):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_codes_of, args=(store, SOME, queue))
    process.start()
    assert np.array_equal(queue.get(timeout=120), store.batch(SOME).codes.numpy())
    process.join()


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arguments", "says"), [
    ({"half_width": 100, "resolution": 7}, "resolution is one of 1, 4, 8, 10, 16, 32"),
    ({"half_width": 100, "resolution": 16}, "2 × half_width = 200 bp must be a positive multiple of the resolution 16"),
    ({"half_width": 0}, "must be a positive multiple"),
    ({"half_width": 64, "context_half_width": 1000}, "must be a multiple of its bins of 1024 bp"),
])
def test_window_spec__refuses(arguments, says):
    with pytest.raises(ConfigError, match=says):
        WindowSpec(**arguments)


@pytest.mark.parametrize(("column", "row", "value", "says"), [
    ("tss", 18, 6007, "1 of 31 genes have a TSS off the end of their chromosome; first: row 18 .*chr1g18"),
    ("end", 18, 6100, "1 of 31 genes run off the end of their chromosome; first: row 18 chr1:.*-6100 chr1g18"),
    ("gene_id", 4, "chr1g3", "1 of 31 genes repeat a gene_id; first: row 4 .*chr1g3"),
    ("chrom", 2, "chr9", "lie on chromosomes that the genome lacks"),
])
def test_build__broken_genes_are_named_and_no_folder_is_left(tmp_path, column, row, value, says):
    genes = GENES.copy()
    genes.loc[row, column] = value
    with pytest.raises(SchemaError, match=says):
        small.build(tmp_path, genes=genes, expression=small.make_expression(GENES, TRACKS[0]))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("value", "says"), [
    (np.nan, "1 of 93 expression values are missing or infinite; first: gene chr1g2, column blood"),
    (-1.0, "1 of 93 expression values are negative; first: gene chr1g2, column blood = -1"),
])
def test_build__broken_expression_is_named(tmp_path, value, says):
    expression = small.make_expression(GENES, TRACKS[0])
    expression.loc["chr1g2", "blood"] = value
    with pytest.raises(SchemaError, match=says):
        small.build(tmp_path, expression=expression)


def test_build__track_of_another_build(tmp_path):
    longer = small.SIZES | {"chr2": 4007}
    with pytest.raises(InputError, match="chr2 has 4,007 bp in the track, 4,001 in the genome: another build"):
        small.build(tmp_path, tracks=[Track("old", {}, chrom_sizes=longer)])


def test_build__missing_covariate(tmp_path):
    genes = GENES.copy()
    genes.loc[3, "gc"] = np.nan
    with pytest.raises(SchemaError, match=r"1 genes have a missing covariate \(gc\); fill it or leave it out"):
        small.build(tmp_path, genes=genes, expression=small.make_expression(GENES, TRACKS[0]), covariates=["gc"])


def test_build__failure_keeps_the_store_that_was_there(tmp_path):
    before = small.build(tmp_path).batch(SOME)
    with pytest.raises(SchemaError):
        small.build(tmp_path, expression=small.make_expression(GENES, TRACKS[0]) - 100)
    after = WindowStore(tmp_path / "store").batch(SOME)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_store__folder_that_is_none_or_of_another_version(tmp_path):
    with pytest.raises(DataMissingError, match=r"is not a window store .* ciscribe data build CONFIG"):
        WindowStore(tmp_path)
    small.build(tmp_path)
    meta = tmp_path / "store" / "meta.json"
    meta.write_text(meta.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match="store format 99, this ciscribe reads 1; build it again"):
        WindowStore(tmp_path / "store")


def test_read__windows_do_not_change_the_store(store):
    before = {k: np.array(v) for k, v in store._tables.items()}
    batch = store.batch(SOME, SHIFT)
    batch.codes[:] = 4
    batch.signals[:] = 9
    batch.targets[:] = 9
    assert all(np.array_equal(before[k], v) for k, v in store._tables.items())
    assert not (store.targets == 9).any()
    assert isinstance(store.windows(), pd.DataFrame)


@pytest.mark.parametrize("transform", ["log1p", "quantile"])
def test_refold__is_a_store_built_with_these_folds(tmp_path, transform):
    spec = WindowSpec(112, 16, transform=transform, context_half_width=256, context_resolution=128)
    genes = small.make_genes()
    other = genes["chrom"].map({"chr1": "test", "chr2": "train", "chr3": "valid"})
    store = small.build(tmp_path / "a", spec, covariates=["gc"])
    expected = small.build(tmp_path / "b", spec, covariates=["gc"], genes=genes.assign(fold=other))
    got = store.refold(other.to_numpy())
    rows = np.arange(len(store))
    assert got.rows("valid").tolist() == expected.rows("valid").tolist()
    assert np.allclose(got.covariates, expected.covariates, atol=1e-4)
    assert np.allclose(got.read_signals(rows), expected.read_signals(rows), atol=1e-6)
    assert store.rows("train").tolist() == np.flatnonzero(genes["fold"] == "train").tolist()  # as it was
    again = pickle.loads(pickle.dumps(got))  # as a reading process gets it
    assert np.allclose(again.read_signals(rows), expected.read_signals(rows), atol=1e-6)


def test_refold__says_what_does_not_fit(tmp_path):
    store = small.build(tmp_path)
    with pytest.raises(SchemaError, match="one a gene"):
        store.refold(["train"])
    with pytest.raises(SchemaError, match="none of 31 genes to train on"):
        store.refold(["test"] * len(store))
