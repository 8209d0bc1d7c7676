import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciscribe.data.split import apply_guard, assign_folds, chromosome_folds, given_folds
from ciscribe.data.windows import gene_windows
from ciscribe.errors import ConfigError, InputError


def genes_at(*places):
    rows = [(chrom, tss, tss + 1, "+", f"g{i}", tss) for i, (chrom, tss) in enumerate(places)]
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "strand", "gene_id", "tss"])


GENES = genes_at(("chrI", 10), ("chrI", 500), ("chrII", 20), ("chrII", 700), ("chrII", 1300), ("chrX", 5))


def test_given_folds__genes_that_no_row_names_are_unused():
    genes = GENES.set_axis([17, 3, 5, 11, 2, 7])
    fold = given_folds(genes, {"g1": "test", "g0": "train", "g5": "valid", "g9": "train"}, "folds f.csv")
    assert fold.to_dict() == {17: "train", 3: "test", 5: "unused", 11: "unused", 2: "unused", 7: "valid"}
    assert fold.name == "fold"


def test_given_folds__a_fold_without_any_of_the_genes():
    with pytest.raises(InputError, match=r"folds f\.csv: none of the 1 genes of the test fold \(first: g9\) is among "
                                         r"the 6 genes with expression \(first: g0\); check the id version"):
        given_folds(GENES, {"g0": "train", "g5": "valid", "g9": "test"}, "folds f.csv")


def test_assign_folds__by_chromosome_keeps_the_index():
    genes = GENES.set_axis([17, 3, 5, 11, 2, 7])
    fold = assign_folds(genes, valid=["chrII"], test=["chrX"])
    assert fold.to_dict() == {17: "train", 3: "train", 5: "valid", 11: "valid", 2: "valid", 7: "test"}


def test_assign_folds__by_region_is_half_open_and_reads_separators():
    fold = assign_folds(GENES, valid=["chrII:0-700"], test=["chrII:700-1,300", "chrX"])
    assert fold.tolist() == ["train", "train", "valid", "test", "train", "test"]


def test_assign_folds__with_a_list_of_training_places_the_rest_is_unused():
    fold = assign_folds(GENES, valid=["chrX"], test=["chrI:0-100"], train=["chrII"])
    assert fold.tolist() == ["test", "unused", "train", "train", "train", "valid"]


@pytest.mark.parametrize(("places", "says"), [
    ({"valid": ["chrII"], "test": ["chr2"]}, r"fold test names 'chr2', but no gene lies on chromosome 'chr2'; "),
    ({"valid": ["chrIl"], "test": ["chrX"]}, r"did you mean 'chrI(I)?'\? options: chrI, chrII, chrX"),
    ({"valid": ["chrII"], "test": ["chrII:0-900"]},
     r"2 genes of 'chrII:0-900' are claimed by two folds; first: g2 \(already valid, now test\)"),
    ({"valid": ["chrII:2000-3000"], "test": ["chrX"]}, "the valid fold is empty: no gene of 6 falls in it"),
    ({"valid": ["chrI", "chrII"], "test": ["chrX"]}, "the train fold is empty.*chromosomes with genes: chrI, chrII"),
    ({"valid": ["chrII"], "test": ["chrX"], "train": []}, "the train fold is empty"),
])
def test_assign_folds__refuses(places, says):
    with pytest.raises(ConfigError, match=says):
        assign_folds(GENES, **places)


def gap(a, b):
    """Bases between two intervals of one chromosome; negative where they overlap."""
    return max(a["start"], b["start"]) - min(a["end"], b["end"])


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3000), st.sampled_from("+-"),
                          st.sampled_from(["train", "valid", "test", "unused"])), min_size=1, max_size=23),
       st.integers(1, 211), st.integers(0, 307), st.booleans())
def test_apply_guard__no_training_window_within_guard_bp_of_a_held_out_one(rows, half, guard, strand_aware):
    genes = genes_at(*((chrom, tss) for chrom, tss, _, _ in rows)).assign(strand=[strand for _, _, strand, _ in rows])
    before = pd.Series([fold for _, _, _, fold in rows], dtype=object)
    windows = gene_windows(genes, half, strand_aware)
    after = apply_guard(windows, before, guard)
    table = windows.assign(fold=after).to_dict("records")
    for a in table:
        for b in table:
            if a["chrom"] == b["chrom"] and (a["fold"], b["fold"]) in {("train", "valid"), ("train", "test"),
                                                                       ("valid", "test")}:
                assert gap(a, b) >= guard
    changed = np.flatnonzero(after != before)
    assert set(before.iloc[changed]) <= {"train", "valid"}
    assert set(after.iloc[changed]) <= {"guarded"}
    for i in changed:  # nobody is set aside without a reason
        holders = {"train": ("valid", "test"), "valid": ("test",)}[before.iloc[i]]
        assert any(b["chrom"] == table[i]["chrom"] and gap(table[i], b) < guard
                   for b, fold in zip(table, before, strict=True) if fold in holders)


def test_apply_guard__counts_to_the_base_and_negative_switches_it_off():
    windows = pd.DataFrame({"chrom": "a", "start": [0, 100, 213], "end": [100, 200, 313]})
    fold = pd.Series(["train", "test", "train"])
    assert apply_guard(windows, fold, 0).tolist() == ["train", "test", "train"]
    assert apply_guard(windows, fold, 1).tolist() == ["guarded", "test", "train"]
    assert apply_guard(windows, fold, 13).tolist() == ["guarded", "test", "train"]
    assert apply_guard(windows, fold, 14).tolist() == ["guarded", "test", "guarded"]
    overlapping = windows.assign(start=[1, 100, 213], end=[101, 200, 313])
    assert apply_guard(overlapping, fold, 0).tolist() == ["guarded", "test", "train"]
    assert apply_guard(overlapping, fold, -1).tolist() == fold.tolist()
    assert fold.tolist() == ["train", "test", "train"]


def test_apply_guard__whole_chromosomes_need_none():
    fold = assign_folds(GENES, valid=["chrII"], test=["chrX"])
    assert apply_guard(gene_windows(GENES, 2000), fold, 100_000).equals(fold)


def test_chromosome_folds__whole_chromosomes_evenly_and_always_the_same():
    genes = genes_at(*((c, i) for c, n in (("a", 13), ("b", 7), ("c", 5), ("d", 3), ("e", 2)) for i in range(n)))
    folds = chromosome_folds(genes, 2)
    assert sorted(c for fold in folds for c in fold) == list("abcde")
    counts = [genes["chrom"].isin(fold).sum() for fold in folds]
    assert max(counts) - min(counts) <= 2
    assert chromosome_folds(genes.sample(frac=1, random_state=0), 2) == folds
    with pytest.raises(ConfigError, match="7 folds need at least 7 chromosomes with genes; got 5"):
        chromosome_folds(genes, 7)
