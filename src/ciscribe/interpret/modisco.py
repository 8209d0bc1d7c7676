"""Motif discovery: what the places have in common that a model pays attention to."""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numba
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Shaped
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import ConfigError, DependencyError, SchemaError, UnknownNameError, nearest
from ciscribe.interpret.patterns import Pattern, pattern_similarity
from ciscribe.interpret.seqlets import SHARES, call_seqlets
from ciscribe.results import check_attribution_array
from ciscribe.schema import Motif
from ciscribe.sequence import BASES, codes_of

_OURS = ("Patterns of one sign whose contribution weight matrices have a cosine of 0.9 or more at their best offset "
         "and strand are one (the library leaves copies apart), and are cut to the span whose columns surely "
         "contribute a fifth of what the best one does. Seqlets that are unlike their pattern (cosine below 0.5) are "
         "left out.")
CARDS = (
    Card(
        name="tf-modisco",
        kind="interpretation",
        summary="Finds motifs by clustering the places that a model pays attention to (TF-MoDISco).",
        paper="Shrikumar et al. 2018, arXiv:1811.00416",
        code="kundajelab/tfmodisco, the installed release of modisco-lite: modiscolite.tfmodisco.seqlets_to_patterns",
        licence="modisco-lite is MIT and is called as a library",
        differences=(
            "Seqlets come from `ciscribe.interpret.seqlets` and reach to the ends of a sequence; the library drops "
            "those whose flanks leave it.",
            "2 runs of Leiden clustering instead of 50, of which the library keeps the best: validation/modisco.md.",
            "When there are too many seqlets, those that are used are drawn at random, not the first ones.",
            _OURS,
        ),
        n_policy="an N contributes 0 and counts for no base",
    ),
    Card(
        name="seqlet-clusters",
        kind="interpretation",
        summary="Finds motifs by average-linkage clustering of the places that a model pays attention to.",
        paper="own; a light stand-in for TF-MoDISco, Shrikumar et al. 2018, arXiv:1811.00416",
        code="own",
        differences=(
            "Similarity is the cosine of contributions at the best offset and strand, clustered once by average "
            "linkage; no hypothetical contributions, no density adaptation, no second round.",
            _OURS,
        ),
        n_policy="an N contributes 0 and counts for no base",
    ),
)

ENGINES = {"modisco": 20_000, "clusters": 5_000}
"""Ways to cluster seqlets, and the most seqlets of one sign that each takes unless told."""
MERGE = 0.9
_CUT = 0.6  # mean cosine within a cluster of seqlets; what it leaves apart is merged as patterns
_TRIM = 0.2
_TRIM_SE = 4.0  # standard errors: a column of few seqlets may reach a fifth of the best one by chance
_LIKE = 0.5  # least cosine of a seqlet and its pattern; of noise alone it is about 0.3
_FLANK = 10  # bp around a seqlet in which its pattern may extend


class _Sites(NamedTuple):
    """Places of one pattern: windows of equal width, read on either strand. They may stick out of a sequence."""

    region: ndarray
    start: ndarray
    reverse: ndarray
    width: int

    def window(self, first: int, last: int) -> "_Sites":
        """Columns first to last of the pattern; may be more than it has."""
        start = np.where(self.reverse, self.start + self.width - last, self.start + first)
        return _Sites(self.region, start, self.reverse, last - first)

    def flip(self) -> "_Sites":
        """Return the same places, read on the other strand."""
        return self._replace(reverse=~self.reverse)

    def select(self, which: ndarray) -> "_Sites":
        """Some of the places."""
        return _Sites(self.region[which], self.start[which], self.reverse[which], self.width)


class _Data(NamedTuple):
    """Sequences and what each base of them would contribute."""

    codes: ndarray
    values: ndarray

    @property
    def length(self) -> int:
        return self.codes.shape[1]

    def contributions(self) -> ndarray:
        """Contribution of the base that is there, ``(B, L)``."""
        there = np.minimum(self.codes, 3)[:, None].astype(np.int64)
        return np.where(self.codes < 4, np.take_along_axis(self.values, there, axis=1)[:, 0], 0)

    def cut(self, sites: _Sites) -> tuple[ndarray, ndarray]:
        """One-hot and hypothetical contributions of places on their strand, ``(n, 4, width)``; 0 off the sequence."""
        at = sites.start[:, None] + np.arange(sites.width)
        inside = (at >= 0) & (at < self.length)
        at = np.clip(at, 0, self.length - 1)
        one_hot = (self.codes[sites.region[:, None], at][:, None] == np.arange(4)[:, None]) & inside[:, None]
        values = self.values[sites.region[:, None, None], np.arange(4)[:, None], at[:, None]] * inside[:, None]
        for array in (one_hot, values):
            array[sites.reverse] = array[sites.reverse][:, ::-1, ::-1]
        return one_hot, values

    def cwm(self, sites: _Sites) -> ndarray:
        """Mean contribution of the bases that are there, ``(4, width)``."""
        one_hot, values = self.cut(sites)
        return (one_hot * values).mean(axis=0, dtype=np.float64)

    def pattern(self, name: str, sites: _Sites, source: str) -> Pattern:
        """Everything about the pattern at these places."""
        one_hot, values = self.cut(sites)
        contributed = one_hot * values
        counts = one_hot.sum(axis=0).astype(np.float64)
        ppm = np.where(counts.sum(axis=0) > 0, counts / np.maximum(counts.sum(axis=0), 1), 0.25)
        seqlets = pd.DataFrame({"region": sites.region, "start": sites.start, "end": sites.start + sites.width,
                                "strand": np.where(sites.reverse, "-", "+"),
                                "contribution": contributed.sum(axis=(1, 2), dtype=np.float64)})
        seqlets = seqlets.sort_values(["region", "start"], ignore_index=True)
        return Pattern(Motif(name, ppm, source), contributed.mean(axis=0, dtype=np.float64),
                       values.mean(axis=0, dtype=np.float64), seqlets)


def default_engine() -> str:
    """``modisco`` where its extra is installed, else ``clusters``."""
    return "modisco" if find_spec("modiscolite") else "clusters"


def discover_motifs(X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], attributions: xr.DataArray, *,
                    track: int | str = 0, engine: str = "modisco", window: int | None = None, width: int = 21,
                    fdr: float = 0.2, shares: tuple[float, float] = SHARES, max_seqlets: int | None = None,
                    min_seqlets: int = 20, n_leiden_runs: int = 2, merge: float = MERGE, seed: int = 0
                    ) -> list[Pattern]:
    """Find the motifs that a model responds to, from the importance it gives to every base.

    Seqlets are called (`call_seqlets`), those that raise the output apart from those that lower it; each kind is
    clustered into patterns; patterns that are the same are merged (`merge_patterns`) and cut to what contributes.

    Parameters
    ----------
    X
        The sequences, codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    attributions
        Hypothetical importance of the same sequences, ``(region, base, position, track)``.
    track
        Which track: its name, or its place counted from 0.
    engine
        ``"modisco"``: TF-MoDISco by modisco-lite (extra `motifs`). ``"clusters"``: average-linkage clustering, ours;
        needs no extra, takes seconds, meant for up to 5,000 seqlets.
    window
        Look for seqlets in this many bp in the middle of every sequence; None looks at all of it.
    width, fdr, shares
        Of `call_seqlets`: length of a seqlet in bp, share of false ones, least and most share of windows. A pattern
        may be 10 bp longer on each side.
    max_seqlets
        Most seqlets of each sign; when there are more, those that are used are drawn at random. None takes 20,000
        with ``"modisco"`` and 5,000 with ``"clusters"``.
    min_seqlets
        Fewest seqlets of a pattern.
    n_leiden_runs
        Runs of Leiden clustering, of which the best is kept (``"modisco"``). Time grows with it; what it changes is in
        ``validation/modisco.md``.
    merge
        Patterns of one sign at least this similar (`pattern_similarity`) are one; above 1 keeps all apart.
    seed
        Of the draw of seqlets. Leiden has seeds of its own, 100, 200 …, so that equal input gives equal patterns.

    Returns
    -------
    list of Pattern
        First those that raise the output, ``pos_0``, ``pos_1`` …, then ``neg_0`` …, each by number of seqlets. Seqlets
        lie within their sequences, have the width of the pattern, and a cosine of at least 0.5 with it; two of one
        pattern overlap by less than half.

    Raises
    ------
    SchemaError
        When attributions do not fit the sequences, are all 0, sequences or the window are shorter than a seqlet, or
        fewer than `min_seqlets` seqlets of either sign are found.
    UnknownNameError
        For an unknown engine or track.
    DependencyError
        When modisco-lite is not installed and ``engine="modisco"``.

    References
    ----------
    Shrikumar et al. 2018, arXiv:1811.00416; reference code kundajelab/tfmodisco (modisco-lite 3). Differences: `CARDS`.
    """
    if engine not in ENGINES:
        raise UnknownNameError(f"unknown engine {engine!r}; {nearest(engine, ENGINES)}")
    if min_seqlets < 2 or n_leiden_runs < 1 or merge <= 0 or (max_seqlets is not None and max_seqlets < min_seqlets):
        raise ConfigError("need min_seqlets >= 2, max_seqlets >= min_seqlets, n_leiden_runs >= 1 and merge > 0; got "
                          f"{min_seqlets=}, {max_seqlets=}, {n_leiden_runs=}, {merge=}")
    data = _data(X, attributions, track)
    seqlets = call_seqlets(data.contributions(), width=width, window=window, fdr=fdr, shares=shares)
    found = {sign: seqlets[seqlets["sign"] == sign] for sign in (1, -1)}
    if max(map(len, found.values())) < min_seqlets:
        raise SchemaError(f"a pattern needs {min_seqlets} seqlets; found {len(found[1])} that raise the output and "
                          f"{len(found[-1])} that lower it; give more sequences, or lower min_seqlets")
    rng = np.random.default_rng(seed)
    patterns = []
    for sign, name in ((1, "pos"), (-1, "neg")):
        table = found[sign]
        most = ENGINES[engine] if max_seqlets is None else max_seqlets
        if len(table) > most:
            table = table.iloc[np.sort(rng.choice(len(table), most, replace=False))]
        if len(table) < min_seqlets:
            continue
        sites = _Sites(np.asarray(table["region"]), np.asarray(table["start"]), np.zeros(len(table), dtype=bool), width)
        groups = (_modisco(data, sites, sign, min_seqlets, n_leiden_runs) if engine == "modisco"
                  else _clusters(data, sites, min_seqlets))
        groups = [_distinct(data, _trim(data, g), sign) for _, g in _merge(data, groups, merge)]
        groups = sorted((g for g in groups if len(g.region) >= min_seqlets), key=lambda g: -len(g.region))
        source = f"{engine} of {attributions.attrs.get('method', 'attributions')}"
        patterns += [data.pattern(f"{name}_{i}", g, source) for i, g in enumerate(groups)]
    return patterns


def merge_patterns(patterns: Sequence[Pattern], X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."],
                   attributions: xr.DataArray, *, track: int | str = 0, threshold: float = MERGE) -> list[Pattern]:
    """Make one of patterns that are the same, such as those of two runs or of two tracks.

    The two most similar patterns of one sign become one, as long as there are two of at least `threshold`: the
    seqlets of the smaller are moved to where they fit the larger, whose name and width stay, and the matrices are
    read again from the sequences.

    Parameters
    ----------
    patterns
        Patterns of these sequences.
    X, attributions, track
        As in `discover_motifs`.
    threshold
        Least similarity (`pattern_similarity` of the contribution weight matrices).

    Returns
    -------
    list of Pattern
        The ones left, by number of seqlets, those that raise the output first.
    """
    data, merged = _data(X, attributions, track), []
    for sign in (1, -1):
        own = sorted((p for p in patterns if p.sign == sign), key=lambda p: -len(p.seqlets))
        sites = [_Sites(np.asarray(p.seqlets["region"]), np.asarray(p.seqlets["start"]),
                        np.asarray(p.seqlets["strand"]) == "-", p.cwm.shape[1]) for p in own]
        groups = [(own[i].motif, _distinct(data, g, sign)) for i, g in _merge(data, sites, threshold)]
        merged += [data.pattern(motif.name, g, motif.source)
                   for motif, g in sorted(groups, key=lambda pair: -len(pair[1].region))]
    return merged


def patterns_table(patterns: Sequence[Pattern]) -> pd.DataFrame:
    """One row a pattern: what it looks like, how often and how strongly it is used.

    Returns
    -------
    DataFrame
        ``motif`` (name), ``sign``, ``seqlets``, ``regions`` (how many hold one), ``width``, ``consensus`` (lower case
        where no base has half of the frequency), ``information`` (bits against equal bases, of the whole motif),
        ``contribution`` (mean of a seqlet, units of the attribution).
    """
    rows = []
    for p in patterns:
        ppm = p.motif.ppm
        letters = [BASES[i] if f >= 0.5 else BASES[i].lower() for i, f in zip(ppm.argmax(0), ppm.max(0), strict=True)]
        bits = float((ppm * np.log2(np.maximum(ppm, 1e-12) / 0.25)).sum())
        rows.append((p.name, p.sign, len(p.seqlets), p.seqlets["region"].nunique(), ppm.shape[1], "".join(letters),
                     bits, p.seqlets["contribution"].mean()))
    return pd.DataFrame(rows, columns=pd.Index(["motif", "sign", "seqlets", "regions", "width", "consensus",
                                                "information", "contribution"]))


def _data(X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], attributions: xr.DataArray, track: int | str
          ) -> _Data:
    """Codes and hypothetical importance of one track, checked against each other."""
    codes = codes_of(X)
    check_attribution_array(attributions)
    n, _, length, n_tracks = attributions.shape
    if codes.shape != (n, length):
        raise SchemaError(f"attributions of {n:,} sequences of {length:,} bp do not belong to X, {codes.shape[0]:,} "
                          f"sequences of {codes.shape[1]:,} bp; give the sequences that they were computed for")
    names = attributions["track"].values.tolist()
    if isinstance(track, str) and track not in names:
        raise UnknownNameError(f"unknown track {track!r}; {nearest(track, map(str, names))}")
    at = names.index(track) if isinstance(track, str) else track
    if not 0 <= at < n_tracks:
        raise UnknownNameError(f"track {at} is not one of {n_tracks}, counted from 0")
    return _Data(codes, attributions.values[..., at].astype(np.float32, copy=False))


def _modisco(data: _Data, seqlets: _Sites, sign: int, min_seqlets: int, n_leiden_runs: int) -> list[_Sites]:
    """Patterns of seqlets by modisco-lite. Its sequences get empty flanks, into which seqlets at their ends reach."""
    try:
        from modiscolite import core, precompile, tfmodisco
    except ImportError:
        raise DependencyError.of("modisco-lite", "motifs", "discover_motifs(engine='modisco')") from None
    regions, row = np.unique(seqlets.region, return_inverse=True)
    pad = seqlets.width + 2 * _FLANK
    whole = _Sites(regions, np.full(len(regions), -pad), np.zeros(len(regions), dtype=bool), data.length + 2 * pad)
    one_hot, values = (np.ascontiguousarray(a.transpose(0, 2, 1), dtype=np.float32) for a in data.cut(whole))
    tracks = core.TrackSet(one_hot=one_hot, contrib_scores=one_hot * values, hypothetical_contribs=values)
    wide = seqlets.window(-_FLANK, seqlets.width + _FLANK)
    precompile.start()  # as its TFMoDISco() does: kernels are compiled aside and kept for the next process
    threads = numba.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it divides by 0 for seqlets that are like no other
        try:
            patterns = tfmodisco.seqlets_to_patterns(
                tracks.create_seqlets([core.Seqlet(int(i), int(start) + pad, int(start) + pad + wide.width, False)
                                       for i, start in zip(row, wide.start, strict=True)]),
                track_set=tracks, track_signs=sign, n_leiden_runs=n_leiden_runs, final_min_cluster_size=min_seqlets,
                # What the library's TFMoDISco() passes; the defaults of this function differ.
                trim_to_window_size=30, initial_flank_to_add=10)
        finally:
            numba.set_num_threads(threads)
    return [_Sites(regions[[s.example_idx for s in p.seqlets]], np.array([s.start - pad for s in p.seqlets]),
                   np.array([s.is_revcomp for s in p.seqlets], dtype=bool), p.length) for p in patterns or []]


def _clusters(data: _Data, seqlets: _Sites, min_seqlets: int) -> list[_Sites]:
    """Patterns of seqlets by average linkage; what is left of a small cluster may still merge with a larger one."""
    one_hot, values = data.cut(seqlets)
    similarity = _similarities((one_hot * values).astype(np.float32))
    tree = linkage(squareform(1 - similarity.astype(np.float64), checks=False), method="average")
    labels = fcluster(tree, 1 - _CUT, criterion="distance")
    groups = []
    for label in range(1, int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        if len(members) < max(2, min_seqlets // 4):
            continue
        group = seqlets.select(members)
        medoid = int(similarity[np.ix_(members, members)].sum(axis=0).argmax())
        template = data.cwm(group.select(np.array([medoid])))
        for _ in range(3):
            group = _align(data, group, template)
            template = data.cwm(group)
        groups.append(group.window(-_FLANK, group.width + _FLANK))
    return groups


def _similarities(features: Float[ndarray, "n 4 W"]) -> Float[ndarray, "n n"]:
    """Cosine of all pairs at their best offset and strand, as `pattern_similarity`; one matrix product an offset."""
    n, _, width = features.shape
    features = features / np.maximum(np.linalg.norm(features, axis=(1, 2), keepdims=True), 1e-12)
    other, best = features[:, ::-1, ::-1], np.full((n, n), -1, dtype=np.float32)
    for offset in range(width):  # moving one to the left is moving the other to the right
        left, right = features[:, :, offset:].reshape(n, -1), features[:, :, :width - offset].reshape(n, -1)
        for a, b in ((left, right), (left, other[:, :, :width - offset].reshape(n, -1)),
                     (features[:, :, :width - offset].reshape(n, -1), other[:, :, offset:].reshape(n, -1))):
            np.maximum(best, a @ b.T, out=best)
    best = np.maximum(best, best.T)
    np.fill_diagonal(best, 1)
    return np.clip(best, -1, 1)


def _align(data: _Data, sites: _Sites, template: Float[ndarray, "4 W"]) -> _Sites:
    """Move each site, by up to its width and to either strand, to where its contributions fit the template best."""
    reach, width = sites.width, sites.width
    area = sites._replace(reverse=np.zeros(len(sites.region), dtype=bool)).window(-reach, width + reach)
    one_hot, values = data.cut(area)
    contributed = (one_hot * values).astype(np.float64)
    windows = sliding_window_view(contributed, width, axis=2)  # (n, 4, offsets, width)
    norm = np.sqrt(np.einsum("ncow,ncow->no", windows, windows))
    fits = np.stack([np.einsum("ncow,cw->no", windows, t) for t in (template, template[::-1, ::-1])])
    fits /= np.maximum(norm, 1e-9 * max(norm.max(), 1e-300))
    best = fits.transpose(1, 0, 2).reshape(len(area.region), -1).argmax(axis=1)
    reverse, offset = np.divmod(best, fits.shape[2])
    return _Sites(sites.region, area.start + offset, reverse == 1, width)


def _merge(data: _Data, groups: Sequence[_Sites], threshold: float) -> list[tuple[int, _Sites]]:
    """Join the two most alike until none are; each with the number of the largest group in it."""
    sites = dict(enumerate(groups))
    cwms = {i: _clear(data, g) for i, g in sites.items()}
    fits = {(i, j): pattern_similarity(cwms[i], cwms[j]) for i in sites for j in sites if i < j}
    while fits:
        i, j = max(fits, key=lambda pair: fits[pair].similarity)
        if fits[i, j].similarity < threshold:
            break
        if len(sites[i].region) < len(sites[j].region):
            i, j = j, i
        fit = pattern_similarity(cwms[i], cwms[j])
        child = sites.pop(j) if fit.strand == "+" else sites.pop(j).flip()
        parts = (sites[i], child.window(-fit.offset, sites[i].width - fit.offset))
        sites[i] = _Sites(*(np.concatenate([getattr(p, k) for p in parts]) for k in _Sites._fields[:3]),
                          width=sites[i].width)
        cwms[i] = _clear(data, sites[i])
        fits = {pair: f for pair, f in fits.items() if i not in pair and j not in pair}
        fits |= {(min(i, k), max(i, k)): pattern_similarity(cwms[min(i, k)], cwms[max(i, k)]) for k in sites if k != i}
    return list(sites.items())


def _contributing(data: _Data, sites: _Sites) -> ndarray:
    """Columns that contribute a share of what the best one does, and not by chance."""
    one_hot, values = data.cut(sites)
    contributed = (one_hot * values).sum(axis=1, dtype=np.float64)
    column, error = np.abs(contributed.mean(axis=0)), contributed.std(axis=0) / np.sqrt(len(contributed))
    best = column.max()
    return (column == best) | ((column >= _TRIM * best) & (column >= _TRIM_SE * error))


def _clear(data: _Data, sites: _Sites) -> Float[ndarray, "4 W"]:
    """Contribution weight matrix without the noise of its flanks."""
    return data.cwm(sites) * _contributing(data, sites)


def _trim(data: _Data, sites: _Sites) -> _Sites:
    """Cut to the span of the columns that contribute."""
    kept = np.flatnonzero(_contributing(data, sites))
    return sites.window(int(kept[0]), int(kept[-1]) + 1)


def _distinct(data: _Data, sites: _Sites, sign: int) -> _Sites:
    """Keep the places inside of their sequences that look like the rest; of two that overlap by half the stronger."""
    one_hot, values = data.cut(sites)
    contributed = (one_hot * values).reshape(len(values), -1).astype(np.float64)
    strength, mean = sign * contributed.sum(axis=1), contributed.mean(axis=0)
    norm = np.linalg.norm(contributed, axis=1) * np.linalg.norm(mean)
    good = (contributed @ mean >= _LIKE * norm) & (strength > 0)
    good &= (sites.start >= 0) & (sites.start + sites.width <= data.length)
    taken: dict[int, list[int]] = {}
    kept = []
    for i in np.argsort(-strength, kind="stable"):
        near = taken.setdefault(int(sites.region[i]), [])
        if good[i] and all(2 * abs(int(sites.start[i]) - other) > sites.width for other in near):
            near.append(int(sites.start[i]))
            kept.append(i)
    return sites.select(np.sort(np.array(kept, dtype=np.int64)))
