"""Segments of genes as examples of a training: the promoter in the middle, signals and targets beside it."""

import numpy as np
import pytest
import torch

import published_layout as layout
from ciscribe.data.segments import SegmentStore
from ciscribe.data.windows import Examples, loader
from ciscribe.errors import ConfigError, InputError
from ciscribe.io.expression import read_expression
from ciscribe.io.genes import read_folds, read_gene_features
from ciscribe.io.segments import Segments
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.train.evaluate import predict_rows
from ciscribe.train.fit import FitSpec, fit

SLOTS, LENGTH, MIDDLE = layout.N_SEGMENTS, layout.LENGTH, layout.N_SEGMENTS // 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segments") / "GeneExp"
    layout.write(folder)
    return folder


@pytest.fixture(scope="module")
def parts(folder):
    """What a store is made of, read from the published files."""
    inter = folder / "promo_enhan_inter"
    expression = read_expression(inter / layout.EXPRESSION, gene_id="ENSID", transform="log10p1",
                                 columns={"K562": ["K562_CAGE_128*3_sum"]})
    activity = read_gene_features(inter / layout.ABC["K562"] / "GeneList.txt", [], gene_id="symbol", geometric_mean={
        "promoter_activity": ["H3K27ac.RPM.TSS1Kb", "DHS.RPM.TSS1Kb"]})
    mrna = read_gene_features(inter / layout.EXPRESSION, layout.MRNA, gene_id="ENSID")
    return (Segments(inter / layout.SEGMENTS["K562"]), expression,
            read_folds(inter / layout.FOLDS, "fold_11", gene_id="ENSID"), mrna.join(activity))


@pytest.fixture(scope="module")
def store(parts):
    return SegmentStore(*parts)


def test_batch__promoter_stands_in_the_middle(store, parts):
    segments, expression, _, covariates = parts
    rows = np.array([3, 29, 0, 11, 2])
    batch = store.batch(rows)
    assert batch.codes.shape == (5, SLOTS * LENGTH)
    assert batch.signals.shape == (5, 3, SLOTS)
    codes = segments.codes(rows)
    for i, row in enumerate(rows):
        slots = batch.codes[i].numpy().reshape(SLOTS, LENGTH)
        assert np.array_equal(slots[MIDDLE], codes[i, 0])
        others = [s for s in range(SLOTS) if s != MIDDLE]
        for slot, at in zip(others, range(1, SLOTS), strict=True):
            distance, activity, contact = segments.features(rows[i:i + 1])[0, :, at]
            far = distance >= 100_000
            assert np.array_equal(slots[slot], np.full(LENGTH, 4) if far else codes[i, at])
            expected = [0, 0, 0] if far else [distance / 1000, np.log10(contact + 1), activity]
            np.testing.assert_allclose(batch.signals[i, :, slot], expected, rtol=1e-5)
        assert (batch.signals[i, :, MIDDLE] == 0).all()
        gene = segments.gene_ids[row]
        assert batch.targets[i].item() == pytest.approx(expression.loc[gene, "K562"], rel=1e-5)
    assert (batch.keep == 1).all()
    assert batch.index.tolist() == rows.tolist()
    train = store.rows("train")
    table = covariates.loc[segments.gene_ids].to_numpy()
    expected = (table[rows] - table[train].mean(axis=0)) / table[train].std(axis=0)
    np.testing.assert_allclose(batch.covariates, expected, rtol=1e-3, atol=1e-4)


def test_store__has_the_folds_and_names_of_its_tables(store):
    assert [len(store.rows(f)) for f in ("train", "valid", "test")] == [30, 7, 5]
    assert store.target_names == ["K562"]
    assert store.track_names == ["distance_kb", "log10_contact", "activity"]
    assert store.covariate_names == [*layout.MRNA, "promoter_activity"]
    assert isinstance(store, Examples)
    assert "42 genes × 7 segments of 53 bp, 1 targets" in repr(store)


def test_store__a_far_candidate_is_a_free_slot(parts):
    near = SegmentStore(*parts, max_distance=3_500)
    batch = near.batch([3])  # candidates at 2, 3, 4, 5, 6 and 100 kb
    free = (batch.codes[0].reshape(SLOTS, LENGTH) == 4).all(dim=1)
    assert free.tolist() == [False, False, True, False, True, True, True]
    assert (batch.signals[0][:, free] == 0).all()


def test_cut__takes_away_what_reaches_beyond(store):
    whole = store.batch([3])  # candidates at 2, 3, 4, 5, 6 and 100 kb
    cut = store.cut(whole, 2 * 4_000 + LENGTH)
    slots = cut.codes[0].reshape(SLOTS, LENGTH)
    assert cut.keep[0, :6].tolist() == [1, 1, 1, 1, 0, 0]  # the last slot is free
    assert torch.equal(slots[:4], whole.codes[0].reshape(SLOTS, LENGTH)[:4])
    assert (slots[4:] == 4).all()
    assert (cut.signals[0, :, 4:] == 0).all()
    narrow = store.cut(whole, 21).codes[0].reshape(SLOTS, LENGTH)[MIDDLE]
    assert (narrow != 4).tolist() == [16 <= i < 37 for i in range(LENGTH)]
    assert not torch.equal(whole.codes, cut.codes)


def test_store__without_covariates_and_genes_without_a_fold_left_out(parts):
    segments, expression, fold, _ = parts
    some = {gene: word for gene, word in fold.items() if gene != segments.gene_ids[4]}
    store = SegmentStore(segments, expression, some)
    assert len(store) == 41
    assert segments.gene_ids[4] not in store.gene_ids
    assert store.batch([4, 5]).covariates.shape == (2, 0)
    assert np.array_equal(store.batch([4]).codes.reshape(SLOTS, LENGTH)[MIDDLE], segments.codes([5])[0, 0])


def test_fit__epinformer_trains_on_the_published_file(store):
    torch.manual_seed(0)
    model = registry.create("epinformer", n_targets=1, n_signals=3, n_covariates=9, length=LENGTH,
                            channels=(13, 11, 6), n_layers=2, n_heads=3, dropout=0.0)
    spec = FitSpec(steps=23, batch_size=7, learning_rate=3e-3, device="cpu", precision="fp32", n_threads=1)
    trained, log = fit(model, loader(store, "train", 7, shuffle=True, seed=3), loader(store, "valid", 5), spec,
                       seed=3, progress=False)
    assert len(log) == 5
    assert log["train_loss"].iloc[-1] < 0.7 * log["train_loss"].iloc[0]
    predicted = predict_rows(Oracle(trained, device="cpu"), store, store.rows("test"), batch_size=2)
    assert predicted.shape == (5, 1)
    assert np.isfinite(predicted).all()
    attention = trained.attention(torch.eye(5)[store.batch([2]).codes.long()][..., :4].mT, store.batch([2]).signals)
    assert attention.shape == (1, 2, SLOTS, SLOTS)


def test_how_to__its_program_runs_on_the_miniature(root, folder, monkeypatch, capsys):
    page = (root / "docs" / "howto" / "reproduce-published-table.md").read_text()
    program = page.split("EPInformer on its own file")[1].split("```python\n")[1].split("```")[0]
    small = {"n_covariates=9": f"n_covariates=9, length={LENGTH}, channels=(13, 11, 6), n_layers=2, n_heads=3",
             "epochs=100": "epochs=2, device='cpu'", "n_workers=4": "n_workers=0", "Oracle(model)":
             "Oracle(model, device='cpu')"}
    for theirs, ours in small.items():
        assert theirs in program
        program = program.replace(theirs, ours)
    monkeypatch.chdir(folder.parent)
    exec(compile(program, "how-to", "exec"), {})
    assert "'pearson'" in capsys.readouterr().out


def test_loader__same_for_any_number_of_workers(store):
    alone = [b.codes for b in loader(store, "valid", 3)]
    helped = [b.codes for b in loader(store, "valid", 3, n_workers=1)]
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


# -- bad input


def test_store__faults_are_named(parts):
    segments, expression, fold, covariates = parts
    genes = segments.gene_ids
    with pytest.raises(InputError, match=r"1 of 42 genes of .*\.h5 have no expression; first: ENSG00000000005"):
        SegmentStore(segments, expression.drop(index=genes[5]), fold, covariates)
    with pytest.raises(InputError, match=r"2 of 42 genes of .*\.h5 have no covariates; first: ENSG00000000007"):
        SegmentStore(segments, expression, fold, covariates.drop(index=[genes[7], genes[11]]))
    with pytest.raises(InputError, match=r"none of their 42 genes \(first: ENSG00000000000\) is in the test fold"):
        SegmentStore(segments, expression, {g: f for g, f in fold.items() if f != "test"}, covariates)
    with pytest.raises(ConfigError, match="segments are cut already and cannot shift; set max_shift to 0"):
        next(iter(loader(SegmentStore(*parts), "train", 3, max_shift=2)))


def test_store__an_even_number_of_slots(parts, monkeypatch):
    segments, *rest = parts
    monkeypatch.setattr(segments, "n_segments", 6)
    with pytest.raises(ConfigError, match="the promoter stands in the middle of an odd number of slots; got 6"):
        SegmentStore(segments, *rest)
