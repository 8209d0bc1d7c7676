"""Scores of variants: what a model says of the alternative allele, compared with the reference allele.

Every score is *alternative minus reference*: positive where the alternative allele raises the output.

=============== ======================================================================================================
score           meaning
=============== ======================================================================================================
``diff``        difference of the readout (of a `Profile` that is no shape: of the total over its bins)
``logfc``       log2 fold change of counts. `LogCounts` holds ln(1 + count), so its difference divided by ln 2; any
                other readout must not be negative: log2((alt + c) / (ref + c)) with ``pseudocount=c``
``abs_logfc``   its magnitude
``jsd``         Jensen–Shannon distance of two profiles, base 2: 0 (the same shape) to 1
``max_abs_sad`` largest absolute difference: over the bins of a track (`Profile`), else over all tracks
``l2``          root of the sum of squared differences, over the same
``ism``         how much the bases around matter: mean absolute effect of all single substitutions up to `ism_width` bp
                from the variant, beside the alternative allele minus beside the reference allele
=============== ======================================================================================================

Scores of bins are taken after the bins of the alternative allele are put back beside those of the reference: what an
insertion or deletion has shifted is no effect, and bases that one allele lacks are left out on both sides.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import bioframe
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from rich.progress import Progress
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError, nearest
from ciscribe.intervals import region_id
from ciscribe.oracle import LogCounts, Oracle, Profile
from ciscribe.perturb.edits import Edits, apply_edits, predict_edited
from ciscribe.schema import EFFECT_COLUMNS, check_effects, check_intervals, check_links
from ciscribe.sequence import N, Reference, encode, reverse_complement_codes
from ciscribe.train.profiles import jensen_shannon
from ciscribe.variants.alleles import allele_windows, centered_start, check_reference, fetch_windows, spread

SCORERS = ("diff", "logfc", "abs_logfc", "jsd", "max_abs_sad", "l2", "ism")
Extra = Tensor | ndarray | Callable[[pd.DataFrame], Tensor] | None

_PAIRS = 2048  # variants in windows that are held at once
_NUMBERS = 1 << 24  # bases, and outputs of one kind, that are held at once

_OUTSIDE = "none of {:,} variants lies in any of {:,} windows; are the names of the contigs and the build the same?"

CARD = Card(
    name="variant_scores", kind="variants",
    summary="Predicts the sequence around a variant with either allele and measures how much the prediction moves.",
    paper="Zhou & Troyanskaya, Nat Methods 2015, doi:10.1038/nmeth.3547 (difference of predictions); SAD and L2 over "
          "tracks: Kelley et al., Genome Res 2018, doi:10.1101/gr.227819.117, and Avsec et al., Nat Methods 2021, "
          "doi:10.1038/s41592-021-01252-x; log fold change of counts with the Jensen–Shannon distance of profiles: "
          "kundajelab/variant-scorer",
    differences=(
        "Substitutions are predicted as differences to a reference window that all variants of it share.",
        "Indels are written with the left and with the right flank in place, and their scores averaged.",
        "Scores of bins are taken after re-alignment of the outputs.",
        "ism: whether the bases around a variant come to matter more, a score of our own."),
    n_policy="N is four zeros; a variant whose REF is not what the genome has is an error",
)


def score_variants(oracle: Oracle | Sequence[Oracle], genome: Reference, variants: pd.DataFrame, *,
                   length: int | None = None, scorers: Sequence[str] = ("diff",), windows: pd.DataFrame | None = None,
                   S: Extra = None, covariates: Extra = None, tracks: Sequence[str] | None = None,
                   both_strands: bool = True, reverse_tracks: Sequence[int] | None = None, snap: int = 1,
                   pseudocount: float = 1.0, ism_width: int = 10, outside: Literal["error", "skip"] = "error",
                   batch_size: int = 64, seed: int | None = 0, progress: bool = False) -> pd.DataFrame:
    """Say what every variant does to the predictions of a model; one row a variant, track and gene.

    Parameters
    ----------
    oracle
        The model, or several of a kind (an ensemble): their mean, and their standard deviation as ``<score>_sd``.
    genome
        The reference that the variants fit; see `ciscribe.variants.alleles.check_reference`.
    variants
        ``chrom, pos, ref, alt[, name, …]``, `pos` 0-based. Further columns are kept.
    length
        Window that the model reads, bp; not with `windows`.
    scorers
        Of `SCORERS`; see the table at the head of this module.
    windows
        ``chrom, start, end[, strand, gene_id]``, all of one length: the places a model is asked at, such as the
        windows of TSSs (they may run off a contig). A variant is scored in every window that holds it whole, and has no
        row where there is none. A window on − is read in its direction. The middle of a window stays where it is; an
        indel shifts what is beyond it. None centers a window of `length` on every variant.
    S, covariates
        Signals ``(n, S, bins)`` and features ``(n, C)`` beside the sequence, the same for both alleles: arrays with one
        row for each of `windows`, or a function of a table ``chrom, start, end, strand, gene_id`` that returns them
        (what depends on the direction, in the direction of reading).
    tracks
        Names of the tracks; counted from 0 unless given.
    both_strands
        Average the predictions of a window and its reverse complement, signals turned with it. Windows that have a
        strand are read in that direction only.
    reverse_tracks
        For outputs of two strands: the track that each track is on the other strand, such as ``(1, 0)``.
    snap
        Windows begin on a grid of so many bp, so that neighboring variants share one: each lies up to ``snap / 2`` bp
        from the center. A dense set of variants is scored many times faster; 1 is exactly centered.
    pseudocount
        Of ``logfc``, in the units of the readout; a `LogCounts` has its own.
    ism_width
        Bases on each side that ``ism`` mutates; it costs six predictions a base.
    outside
        What happens when none of the variants lies in one of `windows`: an error, or a table without rows.
    batch_size, progress
        Sequences a forward pass; show a bar.
    seed
        Nothing is random; taken so that all scores of variants are called alike.

    Returns
    -------
    DataFrame
        As `ciscribe.schema.check_effects` wants it, in the order of the variants (then of the windows, then of the
        tracks), with one column a score. `gene_id` is ``.`` without genes.

    Raises
    ------
    SchemaError
        When a variant does not fit the genome or repeats, a scorer does not fit the readout, windows differ in length
        or repeat a gene, or no variant lies in a window.

    Notes
    -----
    Substitutions that stay as long as they are cost what they reach in the network beside one prediction of their
    window (`ciscribe.perturb.edits.predict_edited`); indels are predicted in full, twice. Memory grows with the table
    that is returned only; for a large set see `iter_scores`.
    """
    oracles = [oracle] if isinstance(oracle, Oracle) else list(oracle)
    _check_scorers(oracles, scorers)
    variants = check_reference(variants, genome).variants
    variants = variants if "name" in variants else variants.assign(name=".")
    twice = variants.duplicated(["chrom", "pos", "ref", "alt", "name"]).to_numpy()
    if twice.any():
        raise SchemaError(f"{int(twice.sum()):,} of {len(variants):,} variants repeat; first: row "
                          f"{int(twice.argmax())}; use drop_duplicates()")
    if (length is None) == (windows is None):
        raise SchemaError("give length=... for windows around the variants, or windows=... of one length")
    if windows is not None:
        places = _within(variants, windows, empty=outside == "skip" or not len(variants))
        variants = variants if len(places.variant) else variants.head(0)
    else:
        places = _around(variants, int(length or 0), snap)
    if not len(variants):
        return variants.assign(track=0, gene_id=".", **dict.fromkeys(scorers, 0.0))
    extras = (_aligned(S, places, "S"), _aligned(covariates, places, "covariates"))
    options = _Options(tuple(scorers), both_strands, None if reverse_tracks is None else list(reverse_tracks),
                       pseudocount, ism_width, batch_size)
    made: list[dict[str, ndarray]] = []
    numbers = 0
    with Progress(disable=not progress) as bar:
        task = bar.add_task("variants", total=len(places.variant))
        lo = 0
        while lo < len(places.variant):
            hi = min(lo + _step(places.length, numbers), len(places.variant))
            part = _part(genome, variants, places, extras, lo, hi)
            each = []
            for one in oracles:
                scores, numbers = _scored(one, part, options)
                each.append(scores)
            made.append({name: np.stack([scores[name] for scores in each]) for name in options.scorers})
            bar.update(task, completed=hi)
            lo = hi
    return _table(variants, places, {name: np.concatenate([part[name] for part in made], axis=1) for name in
                                     options.scorers}, tracks)


def iter_scores(oracle: Oracle | Sequence[Oracle], genome: Reference, chunks: Iterable[pd.DataFrame], **options: Any
                ) -> Iterator[pd.DataFrame]:
    """Score chunk after chunk of a set of variants that need not fit into memory; see `score_variants`.

    A chunk none of whose variants lies in a window gives no table; that no chunk does is an error. Neighbors share
    windows within a chunk, so chunks hold some thousand.
    """
    windows: pd.DataFrame | None = options.get("windows")
    n_given, n_scored = 0, 0
    for variants in chunks:
        n_given += len(variants)
        if len(variants) and (windows is None or len(_within(variants, windows, empty=True).variant)):
            n_scored += 1
            yield score_variants(oracle, genome, variants, **options)
    if n_given and not n_scored and windows is not None:
        raise SchemaError(_OUTSIDE.format(n_given, len(windows)))


def element_effects(effects: pd.DataFrame, elements: pd.DataFrame, links: pd.DataFrame, *, score: str = "diff"
                    ) -> pd.DataFrame:
    """Effect of a variant on a gene through the regulatory element that it lies in: its score times the link's.

    Parameters
    ----------
    effects
        Scored variants. Those of no gene (``gene_id`` is ``.``) go to every gene that their element is linked with,
        those of a gene stay with it.
    elements
        Called elements ``chrom, start, end``.
    links
        Links of one cell type; a link counts for the elements that it overlaps.
    score
        Column of `effects` that goes through the element.

    Returns
    -------
    DataFrame
        `effects` with two more columns: ``element``, the score times the largest link of an element that the reference
        allele touches, and ``element_id`` (``chrom:start-end``). A variant in no element has 0 and ``.``; one in an
        element without a link to the gene has 0 and the element's name.

    Raises
    ------
    SchemaError
        When a table breaks its contract, the score is not there, or links are of several cell types.
    """
    check_effects(effects)
    check_intervals(elements, name="elements")
    check_links(links)
    if score not in effects:
        raise SchemaError(f"effects have no score {score!r}; {nearest(score, effects.columns)}")
    cells = links["cell"].drop_duplicates()
    if len(cells) > 1:
        raise SchemaError(f"links are of {len(cells)} cell types ({', '.join(map(str, cells[:5]))} …); choose those of "
                          "one")
    place = ["chrom", "pos", "ref"]
    variants = effects[place].drop_duplicates(ignore_index=True)
    spots = pd.DataFrame({"chrom": variants["chrom"], "start": variants["pos"],
                          "end": variants["pos"] + [len(ref) for ref in variants["ref"]]})
    variants = variants.assign(_variant=np.arange(len(variants)))
    touched = pd.DataFrame(_overlaps(spots, elements), columns=pd.Index(["_variant", "_element"]))
    linked = _overlaps(elements, links)
    weights = pd.DataFrame({"_element": linked[:, 0], "_to_gene": links["gene_id"].to_numpy()[linked[:, 1]],
                            "_weight": links["score"].to_numpy(float)[linked[:, 1]]})
    through = touched.merge(weights, on="_element")
    strong = -np.abs(through["_weight"].to_numpy())
    through = through.iloc[np.lexsort((through["_element"], strong, through["_variant"]))]
    through = through.drop_duplicates(["_variant", "_to_gene"])  # the largest link of each gene
    table = effects.merge(variants, on=place, how="left")
    table["_row"] = np.arange(len(table))
    free = (table["gene_id"] == ".").to_numpy()
    of_gene = table.loc[~free].merge(through, how="left", left_on=["_variant", "gene_id"],
                                     right_on=["_variant", "_to_gene"])
    spread_out = table.loc[free].merge(through, how="left", on="_variant")
    spread_out["gene_id"] = spread_out["_to_gene"].fillna(".")
    parts = [part for part in (of_gene, spread_out) if len(part)]
    both = (pd.concat(parts) if parts else of_gene).sort_values("_row", kind="stable", ignore_index=True)
    in_element = np.full(len(variants), -1)
    any_element = touched.drop_duplicates("_variant")
    in_element[any_element["_variant"].to_numpy(int)] = any_element["_element"].to_numpy()
    element = both["_element"].fillna(-1).to_numpy(int)
    element = np.where(element < 0, in_element[both["_variant"].to_numpy(int)], element)
    names = np.append(region_id(elements).to_numpy(dtype=object), ".")  # −1 is in none
    through_it = both[score].to_numpy(float) * both["_weight"].fillna(0.0).to_numpy(float)
    return both[list(effects.columns)].assign(element=through_it, element_id=names[element])


# ---- where variants are scored


class _Places(NamedTuple):
    """Windows in their order along the genome, and which variant is scored in which (sorted by window)."""

    table: pd.DataFrame  # chrom, start, end, strand, gene_id
    given: ndarray | None  # row of the user's table of each window
    variant: Int[ndarray, " P"]
    window: Int[ndarray, " P"]
    length: int
    centered: bool


def _around(variants: pd.DataFrame, length: int, snap: int) -> _Places:
    """Windows that are centered on variants, but for the grid."""
    if length < 1 or not 1 <= snap <= max(1, length // 2):
        raise SchemaError(f"windows have at least 1 bp, and a grid of 1 to half of that; got length={length}, "
                          f"snap={snap}")
    pos = variants["pos"].to_numpy(np.int64)
    middle = centered_start(pos, variants["ref"].str.len().to_numpy(np.int64), length) + length // 2
    start = (middle + snap // 2) // snap * snap - length // 2
    code, names = pd.factorize(variants["chrom"])
    keys, window = np.unique(np.stack([code, start], axis=1), axis=0, return_inverse=True)
    order = np.argsort(window, kind="stable")
    table = pd.DataFrame({"chrom": np.asarray(names, dtype=object)[keys[:, 0]], "start": keys[:, 1],
                          "end": keys[:, 1] + length, "strand": ".", "gene_id": "."})
    return _Places(table, None, order, window.reshape(-1)[order], length, True)


def _within(variants: pd.DataFrame, windows: pd.DataFrame, *, empty: bool = False) -> _Places:
    """Windows of a table that hold variants."""
    missing = [c for c in ("chrom", "start", "end") if c not in windows]
    if missing:
        raise SchemaError(f"windows need the columns chrom, start, end[, strand, gene_id]; missing: "
                          f"{', '.join(missing)}")
    lengths = (windows["end"] - windows["start"]).unique()
    if len(lengths) != 1 or lengths[0] < 1:
        raise SchemaError(f"windows are of the one length that the model reads; got {len(lengths)}: "
                          f"{', '.join(map(str, lengths[:5]))} bp")
    length = int(lengths[0])
    table = pd.DataFrame({c: windows[c].to_numpy() for c in ("chrom", "start", "end")}).assign(
        strand=windows["strand"].to_numpy() if "strand" in windows else ".",
        gene_id=windows["gene_id"].to_numpy() if "gene_id" in windows else ".")
    code = pd.factorize(np.concatenate([table["chrom"], variants["chrom"]]))[0]
    start, chrom = table["start"].to_numpy(np.int64), code[:len(table)]
    given = np.lexsort((start, chrom))
    first = variants["pos"].to_numpy(np.int64)
    last = first + variants["ref"].str.len().to_numpy(np.int64)
    # Windows of one length that hold first to last begin between last − length and first.
    offset = int(max(np.abs(start).max(initial=0), first.max(initial=0))) + 2 * length + 1
    key, base = chrom[given] * (2 * offset) + start[given], code[len(table):] * (2 * offset)
    lo, hi = np.searchsorted(key, base + last - length), np.searchsorted(key, base + first, side="right")
    variant, window = spread(lo, np.maximum(hi - lo, 0))
    if not len(variant) and len(variants) and not empty:
        raise SchemaError(_OUTSIDE.format(len(variants), len(windows)))
    used, window = np.unique(window, return_inverse=True)
    table = table.iloc[given[used]].reset_index(drop=True)
    order = np.argsort(window, kind="stable")
    genes = pd.DataFrame({"variant": variant, "gene": table["gene_id"].to_numpy()[window]})
    twice = genes.duplicated().to_numpy()
    if twice.any():
        row = genes.iloc[int(twice.argmax())]
        raise SchemaError(f"{int(twice.sum()):,} of {len(twice):,} pairs of variant and window repeat a gene; first: "
                          f"variant {row['variant']}, gene_id {row['gene']!r}; give windows that overlap a gene_id of "
                          "their own")
    return _Places(table, given[used], variant[order], window[order], length, False)


def _aligned(value: Extra, places: _Places, name: str) -> Callable[[slice], Tensor] | None:
    """A function from windows to what stands beside them."""
    if value is None:
        return None
    if callable(value):
        asked = value
        return lambda rows: asked(places.table.iloc[rows].reset_index(drop=True))
    given = places.given
    if given is None:
        raise SchemaError(f"windows that are centered on variants take {name} from a function of a table of windows; "
                          f"got {type(value).__name__}")
    array = torch.as_tensor(value)
    if len(array) <= given.max(initial=-1):
        raise SchemaError(f"{name} has one row for each of the windows; got {len(array)} rows")
    return lambda rows: array[torch.from_numpy(given[rows])]


# ---- a part that is scored at once


class _Part(NamedTuple):
    """Some windows with their variants."""

    codes: UInt8[ndarray, "W L"]
    minus: ndarray  # (W,) windows that are read in the other direction
    stranded: bool
    extras: tuple[Tensor | None, Tensor | None]
    row: Int[ndarray, " P"]  # window of each pair
    site: Int[ndarray, " P"]  # first base of the reference allele in it
    n_ref: Int[ndarray, " P"]
    n_alt: Int[ndarray, " P"]
    edited: Int[ndarray, " E"]  # pairs that are edits of their window
    edits: Edits
    written: list["_Written"]  # pairs that are written in full


class _Written(NamedTuple):
    """Sequences of alternative alleles."""

    pair: Int[ndarray, " k"]
    codes: UInt8[ndarray, "k L"]
    left: ndarray  # whether the left flank keeps its place
    site: Int[ndarray, " k"]  # first base of the allele


def _step(length: int, numbers: int) -> int:
    """Pairs of a part: few first, as nobody knows how many numbers the model returns."""
    return max(1, min(_PAIRS if numbers else 64, _NUMBERS // length, _NUMBERS // max(numbers, 1)))


def _part(genome: Reference, variants: pd.DataFrame, places: _Places,
          extras: tuple[Callable[[slice], Tensor] | None, ...], lo: int, hi: int) -> _Part:
    pair, window = places.variant[lo:hi], places.window[lo:hi]
    first = int(window[0])
    rows = slice(first, int(window[-1]) + 1)
    table, some = places.table.iloc[rows], variants.iloc[pair]
    start = table["start"].to_numpy(np.int64)
    row = window - first
    codes = fetch_windows(genome, table["chrom"].to_numpy(), start, places.length)
    at = some["pos"].to_numpy(np.int64) - start[row]
    n_ref, n_alt = (some[c].str.len().to_numpy(np.int64) for c in ("ref", "alt"))
    as_edit = (n_ref == n_alt) & (at >= 0) & (at + n_ref <= places.length)
    alt = some["alt"].to_numpy(dtype=object)
    written = []
    in_full = np.flatnonzero(~as_edit)
    for anchor in (("left", "right") if places.centered else ("center",)) if len(in_full) else ():
        made = allele_windows(genome, some.iloc[in_full], places.length, anchor=anchor, start=start[row[in_full]])
        left = {"left": np.ones(len(in_full), bool), "right": np.zeros(len(in_full), bool),
                "center": at[in_full] >= places.length // 2}[anchor]
        first_base = at[in_full] - np.where(left, 0, (n_alt - n_ref)[in_full])
        written.append(_Written(in_full, made.alt, left, first_base))
    edited = np.flatnonzero(as_edit)
    minus = (table["strand"] == "-").to_numpy()
    stranded = bool(places.table["strand"].isin(("+", "-")).any())
    beside = tuple(None if extra is None else extra(rows) for extra in extras)
    return _Part(codes, minus, stranded, (beside[0], beside[1]), row, at, n_ref, n_alt, edited,
                 _edits(codes, row[edited], at[edited], alt[edited], n_alt[edited]), written)


def _edits(codes: ndarray, row: ndarray, at: ndarray, alt: ndarray, width: ndarray) -> Edits:
    """Alternative alleles as edits of one width; shorter ones are made up with the bases beside them."""
    widest = int(width.max(initial=1))
    start = np.minimum(at, codes.shape[1] - widest)
    bases = codes[row[:, None], start[:, None] + np.arange(widest)]
    bases[spread(at - start, width)] = encode("".join(alt))
    return Edits(row, start, bases)


# ---- predictions and scores


class _Options(NamedTuple):
    scorers: tuple[str, ...]
    both_strands: bool
    reverse_tracks: list[int] | None
    pseudocount: float
    ism_width: int
    batch_size: int


def _ask(oracle: Oracle, part: _Part, options: _Options, codes: ndarray, of: ndarray, edits: Edits | None = None
         ) -> Float[ndarray, "n T"]:
    """Predict sequences, or edits of them, that are as the windows `of`; both strands as the options say.

    Bins come back in the order of the genome.
    """
    y = _one_way(oracle, part, options, codes, of, part.minus[of], False, edits)
    if not options.both_strands or part.stranded:
        return y
    back = _one_way(oracle, part, options, codes, of, np.ones(len(of), bool), True, edits)
    if options.reverse_tracks is not None:
        n_tracks = oracle.readout.n_tracks if isinstance(oracle.readout, Profile) else back.shape[1]
        if sorted(options.reverse_tracks) != list(range(n_tracks)):
            raise SchemaError(f"reverse_tracks names each of {n_tracks} tracks once; got {options.reverse_tracks}")
        back = back.reshape(len(back), n_tracks, -1)[:, options.reverse_tracks].reshape(back.shape)
    return (y + back) / 2


def _one_way(oracle: Oracle, part: _Part, options: _Options, codes: ndarray, of: ndarray, turn: ndarray, flip: bool,
             edits: Edits | None) -> Float[ndarray, "n T"]:
    """Predict with some sequences turned around; `flip` turns their signals, too."""
    if turn.any():
        codes = np.where(turn[:, None], reverse_complement_codes(codes), codes)
    S, covariates = (None if value is None else value[torch.from_numpy(of)] for value in part.extras)
    if S is not None and flip:
        S = S.flip(-1)
    if edits is None:
        y = oracle.predict(torch.from_numpy(codes), S, covariates, batch_size=options.batch_size).numpy()
        turned = turn
    else:
        turned = turn[edits.row]
        if turned.any():
            width = edits.bases.shape[1]
            edits = Edits(edits.row, np.where(turned, codes.shape[1] - edits.start - width, edits.start),
                          np.where(turned[:, None], reverse_complement_codes(edits.bases), edits.bases))
        y = predict_edited(oracle, codes, edits, S, covariates, batch_size=options.batch_size)
    if isinstance(oracle.readout, Profile) and turned.any():
        bins = y.reshape(len(y), oracle.readout.n_tracks, -1)
        y = np.where(turned[:, None, None], bins[:, :, ::-1], bins).reshape(y.shape)
    return y


def _scored(oracle: Oracle, part: _Part, options: _Options) -> tuple[dict[str, ndarray], int]:
    """Scores ``(P, T)`` of one model, and how many numbers it returns for a sequence."""
    n_windows, n_pairs = len(part.codes), len(part.row)
    windows = np.arange(n_windows)
    # An edit that changes nothing is the reference: both alleles come from one pass over the window. Two of them make
    # three edits of a window with one variant, from where it pays to compute differences.
    n_null = 1 if len(part.edited) > n_windows else 2
    edits = part.edits
    width = edits.bases.shape[1]
    null = Edits(np.tile(windows, n_null), np.zeros(n_null * n_windows, np.int64),
                 np.tile(part.codes[:, :width], (n_null, 1)))
    if not len(part.edited):
        ref = _ask(oracle, part, options, part.codes, windows)
        alt = np.zeros((0, ref.shape[1]), ref.dtype)
    else:
        joined = Edits(*(np.concatenate(pair) for pair in zip(edits, null, strict=True)))
        y = _ask(oracle, part, options, part.codes, windows, joined)
        alt, ref = y[:len(part.edited)], y[len(part.edited):len(part.edited) + n_windows]
    numbers = ref.shape[1]
    n_tracks = oracle.readout.n_tracks if isinstance(oracle.readout, Profile) else numbers
    made = {name: np.zeros((n_pairs, n_tracks)) for name in options.scorers}
    cheap = [name for name in options.scorers if name != "ism"]
    if len(part.edited) and cheap:
        before = ref[part.row[part.edited]]
        for name in cheap:
            made[name][part.edited] = _score(name, oracle, before, alt, None, options)
    for written in part.written:
        if cheap:
            before = ref[part.row[written.pair]]
            after = _ask(oracle, part, options, written.codes, part.row[written.pair])
            partner = _partners(oracle, part, written, numbers)
            for name in cheap:
                score = _score(name, oracle, before, after, partner, options)
                made[name][written.pair] += score / len(part.written)
    if "abs_logfc" in made:  # of both ways to write an indel, not of each
        made["abs_logfc"] = np.abs(made["abs_logfc"])
    if "ism" in options.scorers:
        made["ism"] = _ism(oracle, part, options, numbers)
    return made, numbers


def _score(name: str, oracle: Oracle, before: ndarray, after: ndarray, partner: ndarray | None, options: _Options
           ) -> Float[ndarray, "n T"]:
    """One score of pairs of predictions, magnitudes of fold changes excepted.

    `partner` is the bin of the alternative allele that stands beside each bin of the reference allele, or −1.
    """
    readout = oracle.readout
    if name in ("diff", "logfc", "abs_logfc"):
        if isinstance(readout, Profile):
            before, after = (y.reshape(len(y), readout.n_tracks, -1).sum(axis=2) for y in (before, after))
        if name == "diff":
            return after.astype(np.float64) - before
        return _log2_change(readout, before, after, options.pseudocount)
    if isinstance(readout, Profile):
        before, after = (y.reshape(len(y), readout.n_tracks, -1).astype(np.float64) for y in (before, after))
        if partner is not None:
            there = (partner >= 0)[:, None]
            after = np.where(there, np.take_along_axis(after, np.maximum(partner, 0)[:, None], axis=2), 0)
            before = np.where(there, before, 0)
        if name == "jsd":
            return jensen_shannon(before, after) / np.sqrt(np.log(2))
        change = after - before
        return np.abs(change).max(axis=2) if name == "max_abs_sad" else np.sqrt((change ** 2).sum(axis=2))
    change = after.astype(np.float64) - before
    over = np.abs(change).max(axis=1) if name == "max_abs_sad" else np.sqrt((change ** 2).sum(axis=1))
    return np.repeat(over[:, None], change.shape[1], axis=1)


def _log2_change(readout: object, before: ndarray, after: ndarray, pseudocount: float) -> ndarray:
    if isinstance(readout, LogCounts):
        return (after.astype(np.float64) - before) / np.log(2)
    both = np.stack([before, after]).astype(np.float64)
    if (both < 0).any():
        raise SchemaError(f"logfc needs counts; {readout} gave {int((both < 0).sum()):,} negative of {both.size:,} "
                          f"numbers, the least {both.min():.3g}; use diff, which is a log fold change where the model "
                          "predicts logarithms")
    change = np.log2(both + pseudocount)
    return change[1] - change[0]


def _partners(oracle: Oracle, part: _Part, written: _Written, numbers: int) -> Int[ndarray, "k bins"] | None:
    """The bin of the alternative allele that stands where each bin of the reference allele stood; −1 where none does.

    A bin goes by its middle: before the variant it moves with the left flank, after it with the right one. Bases that
    only the reference has, and what was pushed out of the window, have no partner.
    """
    readout = oracle.readout
    if not isinstance(readout, Profile):
        return None
    n_bins = numbers // readout.n_tracks
    crop = (part.codes.shape[1] - n_bins * readout.resolution) / 2
    middle = crop + (np.arange(n_bins) + 0.5) * readout.resolution
    at, n_ref, n_alt = (v[written.pair, None] for v in (part.site, part.n_ref, part.n_alt))
    grown, left = n_alt - n_ref, written.left[:, None]
    kept = np.minimum(n_ref, n_alt)
    moved = middle + np.where(middle < at + kept, np.where(left, 0, -grown), np.where(left, grown, 0))
    partner = np.floor((moved - crop) / readout.resolution).astype(np.int64)
    gone = (middle >= at + kept) & (middle < at + n_ref)
    return np.where(gone | (partner < 0) | (partner >= n_bins), -1, partner)


def _ism(oracle: Oracle, part: _Part, options: _Options, numbers: int) -> Float[ndarray, "P T"]:
    """Mean absolute effect of substitutions around the alternative allele minus that around the reference allele."""
    out = np.zeros((len(part.row), numbers))
    edited = _Written(part.edited, apply_edits(part.codes, part.edits), part.site[part.edited], part.site[part.edited])
    step = max(1, _NUMBERS // (numbers * 12 * (options.ism_width + 1)))
    for written, share in [(edited, 1), *((w, len(part.written)) for w in part.written)]:
        for lo in range(0, len(written.pair), step):
            pair, codes, _, at = (field[lo:lo + step] for field in written)
            row = part.row[pair]
            after = _sensitivity(oracle, part, options, codes, row, at, part.n_alt[pair])
            before = _sensitivity(oracle, part, options, part.codes[row], row, part.site[pair], part.n_ref[pair])
            out[pair] += (after - before) / share
    return out


def _sensitivity(oracle: Oracle, part: _Part, options: _Options, codes: ndarray, of: ndarray, at: ndarray,
                 width: ndarray) -> Float[ndarray, "n T"]:
    """Mean absolute effect of all substitutions of an allele and the bases beside it; an N is not substituted."""
    n, length = codes.shape
    first, last = (np.clip(v, 0, length) for v in (at - options.ism_width, at + width + options.ism_width))
    row, position = (np.repeat(v, 3) for v in spread(first, last - first))
    there = codes[row, position]
    base = (there + np.tile(np.arange(1, 4), len(there) // 3)) % 4
    row, position, base = (v[there < N] for v in (row, position, base))
    rows = np.arange(n)
    joined = Edits(np.concatenate([row, rows]), np.concatenate([position, 0 * rows]),
                   np.concatenate([base.astype(np.uint8), codes[:, 0]])[:, None])
    y = _ask(oracle, part, options, codes, of, joined)
    change = np.abs(y[:len(row)] - y[len(row):][row]).astype(np.float64)
    total = np.zeros((n, y.shape[1]))
    np.add.at(total, row, change)
    return total / np.maximum(np.bincount(row, minlength=n), 1)[:, None]


# ---- tables


def _check_scorers(oracles: Sequence[Oracle], scorers: Sequence[str]) -> None:
    if not oracles:
        raise SchemaError("scores need at least one oracle; got an empty ensemble")
    if not scorers or isinstance(scorers, str):
        raise SchemaError(f"scorers are several names of {', '.join(SCORERS)}; got {scorers!r}")
    for name in scorers:
        if name not in SCORERS:
            raise SchemaError(f"unknown scorer {name!r}; {nearest(name, SCORERS)}")
    for readout in (one.readout for one in oracles):
        shape = isinstance(readout, Profile)
        for name in scorers:
            if name == "jsd" and not shape:
                raise SchemaError(f"jsd compares profiles: use Oracle(model, Profile(...)); got {readout}")
            if name in ("diff", "logfc", "abs_logfc") and shape and readout.logits:
                raise SchemaError(f"{name} compares totals, and the shapes of {readout} all add up to 1; score counts "
                                  "with a readout of their own (LogCounts), and merge the tables")
            if name == "ism" and shape:
                raise SchemaError(f"ism needs one number a track, such as LogCounts or WindowSum; got {readout}")


def _table(variants: pd.DataFrame, places: _Places, made: dict[str, ndarray], tracks: Sequence[str] | None
           ) -> pd.DataFrame:
    """Put scores ``(models, P, T)`` into rows: mean over models, and their deviation."""
    n_models, n_pairs, n_tracks = next(iter(made.values())).shape
    if tracks is not None and len(tracks) != n_tracks:
        raise SchemaError(f"the readout gives {n_tracks} tracks; got {len(tracks)} names")
    order = np.lexsort((places.window, places.variant))
    variant = np.repeat(places.variant[order], n_tracks)
    gene = np.repeat(places.table["gene_id"].to_numpy(dtype=object)[places.window[order]], n_tracks)
    own = {"track": np.tile(np.arange(n_tracks) if tracks is None else np.asarray(tracks, dtype=object), n_pairs),
           "gene_id": gene}
    first = [c for c in EFFECT_COLUMNS if c not in own]
    columns = {c: variants[c].to_numpy()[variant] for c in first} | own
    columns |= {c: variants[c].to_numpy()[variant] for c in variants if c not in columns and c not in made}
    for name, values in made.items():
        columns[name] = values.mean(axis=0)[order].ravel()
        if n_models > 1:
            columns[f"{name}_sd"] = values.std(axis=0, ddof=1)[order].ravel()
    return pd.DataFrame(columns)


def _overlaps(a: pd.DataFrame, b: pd.DataFrame) -> Int[ndarray, "n 2"]:
    """Row numbers of intervals that overlap."""
    if not len(a) or not len(b):
        return np.zeros((0, 2), np.int64)
    bare = [t[["chrom", "start", "end"]].reset_index(drop=True) for t in (a, b)]
    found = bioframe.overlap(*bare, how="inner", return_index=True, return_input=False)
    return found[["index", "index_"]].to_numpy(np.int64)
