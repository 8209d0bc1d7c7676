"""Alleles against a genome, and the sequences that carry them against plain editing of strings."""

import numpy as np
import pandas as pd
import pytest

from ciscribe.errors import SchemaError
from ciscribe.io.genome import MemoryGenome
from ciscribe.sequence import decode, encode
from ciscribe.variants import alleles
from ciscribe.variants.alleles import allele_windows, check_reference, fetch_windows, haplotype_window
from reference import alleles as twin

SIZES = {"chr2": 613, "chr11": 1009}


def letters_of(rng, n):
    return "".join(rng.choice(list("ACGT"), n))


LETTERS = {name: letters_of(np.random.default_rng(i), size) for i, (name, size) in enumerate(SIZES.items())}
LETTERS["chr2"] = LETTERS["chr2"][:300] + "NNN" + LETTERS["chr2"][303:]
GENOME = MemoryGenome({name: encode(letters) for name, letters in LETTERS.items()})


def random_variants(rng, n, longest=23):
    """Substitutions, insertions, deletions and replacements of any length, near the ends of a contig as well."""
    rows = []
    while len(rows) < n:
        chrom = str(rng.choice(list(SIZES)))
        width = int(rng.choice([1, 1, 1, 2, 5, longest]))
        pos = int(rng.choice([rng.integers(0, SIZES[chrom] - width), 0, SIZES[chrom] - width]))
        ref = LETTERS[chrom][pos:pos + width]
        alt = letters_of(rng, int(rng.choice([1, 1, width, width + 1, longest])))
        if alt != ref:
            rows.append((chrom, pos, ref, alt))
    return pd.DataFrame(rows, columns=["chrom", "pos", "ref", "alt"])


def table(*rows):
    return pd.DataFrame(rows, columns=["chrom", "pos", "ref", "alt"])


@pytest.mark.parametrize("anchor", ["left", "right", "center"])
def test_allele_windows__are_those_of_edited_strings(anchor):
    rng = np.random.default_rng(5)
    for length in (7, 101, 250):
        variants = random_variants(rng, 350)
        start = None if length == 101 else variants["pos"].to_numpy() - rng.integers(-3, length, len(variants))
        made = allele_windows(GENOME, variants, length, anchor=anchor, start=start)
        for i, (chrom, pos, ref, alt) in enumerate(variants.itertuples(index=False)):
            expected = twin.windows(LETTERS[chrom], pos, ref, alt, length, anchor, made.start[i])
            assert (decode(made.ref[i]), decode(made.alt[i])) == expected, (chrom, pos, ref, alt, length)


@pytest.mark.parametrize(("length", "middle"), [(101, 50), (250, 125)])
def test_allele_windows__hold_the_variant_in_their_middle(length, middle):
    made = allele_windows(GENOME, table(("chr11", 500, LETTERS["chr11"][500], "A" * 3)), length)
    assert made.start[0] == 500 - middle
    assert decode(made.ref[0])[middle] == LETTERS["chr11"][500]
    assert decode(made.alt[0])[middle:middle + 3] == "AAA"


def test_allele_windows__is_the_haplotype_of_one_variant():
    variants = random_variants(np.random.default_rng(3), 97)
    made = allele_windows(GENOME, variants, 61, anchor="left")
    for i in range(len(variants)):
        chrom, pos, start = variants["chrom"][i], int(variants["pos"][i]), int(made.start[i])
        if start <= pos - 1:  # a base of the left flank keeps its place
            alone = haplotype_window(GENOME, variants.iloc[i:i + 1], chrom, start, start + 61, center=pos - 1)
            assert decode(alone.codes) == decode(made.alt[i])


def test_fetch_windows__in_any_order_off_the_ends_and_far_apart(monkeypatch):
    rng = np.random.default_rng(0)
    chrom = rng.choice(list(SIZES), 211)
    start = rng.integers(-20, 1015, 211)
    expected = [twin.bases(LETTERS[c], s, s + 13) for c, s in zip(chrom, start, strict=True)]
    for gap, span in ((1 << 14, 1 << 22), (0, 1 << 22), (50, 29), (1, 1)):
        monkeypatch.setattr(alleles, "_GAP", gap)
        monkeypatch.setattr(alleles, "_SPAN", span)
        assert [decode(c) for c in fetch_windows(GENOME, chrom, start, 13)] == expected
    assert fetch_windows(GENOME, [], np.zeros(0, np.int64), 5).shape == (0, 5)


def test_haplotype__is_that_of_an_edited_string_and_says_where_bases_went():
    rng = np.random.default_rng(7)
    letters = LETTERS["chr11"]
    for _ in range(60):
        start, end = 200, 300
        variants, at = [], start + 1
        while at < end - 12:
            width = int(rng.choice([1, 1, 2, 7]))
            alt = letters_of(rng, int(rng.choice([1, 2, 5])))
            if alt != letters[at:at + width]:
                variants.append((at, letters[at:at + width], alt))
            at += width + int(rng.integers(1, 30))
        given = table(*(("chr11", *v) for v in variants), ("chr2", 250, LETTERS["chr2"][250], "AT"))
        given = given.sample(frac=1, random_state=0)
        whole, moved = twin.haplotype(letters, variants)
        codes, position = haplotype_window(GENOME, given, "chr11", start, end)
        first = moved[start]
        assert decode(codes) == whole[first:moved[end]]
        paired = [moved[i] - first if i in moved else -1 for i in range(start, end)]
        for got, base, i in zip(position, paired, range(start, end), strict=True):
            if got != base:  # bases that two alleles begin with are the same ones, wherever the twin pairs them
                assert got < 0 or decode(codes)[got] == letters[i]
        center = 250
        if center in moved:
            same = haplotype_window(GENOME, given, "chr11", start, end, center=center)
            low = moved[center] - (center - start)
            assert decode(same.codes) == whole[low:low + end - start]
            assert same.position[center - start] == center - start
            stays = same.position >= 0
            unchanged = np.array([not any(p <= i < p + len(r) for p, r, _ in variants) for i in range(start, end)])
            for i in np.flatnonzero(stays & unchanged):
                assert decode(same.codes)[same.position[i]] == letters[start + i]


def test_haplotype__map_of_an_insertion_and_a_deletion():
    letters = "ACGTACGTACGTACGTACGT"
    genome = MemoryGenome({"c": encode(letters)})
    variants = table(("c", 4, "A", "ATT"), ("c", 9, "CGT", "C"), ("c", 13, "C", "G"))
    codes, position = haplotype_window(genome, variants, "c", 2, 16)
    assert decode(codes) == "GTATTCGTACAGGT"
    assert position.tolist() == [0, 1, 2, 5, 6, 7, 8, 9, -1, -1, 10, 11, 12, 13]
    codes, position = haplotype_window(genome, variants, "c", 2, 16, center=9)
    assert decode(codes) == "ATTCGTACAGGTAC"  # two bases come in on the right, two leave on the left
    assert position.tolist() == [-1, -1, 0, 3, 4, 5, 6, 7, -1, -1, 8, 9, 10, 11]
    # where the base in the center is deleted, the next one takes its place
    codes, position = haplotype_window(genome, variants, "c", 2, 16, center=10)
    assert position[12 - 2] == 10 - 2
    assert decode(haplotype_window(genome, variants, "c", 18, 23).codes) == "GTNNN"


def test_haplotype__a_deletion_and_its_anchor_base_do_not_collide():
    genome = MemoryGenome({"c": encode("ACGTACGTAC")})
    codes, _ = haplotype_window(genome, table(("c", 4, "ACG", "A"), ("c", 4, "A", "T")), "c", 0, 10)
    assert decode(codes) == "ACGTTTAC"


@pytest.mark.parametrize(("rows", "fault"), [
    ([("c", 4, "ACG", "A"), ("c", 6, "G", "T")], r"same bases: c:4 ACG>A and c:6 G>T"),
    ([("c", 4, "A", "G"), ("c", 4, "A", "T")], r"same bases: c:4 A>G and c:4 A>T; .*phased"),
    ([("c", 4, "A", "AG"), ("c", 4, "A", "AT")], r"same bases"),
    ([("c", 4, "G", "T")], r"c:4 G>T is not what the genome has"),
    ([("c", 8, "AC", "A")], r"c:8 AC>A lies across the border of c:1-9"),
])
def test_haplotype__refuses(rows, fault):
    with pytest.raises(SchemaError, match=fault):
        haplotype_window(MemoryGenome({"c": encode("ACGTACGTACGT")}), table(*rows), "c", 1, 9)


def test_haplotype__needs_a_stretch_and_a_center_in_it():
    with pytest.raises(SchemaError, match="center 300"):
        haplotype_window(GENOME, table(), "chr2", 5, 20, center=300)
    with pytest.raises(SchemaError, match="start < end"):
        haplotype_window(GENOME, table(), "chr2", 20, 20)


def test_check_reference__passes_what_fits_and_changes_nothing():
    variants = random_variants(np.random.default_rng(1), 101).assign(name="x", label=range(101))
    kept = variants.copy()
    checked = check_reference(variants, GENOME)
    pd.testing.assert_frame_equal(checked.variants, variants)
    pd.testing.assert_frame_equal(variants, kept)
    assert checked.tally == {"variants": 101, "kept": 101, "flipped": 0, "unknown_contig": 0, "off_end": 0,
                             "mismatch": 0}
    assert check_reference(variants.iloc[:0], GENOME).tally["variants"] == 0


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def faulty():
    base = LETTERS["chr11"][40]
    return table(("chr11", 40, base, other(base)), ("11", 40, base, other(base)), ("chr2", 612, "AC", "A"),
                 ("chr11", 40, other(base), base), ("chr11", 40, other(base), other(other(base))),
                 ("chr2", 301, "N", "A"))


def test_check_reference__flips_and_drops_with_counts():
    variants = faulty()
    dropped = check_reference(variants, GENOME, mismatch="drop")
    assert dropped.tally == {"variants": 6, "kept": 2, "flipped": 0, "unknown_contig": 1, "off_end": 1, "mismatch": 2}
    pd.testing.assert_frame_equal(dropped.variants, variants.iloc[[0, 5]].reset_index(drop=True))
    flipped = check_reference(variants.iloc[[0, 3, 5]], GENOME, mismatch="flip")
    assert flipped.variants["flipped"].tolist() == [False, True, False]
    assert flipped.tally["flipped"] == 1
    assert (flipped.variants.loc[1, ["ref", "alt"]] == flipped.variants.loc[0, ["ref", "alt"]]).all()


@pytest.mark.parametrize(("rows", "mismatch", "fault"), [
    ([0, 1, 2, 3, 4], "error", r"of 5 variants 1 lie on contigs .*, 1 run beyond the end .*, 2 have a REF .*; first: "
                               r"row 1 11:40 .* '11' is called 'chr11' there"),
    ([0, 3], "error", r"first: row 1 chr11:40 \(0-based\) .*, where the genome has [ACGT]; allow flips .*'flip'"),
    ([2], "flip", r"on a contig of 613 bp"),
    ([3, 4], "flip", r"of 2 variants 1 have a REF that is not what the genome has; first: row 1 "),
    ([4] * 21, "error", r"another genome build"),
    ([0], "maybe", r"'error', 'flip' or 'drop'; got 'maybe'"),
])
def test_check_reference__says_what_is_wrong(rows, mismatch, fault):
    with pytest.raises(SchemaError, match=fault):
        check_reference(faulty().iloc[rows], GENOME, mismatch=mismatch)


def test_check_reference__lists_the_nearest_contig():
    with pytest.raises(SchemaError, match=r"'chr12': did you mean 'chr2'|'chr12': did you mean 'chr11'"):
        check_reference(table(("chr12", 1, "A", "C")), GENOME)


def test_allele_windows__refuse():
    with pytest.raises(SchemaError, match="'left', 'right' or 'center'; got 'middle'"):
        allele_windows(GENOME, table(), 5, anchor="middle")
    with pytest.raises(SchemaError, match="length=0"):
        allele_windows(GENOME, table(), 0)
