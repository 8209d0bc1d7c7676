import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciscribe.errors import InputError
from ciscribe.io.chroms import NameMap, reconcile


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("chr1", "1"),
        ("1", "chr1"),
        ("chrM", "MT"),
        ("MT", "chrM"),
        ("M", "MtDNA"),
        ("MtDNA", "chrM"),
        ("mitochondrion", "chrMT"),
        ("chrx", "chrX"),
        ("CHRX", "X"),
        ("chr_2", "chr2"),
        ("III", "chrIII"),
    ],
)
def test_reconcile__sees_through_prefix_case_and_mitochondrion(name, reference):
    assert reconcile([name], ["other", reference]).mapping == {name: reference}


def test_reconcile__exact_name_wins_and_no_two_names_share_a_target():
    names = reconcile(["1", "chr1", "Chr2", "chr2_random"], ["chr1", "chr2"])
    assert names.mapping == {"chr1": "chr1", "Chr2": "chr2"}
    assert names.unmatched == ("1", "chr2_random")


def test_reconcile__leaves_an_ambiguous_reference_alone():
    assert reconcile(["CHRX", "chr1"], ["chrX", "chrx", "chr1"]).unmatched == ("CHRX",)


def test_report__says_what_was_renamed_and_dropped():
    lines = reconcile(["1", "MT", "chr3", "KI2"], ["chr1", "chrM", "chr3"], "genes").report().splitlines()
    assert lines == [
        "genes: 3 of 4 chromosome names match the genome, 2 of them renamed (1 → chr1, MT → chrM)",
        "genes: 1 dropped, not in the genome (KI2)",
    ]
    assert (
        reconcile(["a"], ["a"]).report() == "file: 1 of 1 chromosome names match the genome, all as they are"
    )


@pytest.mark.parametrize(
    ("names", "reference", "guess"),
    [
        (["NC_000001.11", "NC_000002.12"], ["chr1", "chr2"], "NC_000001.11 → chr1, NC_000002.12 → chr2"),
        (["chrI", "chrII"], ["chr1", "chr2"], "chrI → chr1, chrII → chr2"),
        (["1", "4"], ["chrI", "chrIV"], "1 → chrI, 4 → chrIV"),
    ],
)
def test_reconcile__nothing_matches_names_both_sides_and_guesses(names, reference, guess):
    with pytest.raises(InputError, match="no chromosome name of the genes") as caught:
        reconcile(names, reference, "genes")
    assert guess in str(caught.value)
    assert names[0] in str(caught.value)
    assert reference[1] in str(caught.value)


def test_reconcile__no_names_is_an_empty_map():
    assert reconcile([], ["chr1"]) == NameMap({})


def test_rename__maps_the_column_and_drops_unmatched_rows_without_touching_its_argument():
    table = pd.DataFrame({"chrom": ["2", "un", "1"], "start": [3, 5, 7]}, index=[11, 13, 17])
    before = table.copy()
    renamed = reconcile(table["chrom"], ["chr1", "chr2"]).rename(table)
    pd.testing.assert_frame_equal(renamed, pd.DataFrame({"chrom": ["chr2", "chr1"], "start": [3, 7]}))
    pd.testing.assert_frame_equal(table, before)


@given(
    st.lists(st.sampled_from(["1", "chr1", "Chr1", "MT", "chrM", "x", "X", "chrX", "scaffold"]), min_size=1),
    st.sets(st.sampled_from(["1", "chr1", "M", "MtDNA", "chrX", "scaffold"]), min_size=1),
)
def test_reconcile__is_injective_and_loses_no_name(names, reference):
    try:
        result = reconcile(names, reference)
    except InputError:
        assert not set(names) & reference
        return
    assert len(set(result.mapping.values())) == len(result.mapping)
    assert set(result.mapping) | set(result.unmatched) == set(names)
    assert set(result.mapping.values()) <= reference
    assert all(result.mapping[name] == name for name in set(names) & reference)
