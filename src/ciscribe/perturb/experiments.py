"""Motifs put into sequences that do not hold them, alone and in pairs; and pairs of mutations in those that do.

Every experiment is a difference of readings. `marginalize` asks what a motif does by itself, `space` what two motifs do
beyond the sum of both, and `double_mutants` the same of two substitutions. A motif that is put in counts as what could
be taken away again, so an effect is *with − without*: positive where the motif raises the output, as everywhere.
`insert` makes the sequences; `before_after` reads anything else off them, such as attributions.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped, UInt8
from numpy import ndarray
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle
from ciscribe.perturb.edits import Edits
from ciscribe.perturb.reading import AT_ONCE, Reading, Sequences, predict, read, standard_error, t_test, tabulate
from ciscribe.schema import Motif, check_motifs
from ciscribe.sequence import BASES, N, codes_of, encode, reverse_complement_codes

Pattern = str | Motif
ORIENTATIONS = ("++", "+-", "-+", "--")

CARDS = {
    "global_importance": Card(
        name="global_importance", kind="interpretation",
        summary="Puts a motif into many random backgrounds and asks how much the prediction rises on average.",
        paper="Koo et al. 2021, PLoS Comput Biol 17:e1008925, doi:10.1371/journal.pcbi.1008925",
        differences=("Each background is its own control, and the mean difference has a standard error and a paired "
                     "t-test.",),
        n_policy="an N in a pattern keeps the base of the background"),
    "spacing": Card(
        name="spacing", kind="interpretation",
        summary="Puts two motifs into backgrounds at every distance and orientation and asks what they do beyond the "
                "sum of both.",
        paper="in silico distance analysis: Avsec et al. 2021, Nat Genet 53:354, doi:10.1038/s41588-021-00782-6 "
              "(BPNet)",
        differences=("Cooperativity is the double difference f(AB) - f(A) - f(B) + f(none) in the same background, "
                     "each motif alone where it stands in the pair, with standard error and paired t-test.",
                     "All four orientations; distances are gaps between the edges of the motifs.",),
        n_policy="an N in a motif keeps the base of the background"),
    "double_mutants": Card(
        name="double_mutants", kind="interpretation",
        summary="Changes two bases at once and asks what that does beyond the sum of both changes.",
        paper="deep feature interaction maps ask the same: Greenside et al. 2018, Bioinformatics 34:i629, "
              "doi:10.1093/bioinformatics/bty575",
        differences=("Exact predictions of all double mutants, not gradients of attributions.",),
        n_policy="an N has no mutants"),
}


def insert(X: Sequences, pattern: Pattern, position: int | None = None, *, strand: str = "+", sample: bool = False,
           seed: int | None = 0) -> UInt8[ndarray, "B L"]:
    """Sequences with a motif written over what stood there; lengths stay.

    Parameters
    ----------
    X
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    pattern
        Letters ACGTN, where N keeps what is there; or a motif: its most probable bases.
    position
        First base that is written; None centers the pattern.
    strand
        ``"-"`` writes the reverse complement to the same place.
    sample
        Draw a site of a motif for every sequence instead of its most probable bases.
    seed
        Of the sites that are drawn.

    Raises
    ------
    SchemaError
        When the pattern holds other letters or does not fit.
    """
    codes = codes_of(X)
    bases = _sites(pattern, len(codes), strand, sample, seed)
    start = _place(position, bases.shape[1], codes.shape[1])
    out = codes.copy()
    there = out[:, start:start + bases.shape[1]]
    there[:] = np.where(bases == N, there, bases)
    return out


def marginalize(oracle: Oracle, patterns: Pattern | Sequence[Pattern] | Mapping[str, Pattern], backgrounds: Sequences,
                S: Tensor | None = None, covariates: Tensor | None = None, *, position: int | None = None,
                strand: str = "+", sample: bool = False, func: Reading = predict, batch_size: int = 64,
                seed: int | None = 0) -> pd.DataFrame:
    """How much a motif by itself raises the prediction, averaged over backgrounds (global importance analysis).

    Parameters
    ----------
    oracle
        The model.
    patterns
        Letters, motifs or several of them; see `insert`. A mapping gives names; otherwise letters and motifs name
        themselves.
    backgrounds
        At least 2 sequences; 50 and more make a useful test. Dinucleotide shuffles of the sequences in question
        (`ciscribe.perturb.reading.shuffles`) have their composition without their sites.
    S, covariates
        Further inputs of the backgrounds.
    position, strand, sample, seed
        Where and how the pattern is written; see `insert`.
    func
        What is read, ``(B, T)``. For larger readings use ``before_after(oracle, backgrounds, insert(...), func=...)``.
    batch_size
        Sequences a forward pass.

    Returns
    -------
    DataFrame
        One row a pattern and track: ``pattern, n, track``, the means ``without`` and ``with_pattern``, ``effect`` =
        with − without, ``se`` over backgrounds and ``p_value`` (two-sided paired t-test that the effect is zero: small
        also for effects that are tiny and the same everywhere, so read both).

    Raises
    ------
    SchemaError
        When a pattern does not fit, names repeat, or there are fewer than 2 backgrounds.

    References
    ----------
    Koo, Majdandzic, Ploenzke, Anand & Paul 2021, PLoS Comput Biol 17:e1008925, doi:10.1371/journal.pcbi.1008925.
    Differences: see `CARDS`.
    """
    codes = _backgrounds(backgrounds)
    named = _named(patterns)
    without = read(oracle, codes, None, S, covariates, func=func, batch_size=batch_size).astype(np.float64)
    rows = []
    for pattern in named.values():
        made = insert(codes, pattern, position, strand=strand, sample=sample, seed=seed)
        rows.append(read(oracle, made, None, S, covariates, func=func, batch_size=batch_size) - without)
    effect, error, p = _summary(np.stack(rows))
    mean = np.broadcast_to(without.mean(axis=0), effect.shape)
    return tabulate({"pattern": list(named), "n": len(codes)}, without=mean, with_pattern=mean + effect, effect=effect,
                    se=error, p_value=p)


def space(oracle: Oracle, motif_a: Pattern, motif_b: Pattern, backgrounds: Sequences,
          distances: Sequence[int] | Int[ndarray, " D"] | range, S: Tensor | None = None,
          covariates: Tensor | None = None, *, orientations: Sequence[str] = ORIENTATIONS, position: int | None = None,
          sample: bool = False, func: Reading = predict, batch_size: int = 64, seed: int | None = 0) -> pd.DataFrame:
    """What two motifs do together beyond the sum of both, at each distance and orientation.

    Motif A stays in its place and B moves to the right of it. A pair with B on the left is the same as A after B:
    exchange the motifs.

    Parameters
    ----------
    oracle
        The model.
    motif_a, motif_b
        Letters or motifs, see `insert`.
    backgrounds
        At least 2 sequences, each its own control; see `marginalize`.
    distances
        Gaps: bp between the last base of A and the first of B, 0 for motifs that touch. (Center to center that is
        ``gap + (width_a + width_b) / 2``, start to start ``gap + width_a``.)
    S, covariates
        Further inputs of the backgrounds.
    orientations
        Strand of A, then strand of B.
    position
        First base of A; None centers the widest pair.
    sample, seed
        Draw sites of the motifs, one a background; see `insert`.
    func, batch_size
        What is read, ``(B, T)``; sequences a forward pass.

    Returns
    -------
    DataFrame
        One row a gap, orientation and track: ``gap, orientation, n, track``, ``effect_a`` and ``effect_b`` (each motif
        alone, where it stands in the pair, minus none), ``effect`` (both minus none), ``cooperativity`` = f(AB) − f(A)
        − f(B) + f(none): positive where the pair does more than the sum; and its standard error ``se`` and two-sided
        ``p_value`` over backgrounds. Units of the readout, so what is additive in log is not in counts.

    Raises
    ------
    SchemaError
        When a pair does not fit, a gap is negative, an orientation is unknown, or there are fewer than 2 backgrounds.

    Notes
    -----
    Costs about ``n · (1 + 6 D)`` predictions with four orientations.

    References
    ----------
    Avsec et al. 2021, Nat Genet 53:354, doi:10.1038/s41588-021-00782-6. Differences: see `CARDS`.
    """
    codes = _backgrounds(backgrounds)
    gaps = np.asarray(distances)
    if gaps.ndim != 1 or not gaps.size or gaps.dtype.kind not in "iu" or gaps.min() < 0:
        raise SchemaError(f"distances are gaps of 0 or more whole bp between the edges of the motifs; got {distances}")
    unknown = [o for o in orientations if o not in ORIENTATIONS]
    if unknown or not orientations:
        raise SchemaError(f"orientations are among {', '.join(ORIENTATIONS)} (strand of A, of B); got "
                          f"{', '.join(map(repr, unknown)) or 'none'}")
    n, length = codes.shape
    a = {s: _sites(motif_a, n, s, sample, seed) for s in "+-"}
    b = {s: _sites(motif_b, n, s, sample, None if seed is None else seed + 1) for s in "+-"}
    width_a, width_b = a["+"].shape[1], b["+"].shape[1]
    wide = width_a + width_b + int(gaps.max())
    at_a = _place(position, wide, length)

    def arranged(gap: int, strand_a: str, strand_b: str, span: int) -> ndarray:
        """Backgrounds from the first base of A on, `span` bp, with A (where it has a strand) and B (likewise)."""
        made = codes[:, at_a:at_a + span].copy()
        for start, sites in ((0, a.get(strand_a)), (width_a + gap, b.get(strand_b))):
            if sites is not None:
                there = made[:, start:start + sites.shape[1]]
                there[:] = np.where(sites == N, there, sites)
        return made

    def effects(kinds: list[tuple[int, str, str]]) -> dict[tuple[int, str, str], ndarray]:
        """What each kind of arrangement changes, (n, T); arrangements of one background are asked together."""
        span = width_a + width_b + max(gap for gap, *_ in kinds)
        made = np.concatenate([arranged(*kind, span) for kind in kinds])
        edits = Edits(np.tile(np.arange(n), len(kinds)), np.full(len(made), at_a), made)
        y = read(oracle, codes, edits, S, covariates, func=func, batch_size=batch_size).reshape(len(kinds), n, -1)
        return dict(zip(kinds, y - none, strict=True))

    none = read(oracle, codes, None, S, covariates, func=func, batch_size=batch_size).astype(np.float64)
    strands_a, strands_b = (sorted({o[i] for o in orientations}) for i in (0, 1))
    step = max(1, AT_ONCE // (n * (len(orientations) + 4)))
    keys, found = [], []
    for i in range(0, len(gaps), step):
        some = gaps[i:i + step].tolist()
        of = effects([(0, s, "") for s in strands_a] + [(gap, "", s) for gap in some for s in strands_b]
                     + [(gap, o[0], o[1]) for gap in some for o in orientations])
        for gap, o in product(some, orientations):
            alone_a, alone_b, both = of[0, o[0], ""], of[gap, "", o[1]], of[gap, o[0], o[1]]
            keys.append((gap, o, n))
            beyond = _summary((both - alone_a - alone_b)[None])
            found.append([*(x.mean(axis=0) for x in (alone_a, alone_b, both)), *(x[0] for x in beyond)])
    effect_a, effect_b, effect, cooperativity, error, p = np.stack(found, axis=1)
    return tabulate(pd.DataFrame(keys, columns=pd.Index(["gap", "orientation", "n"])), effect_a=effect_a,
                    effect_b=effect_b, effect=effect, cooperativity=cooperativity, se=error, p_value=p)


def double_mutants(oracle: Oracle, X: Sequences,
                   positions: Sequence[int] | range | Sequence[tuple[int, int]] | Int[ndarray, "n *two"],
                   S: Tensor | None = None, covariates: Tensor | None = None, *, func: Reading = predict,
                   batch_size: int = 64, progress: bool = False) -> pd.DataFrame:
    """Whether two substitutions together do more or less than the sum of both (epistasis).

    Parameters
    ----------
    oracle, X, S, covariates
        The model, codes ``(B, L)`` or one-hot ``(B, 4, L)``, and further inputs.
    positions
        Positions of the sequence, such as ``range(120, 140)``: all pairs among them. Or a table ``(n, 2)`` of pairs.
    func, batch_size, progress
        What is read, ``(B, T)``; sequences a forward pass; show a bar.

    Returns
    -------
    DataFrame
        Nine rows a sequence and pair, times tracks: ``region, position_a, base_a, position_b, base_b, track``, with
        the bases that are put in; ``effect_a, effect_b, effect`` of the first, the second and both substitutions, each
        before − after; and ``epistasis`` = f(ab) − f(a) − f(b) + f(wild type) = effect_a + effect_b − effect: positive
        where both together take away less than the sum (as two blows to the same motif do), negative where they take
        away more (as when either site can stand in for the other). Pairs that touch an N are left out.

    Raises
    ------
    SchemaError
        When a position is not in the sequence, or a pair is one position twice.

    Notes
    -----
    Costs nine predictions of edits a pair, 1,710 for 20 bp.
    """
    codes = codes_of(X)
    pairs = _pairs(positions, codes.shape[1])
    options = {"func": func, "batch_size": batch_size}
    wild = read(oracle, codes, None, S, covariates, **options).astype(np.float64)
    # Alternatives 1, 2, 3 are the other bases in cyclic order, so that every position has three whatever it holds.
    step_a, step_b = (v.ravel().astype(np.uint8) for v in np.meshgrid([1, 2, 3], [1, 2, 3], indexing="ij"))
    region = np.repeat(np.arange(len(codes)), len(pairs))
    p, q = np.tile(pairs, (len(codes), 1)).T
    held = (codes[region, p] != N) & (codes[region, q] != N)
    region, p, q = (np.repeat(v[held], 9) for v in (region, p, q))
    steps = len(region) // 9
    base_p = (codes[region, p] + np.tile(step_a, steps)) % 4
    base_q = (codes[region, q] + np.tile(step_b, steps)) % 4

    # Each single mutant is asked once; the number of one is (region · L + position) · 4 + base.
    length = codes.shape[1]
    number_p, number_q = ((region * length + at) * 4 + base for at, base in ((p, base_p), (q, base_q)))
    singles = np.unique(np.concatenate([number_p, number_q]))
    place, base = np.divmod(singles, 4)
    single = _ask(oracle, codes, Edits(*np.divmod(place, length), base[:, None].astype(np.uint8)), S, covariates, wild,
                  progress=progress, **options)
    effect_p, effect_q = (single[np.searchsorted(singles, number)] for number in (number_p, number_q))

    effect = np.zeros(effect_p.shape)
    for gap in np.unique(q - p):  # edits of one width are made together
        at = np.flatnonzero(q - p == gap)
        made = codes[region[at, None], p[at, None] + np.arange(gap + 1)]
        made[:, 0], made[:, -1] = base_p[at], base_q[at]
        effect[at] = _ask(oracle, codes, Edits(region[at], p[at], made), S, covariates, wild, progress=progress,
                          **options)
    letters = np.array(list(BASES))
    return tabulate({"region": region, "position_a": p, "base_a": letters[base_p], "position_b": q,
                     "base_b": letters[base_q]}, effect_a=effect_p, effect_b=effect_q, effect=effect,
                    epistasis=effect_p + effect_q - effect)


def _ask(oracle: Oracle, codes: ndarray, edits: Edits, S: Tensor | None, covariates: Tensor | None, wild: ndarray,
         **options: object) -> ndarray:
    """Effects of edits, before − after."""
    if not len(edits.row):
        return np.zeros((0, wild.shape[1]))
    return wild[edits.row] - read(oracle, codes, edits, S, covariates, **options)  # type: ignore[arg-type]


def _summary(effects: Shaped[ndarray, "K n T"]) -> tuple[ndarray, ndarray, ndarray]:
    """Mean over backgrounds, its standard error, and the p-value of it being zero."""
    mean, error = effects.mean(axis=1), standard_error(effects)
    return mean, error, t_test(mean, error, effects.shape[1])


def _backgrounds(X: Sequences) -> UInt8[ndarray, "n L"]:
    codes = codes_of(X)
    if len(codes) < 2:
        raise SchemaError(f"a standard error needs at least 2 backgrounds, better 50 or more; got {len(codes)}")
    return codes


def _named(patterns: Pattern | Sequence[Pattern] | Mapping[str, Pattern]) -> dict[str, Pattern]:
    if isinstance(patterns, Mapping):
        return dict(patterns)
    several = [patterns] if isinstance(patterns, (str, Motif)) else list(patterns)
    names = [p if isinstance(p, str) else p.name for p in several]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        raise SchemaError(f"every pattern needs a name of its own; {f'{twice[0]!r} repeats' if twice else 'got none'}; "
                          "give a mapping from names to patterns")
    return dict(zip(names, several, strict=True))


def _sites(pattern: Pattern, n: int, strand: str, sample: bool, seed: int | None) -> UInt8[ndarray, "n w"]:
    """Bases of a pattern, one row a background."""
    if strand not in ("+", "-"):
        raise SchemaError(f"strand is + or -; got {strand!r}")
    if isinstance(pattern, str):
        odd = sorted(set(pattern.upper()) - set("ACGTN"))
        if odd or not pattern:
            raise SchemaError(f"a pattern is made of the letters ACGTN (N keeps the background); got {pattern!r}; for "
                              "other IUPAC letters give a Motif")
        sites = np.tile(encode(pattern), (n, 1))
    else:
        check_motifs([pattern])
        if sample:
            u = np.random.default_rng(seed).random((n, 1, pattern.ppm.shape[1]))
            sites = np.minimum((u >= pattern.ppm.cumsum(axis=0)).sum(axis=1), 3).astype(np.uint8)
        else:
            sites = np.tile(pattern.ppm.argmax(axis=0).astype(np.uint8), (n, 1))
    return sites if strand == "+" else reverse_complement_codes(sites)


def _place(position: int | None, width: int, length: int) -> int:
    """First base of what is `width` wide."""
    start = (length - width) // 2 if position is None else position
    if not 0 <= start <= length - width:
        raise SchemaError(f"{width} bp do not fit into a background of {length} bp"
                          + ("" if position is None else f" at position {position}"))
    return start


def _pairs(positions: Sequence[int] | Sequence[tuple[int, int]] | ndarray | range, length: int) -> Int[ndarray, "n 2"]:
    """Pairs in ascending order of their positions, without repeats."""
    given = np.asarray(positions)
    if given.ndim == 1 and given.dtype.kind in "iu":
        given = np.array(list(combinations(np.unique(given).tolist(), 2)), dtype=np.int64).reshape(-1, 2)
    if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind not in "iu" or not given.size:
        raise SchemaError(f"positions are at least two whole numbers, or a table (n, 2) of pairs; got {positions!r}")
    bad = ((given < 0) | (given >= length)).any(axis=1) | (given[:, 0] == given[:, 1])
    if bad.any():
        raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} pairs are not two positions of a sequence of {length:,} "
                          f"bp; first: {given[bad][0].tolist()}")
    return np.unique(np.sort(given, axis=1), axis=0).astype(np.int64)
