"""Alleles and the sequences that carry them: one place for what a substitution, an indel or a haplotype does to DNA.

Variants are tables ``chrom, pos, ref, alt`` with `pos` 0-based; `ref` stands at ``pos`` to ``pos + len(ref)``.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, Shaped, UInt8
from numpy import ndarray

from ciscribe.errors import SchemaError, nearest
from ciscribe.schema import check_variants
from ciscribe.sequence import N, Reference, encode

_GAP = 1 << 14  # bp between windows up to which one longer read of the genome is cheaper than two
_SPAN = 1 << 22  # bp that are read at once, so that memory stays flat
_FAULTS = {"unknown_contig": "lie on contigs that the genome lacks", "off_end": "run beyond the end of their contig",
           "mismatch": "have a REF that is not what the genome has"}


class Checked(NamedTuple):
    """Variants that fit their genome, and how many did.

    `variants` has a further column `flipped` where flips were allowed. `tally` counts ``variants`` (given), ``kept``,
    ``flipped``, ``unknown_contig``, ``off_end`` and ``mismatch`` (the last three are what was left out).
    """

    variants: pd.DataFrame
    tally: dict[str, int]


class AlleleWindows(NamedTuple):
    """Sequences of two alleles: ``start`` of the reference window (int64, ``(n,)``) and codes ``(n, length)`` each."""

    start: Int[ndarray, " n"]
    ref: UInt8[ndarray, "n L"]
    alt: UInt8[ndarray, "n L"]


class Haplotype(NamedTuple):
    """A sequence that carries several variants.

    Parameters
    ----------
    codes
        uint8 ``(L,)``.
    position
        int64, one for each base of the reference from `start` to `end`: where it stands in `codes`; −1 where it was
        deleted or has left the window. A substituted base keeps its place.
    """

    codes: UInt8[ndarray, " L"]
    position: Int[ndarray, " W"]


def fetch_windows(genome: Reference, chrom: Sequence[str] | ndarray | pd.Series, start: Int[ndarray, " n"], length: int
                  ) -> UInt8[ndarray, "n L"]:
    """Codes of many windows of one length, whatever their order; positions off the contig are 4 (N).

    Neighboring windows are cut from one read of the genome, so that a million of them cost few reads and no more
    memory than they fill.
    """
    out = np.empty((len(start), length), np.uint8)
    code, names = pd.factorize(np.asarray(chrom, dtype=object))
    order = np.lexsort((start, code))
    code, first = code[order], np.asarray(start, np.int64)[order]
    apart = (np.diff(code) != 0) | (np.diff(first) > length + _GAP)
    edges = np.concatenate([[0], np.flatnonzero(apart) + 1, [len(first)]]) if len(first) else np.zeros(1, np.int64)
    for lo, hi in pairwise(edges):
        while lo < hi:
            here, stop = first[lo], lo + int(np.searchsorted(first[lo:hi], first[lo] + _SPAN))
            read = genome.fetch(str(names[code[lo]]), int(here), int(first[stop - 1]) + length)
            if stop - lo == 1:
                out[order[lo]] = read
            else:
                out[order[lo:stop]] = np.lib.stride_tricks.sliding_window_view(read, length)[first[lo:stop] - here]
            lo = stop
    return out


def check_reference(variants: pd.DataFrame, genome: Reference, *, mismatch: str = "error") -> Checked:
    """Make sure that every variant lies on the genome and that its reference allele is what stands there.

    Parameters
    ----------
    variants
        ``chrom, pos, ref, alt[, …]``, `pos` 0-based. An N in an allele fits an N of the genome only.
    genome
        Where the variants are said to come from.
    mismatch
        ``"error"``: one variant that does not fit is an error. ``"flip"``: where the genome has `alt` instead, the two
        change places and the row is marked in a column `flipped`, as the sign of an effect that was measured for the
        old order changes, too; everything else is an error. ``"drop"``: what does not fit is left out and counted.

    Returns
    -------
    Checked
        The variants (rows in their order, index new) and the counts.

    Raises
    ------
    SchemaError
        With the number of variants of each fault and the first of all; contigs that are named in another way, and
        so many mismatches that the variants must come from another build, are said.
    """
    if mismatch not in ("error", "flip", "drop"):
        raise SchemaError(f"mismatch is 'error', 'flip' or 'drop'; got {mismatch!r}")
    check_variants(variants)
    sizes = genome.chrom_sizes
    table = variants.reset_index(drop=True)
    chrom, ref, alt = (table[column].to_numpy(dtype=object) for column in ("chrom", "ref", "alt"))
    pos = table["pos"].to_numpy(np.int64)
    code, names = pd.factorize(chrom)
    size = np.array([sizes.get(name, -1) for name in names], dtype=np.int64)[code]
    unknown = size < 0
    off = ~unknown & (pos + _lengths(ref) > size)
    wrong = np.zeros(len(table), bool)
    inside = np.flatnonzero(~(unknown | off))
    wrong[inside] = ~_stands(genome, chrom[inside], pos[inside], ref[inside])
    flipped = np.zeros(len(table), bool)
    if mismatch == "flip":
        these = np.flatnonzero(wrong)
        flipped[these] = _stands(genome, chrom[these], pos[these], alt[these])
        wrong &= ~flipped
    faults = {"unknown_contig": unknown, "off_end": off, "mismatch": wrong}
    bad = unknown | off | wrong
    if bad.any() and mismatch != "drop":
        raise SchemaError(_fault(table, genome, faults, int(bad.argmax()), len(inside), mismatch))
    if mismatch == "flip":
        table = table.assign(ref=np.where(flipped, alt, ref), alt=np.where(flipped, ref, alt), flipped=flipped)
    table = table.loc[~bad].reset_index(drop=True)
    return Checked(table, {"variants": len(bad), "kept": len(table), "flipped": int(flipped.sum())}
                   | {name: int(rows.sum()) for name, rows in faults.items()})


def allele_windows(genome: Reference, variants: pd.DataFrame, length: int, *, anchor: str = "left",
                   start: Int[ndarray, " n"] | None = None) -> AlleleWindows:
    """Sequences around each variant with the reference and with the alternative allele, for any kind of variant.

    Both are exactly `length` long. After an insertion or a deletion one flank moves: it is refilled from the genome,
    or loses bases at its end.

    Parameters
    ----------
    genome, variants
        The genome, and variants that fit it; see `check_reference`.
    length
        Of the windows, bp.
    anchor
        The flank that keeps its place: ``"left"``, ``"right"``, or ``"center"``, the one with the middle of the window
        (for windows of a TSS, which then stays where it is). A model that reads positions sees a shift of the other
        flank; the mean effect of left and right does not prefer either.
    start
        First base of each window; None puts the middle base of `ref` at position ``length // 2``. Off the contig is N.

    Raises
    ------
    SchemaError
        For an anchor or a length that there is not.
    """
    if anchor not in ("left", "right", "center"):
        raise SchemaError(f"anchor is 'left', 'right' or 'center'; got {anchor!r}")
    if length < 1:
        raise SchemaError(f"a window has at least 1 bp; got length={length}")
    chrom, ref, alt = (variants[column].to_numpy(dtype=object) for column in ("chrom", "ref", "alt"))
    pos = variants["pos"].to_numpy(np.int64)
    n_ref, n_alt = _lengths(ref), _lengths(alt)
    start = centered_start(pos, n_ref, length) if start is None else np.asarray(start, np.int64)
    window = fetch_windows(genome, chrom, start, length)
    left = {"left": np.ones(len(pos), bool), "right": np.zeros(len(pos), bool),
            "center": pos >= start + length // 2}[anchor]
    grown = n_alt - n_ref
    # The flank that moves is read from a shifted window; `at` is where the alternative allele begins.
    moves = grown != 0
    shifted = window.copy()
    shifted[moves] = fetch_windows(genome, chrom[moves], (start + np.where(left, -grown, grown))[moves], length)
    at = pos - start + np.where(left, 0, -grown)
    place = np.arange(length)
    stays = np.where(left[:, None], place < at[:, None], place >= (at + n_alt)[:, None])
    made = np.where(stays, window, shifted)
    row, base = spread(at, n_alt)
    inside = (base >= 0) & (base < length)
    made[row[inside], base[inside]] = encode("".join(alt))[inside]
    return AlleleWindows(start, window, made)


def centered_start(pos: Int[ndarray, " n"], n_ref: Int[ndarray, " n"], length: int) -> Int[ndarray, " n"]:
    """First base of windows that have the middle base of the reference allele at position ``length // 2``."""
    return pos + (n_ref - 1) // 2 - length // 2


def spread(start: Int[ndarray, " n"], width: Int[ndarray, " n"]) -> tuple[Int[ndarray, " m"], Int[ndarray, " m"]]:
    """Row and position of every base of pieces that begin at `start`, one piece after the other."""
    row = np.repeat(np.arange(len(start)), width)
    return row, start[row] + np.arange(len(row)) - (np.cumsum(width) - width)[row]


def haplotype_window(genome: Reference, variants: pd.DataFrame, chrom: str, start: int, end: int, *,
                     center: int | None = None) -> Haplotype:
    """Sequence of a stretch of the genome with several variants at once, and where each of its bases has gone.

    Parameters
    ----------
    genome
        The reference.
    variants
        Variants of one haplotype, in any order; those elsewhere are not looked at. Bases that `ref` and `alt` begin
        with in common count as unchanged, so a deletion and a substitution of its anchor base do not collide.
    chrom, start, end
        The stretch, 0-based half-open; positions off the contig are N.
    center
        None: the stretch gets longer or shorter by its insertions and deletions. A reference position, such as a TSS:
        the sequence has ``end - start`` bases, this one is at ``center - start``, and what the variants leave short or
        push out is refilled or cropped on each side by itself, with the variants there. Where the base itself is
        deleted, the next one that is left takes its place.

    Raises
    ------
    SchemaError
        When two variants change the same bases (the pair is named), a reference allele is not what the genome has, or,
        without a `center`, a variant lies across the border.
    """
    if not start < end or (center is not None and not start <= center < end):
        raise SchemaError(f"a haplotype is made of start < end, with the center between; got {chrom}:{start}-{end}, "
                          f"center {center}")
    check_variants(variants)
    near = variants.loc[(variants["chrom"] == chrom).to_numpy()]
    first, last = near["pos"].to_numpy(np.int64), (near["pos"] + near["ref"].str.len()).to_numpy(np.int64)
    reach = 0
    while True:
        here = (first < end + reach) & (last > start - reach)
        gone = int(np.maximum(_lengths(near["ref"]) - _lengths(near["alt"]), 0)[here].sum())
        if center is None or gone <= reach:
            break
        reach = gone
    near = near.loc[here].sort_values("pos", kind="stable")
    if center is not None and len(near):
        low, high = min(start - reach, int(first[here].min())), max(end + reach, int(last[here].max()))
    else:
        low, high = start - reach, end + reach
    codes, position = _spliced(genome.fetch(chrom, low, high), _changes(near, low, high))
    if center is None:
        return Haplotype(codes, position)
    left = position[center - low:]
    left = left[left >= 0]
    shift = int(left[0] if len(left) else len(codes)) - (center - start)
    made = np.full(end - start, N, np.uint8)
    some = codes[max(shift, 0):max(shift + end - start, 0)]
    made[max(-shift, 0):max(-shift, 0) + len(some)] = some
    position = position[start - low:end - low]
    moved = position - shift
    return Haplotype(made, np.where((position >= 0) & (moved >= 0) & (moved < end - start), moved, -1))


class _Change(NamedTuple):
    """Bases `start` to `end` of a stretch become `codes`; `row` says whose change it is."""

    start: int
    end: int
    ref: ndarray
    codes: ndarray
    row: str


def _changes(variants: pd.DataFrame, low: int, high: int) -> list[_Change]:
    """Variants without the bases that both alleles begin with, in their order along the stretch."""
    changes = []
    for name, pos, ref, alt in variants[["chrom", "pos", "ref", "alt"]].itertuples(index=False):
        said = f"{name}:{pos} {ref}>{alt}"
        if pos < low or pos + len(ref) > high:
            raise SchemaError(f"{said} lies across the border of {name}:{low}-{high}; widen the stretch or leave the "
                              "variant out")
        same = 0
        while same < min(len(ref), len(alt)) and ref[same] == alt[same]:
            same += 1
        at = int(pos) + same - low
        changes.append(_Change(at, at + len(ref) - same, encode(ref), encode(alt[same:]), said))
    changes.sort(key=lambda change: change[:2])
    for one, two in pairwise(changes):
        if two.start < one.end or one.start == one.end == two.start == two.end:
            raise SchemaError(f"two variants of one haplotype change the same bases: {one.row} and {two.row}; are both "
                              "alleles of one person in the table, or is it not phased?")
    return changes


def _spliced(stretch: ndarray, changes: list[_Change]) -> tuple[ndarray, ndarray]:
    pieces, done, n_made = [], 0, 0
    position = np.full(len(stretch), -1, np.int64)
    for change in changes:
        stands = stretch[change.end - len(change.ref):change.end]
        if not np.array_equal(stands, change.ref):
            raise SchemaError(f"the reference allele of {change.row} is not what the genome has; see check_reference")
        kept = stretch[done:change.start]
        position[done:change.start] = n_made + np.arange(len(kept))
        n_made += len(kept)
        paired = min(change.end - change.start, len(change.codes))
        position[change.start:change.start + paired] = n_made + np.arange(paired)
        n_made += len(change.codes)
        pieces += [kept, change.codes]
        done = change.end
    position[done:] = n_made + np.arange(len(stretch) - done)
    return np.concatenate([*pieces, stretch[done:]]), position


def _lengths(alleles: ndarray | pd.Series) -> Int[ndarray, " n"]:
    return np.fromiter(map(len, alleles), np.int64, len(alleles))


def _stands(genome: Reference, chrom: Shaped[ndarray, " n"], pos: Int[ndarray, " n"], allele: Shaped[ndarray, " n"]
            ) -> Bool[ndarray, " n"]:
    """Whether the genome has these bases there."""
    width = _lengths(allele)
    same = np.zeros(len(pos), bool)
    for length in np.unique(width):
        rows = np.flatnonzero(width == length)
        step = max(1, _SPAN // int(length))
        for part in np.split(rows, np.arange(step, len(rows), step)):
            codes = encode("".join(allele[part])).reshape(len(part), length)
            same[part] = (fetch_windows(genome, chrom[part], pos[part], int(length)) == codes).all(axis=1)
    return same


def _fault(table: pd.DataFrame, genome: Reference, faults: dict[str, ndarray], first: int, n_inside: int, mismatch: str
           ) -> str:
    """What is wrong with how many variants, and what to do."""
    row = table.iloc[first]
    sizes = genome.chrom_sizes
    said = [f"{int(rows.sum()):,} {_FAULTS[name]}" for name, rows in faults.items() if rows.any()]
    text = f"of {len(table):,} variants {', '.join(said)}; first: row {first} {row['chrom']}:{row['pos']} (0-based) " \
           f"{row['ref']}>{row['alt']}"
    if faults["mismatch"][first]:
        there = genome.fetch(row["chrom"], int(row["pos"]), int(row["pos"]) + len(row["ref"]))
        text += f", where the genome has {_letters(there)}"
    if faults["off_end"][first]:
        text += f", on a contig of {sizes[row['chrom']]:,} bp"
    if faults["unknown_contig"].any():
        name = str(table["chrom"][int(faults["unknown_contig"].argmax())])
        other = name.removeprefix("chr") if name.startswith("chr") else f"chr{name}"
        text += f"; '{name}' is called '{other}' there: rename the contigs" if other in sizes else \
                f"; '{name}': {nearest(name, list(sizes)[:20])}"
    n_wrong = int(faults["mismatch"].sum())
    if n_inside >= 20 and n_wrong > n_inside / 4:
        text += "; so many mismatches mean that the variants are of another genome build"
    elif n_wrong and mismatch == "error":
        text += "; allow flips where the genome has ALT (mismatch='flip'), or leave out what does not fit ('drop')"
    return text


def _letters(codes: ndarray) -> str:
    letters = "".join("ACGTN"[code] for code in codes[:20])
    return letters + ("…" if len(codes) > 20 else "")
