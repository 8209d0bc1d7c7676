"""Where a model uses its patterns: instances of motifs, called on the importance of the bases and not on the letters.

A motif that the model ignores at some place is not a hit there, however well it matches.
"""

from collections.abc import Sequence
from warnings import warn

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d, pad

from ciscribe.card import Card
from ciscribe.errors import ConfigError, SchemaError, UnknownNameError, nearest
from ciscribe.interpret.patterns import Pattern
from ciscribe.results import check_attribution_array, contributions
from ciscribe.schema import check_motifs
from ciscribe.sequence import codes_of, one_hot

CARD = Card(
    name="hit-caller",
    kind="interpretation",
    summary="Explains the importance of all bases by as few instances of the model's own patterns as possible.",
    paper="own implementation of the problem posed by Fi-NeMo, https://github.com/kundajelab/Fi-NeMo; solved as in "
          "Beck & Teboulle, SIAM J Imaging Sci 2009, doi:10.1137/080716542 (FISTA)",
    differences=(
        "Momentum is restarted when it points uphill (O'Donoghue & Candès 2015, doi:10.1007/s10208-013-9150-3).",
        "Hits that overlap by more than half are reduced to the strongest, of all patterns together.",
        "Coefficients are in units of the attribution, and rows carry the region they came from.",
        "A window without importance beyond the ripple of its sequence needs a better fit (`noise`).",
    ),
    n_policy="an N contributes nothing",
)

HIT_EXTRAS = ("coefficient", "similarity", "importance")
_MEMORY = 2**28  # bytes that the solver may take for a batch
_ARRAYS = 10  # of one number an atom that live at once
_CHECK_EVERY = 10  # steps between looks at the duality gap


def call_hits(X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], attributions: xr.DataArray,
              patterns: Sequence[Pattern], *, track: int | str = 0, alpha: float = 0.7, trim: float = 0.3,
              max_overlap: float = 0.5, noise: float = 0.25, tolerance: float = 1e-4, max_steps: int = 2_000,
              device: str = "cpu") -> pd.DataFrame:
    """Find the instances of patterns that together explain the importance of the bases.

    In each sequence, contributions `v` are fitted by a sum of patterns on both strands, ``D a``, with amplitudes
    ``a >= 0`` of which as few as possible are not 0::

        minimize  1/2 |v - D a|² + alpha Σ s a

    A column of `D` is a contribution weight matrix of norm 1 at one place, read at the bases that are there; `s` is the
    norm of the contributions in its window. So a pattern alone is a hit where the cosine of contributions and matrix
    exceeds `alpha`, whether the place is strong or weak, and patterns that overlap compete.

    Parameters
    ----------
    X
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    attributions
        Hypothetical importance of the same sequences, dims ``(region, base, position, track)``.
    patterns
        What to look for; a pattern that lowers the output is looked for where it lowers it.
    track
        Which of the tracks, by number or name.
    alpha
        Above 0, below 1; higher for fewer hits.
    trim
        Flanks of a pattern whose columns weigh less than this share of its heaviest are cut off; hits are as long as
        what is left.
    max_overlap
        Of two hits that share more than this part of the shorter, the one with the larger coefficient stays. 1 keeps
        all. One pattern at one place on both strands (a palindrome) is one hit, its coefficients added.
    noise
        How much the ripple between the sites counts: `s` is ``sqrt(|v|² + noise · width · r²)``, with `r` the lower
        quartile of the absolute contributions of the sequence over 0.3186 (their standard deviation, if they were
        normal and no site among them). With 0, as in Fi-NeMo, unimportant bases that happen to resemble a pattern are
        hits of small coefficient; above 0.25, sites that stand shoulder to shoulder are lost.
    tolerance
        The fit of a sequence ends when its duality gap is below this share of ``1/2 |v|²``.
    max_steps
        A warning says when some sequence has not come that far by then.
    device
        Where to compute.

    Returns
    -------
    DataFrame
        Hits (`ciscribe.schema.check_hits`) sorted by region and start: ``chrom`` (name of the region), ``start, end``
        within the sequence, ``strand, motif``, ``score`` (the coefficient), ``p_value`` (NaN), ``region`` (row of `X`),
        and ``coefficient`` (amplitude: norm of what the hit explains, units of the attribution, lowered by the
        penalty), ``similarity`` (cosine of the matrix and the contributions of its window), ``importance`` (sum of the
        contributions of the window, negative where it lowers the output).

    Raises
    ------
    SchemaError
        When sequences and attributions differ in shape, all contributions are 0, a pattern is empty or longer than the
        sequences.
    ConfigError
        For parameters out of their range.

    References
    ----------
    Fi-NeMo, https://github.com/kundajelab/Fi-NeMo (the problem; written from its description). Beck & Teboulle 2009,
    doi:10.1137/080716542. Differences: see `CARD`.
    """
    if not (0 < alpha < 1 and 0 <= trim <= 1 and 0 <= max_overlap <= 1 and noise >= 0 and tolerance > 0):
        raise ConfigError("alpha lies between 0 and 1, trim and max_overlap in 0..1, noise is not negative, tolerance "
                          f"above 0; got {alpha}, {trim}, {max_overlap}, {noise} and {tolerance}")
    codes = codes_of(X)
    values = _contributions(codes, attributions, track)
    atoms, widths = _atoms(patterns, trim, codes.shape[1])
    bases = one_hot(codes)
    size = max(_MEMORY // (4 * _ARRAYS * len(atoms) * codes.shape[1]), 1)
    W = torch.as_tensor(atoms, dtype=torch.float32, device=device)
    found, unfinished = [], 0
    occupied = np.flatnonzero((values != 0).any(axis=1))
    for first in range(0, len(occupied), size):
        rows = occupied[first:first + size]
        # Norm 1 for every sequence: one tolerance fits all, and float32 is far from its ends.
        norm = np.linalg.norm(values[rows], axis=1, keepdims=True)
        v = torch.as_tensor(values[rows] / norm, dtype=torch.float32, device=device)
        Q = torch.as_tensor(bases[rows], dtype=torch.float32, device=device)
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):  # rounded products never close the gap
            power = _window_power(v, widths)
            ripple = (v.abs().quantile(0.25, dim=1) / 0.3186) ** 2
            width = torch.as_tensor(widths, device=device)
            s = (power + noise * width[None, :, None] * ripple[:, None, None]).sqrt()
            a, n_open = _solve(v, Q, W, alpha * s, power > 1e-8, tolerance, max_steps)
            unfinished += n_open
            i, atom, start = (a > 1e-4 * s).nonzero(as_tuple=True)
            cosine = _correlate(v, Q, W)[i, atom, start] / power[i, atom, start].sqrt()
            part = pd.DataFrame({"region": rows[i.cpu().numpy()], "atom": atom.cpu().numpy(),
                                 "start": start.cpu().numpy(), "similarity": cosine.double().cpu().numpy(),
                                 "coefficient": a[i, atom, start].double().cpu().numpy() * norm[i.cpu().numpy(), 0]})
        found.append(part)
    if unfinished:
        warn(f"the fit of {unfinished:,} of {len(occupied):,} sequences has not reached the tolerance {tolerance:g} "
             f"after {max_steps:,} steps; their hits are approximate; raise max_steps or tolerance", stacklevel=2)
    table = pd.concat(found, ignore_index=True)
    table["end"] = table["start"] + widths[table["atom"]]
    table["strand"] = np.array(["+", "-"], dtype=object)[table["atom"].to_numpy() % 2]
    table["motif"] = np.array([p.name for p in patterns], dtype=object)[table["atom"].to_numpy() // 2]
    table = _resolve(table, max_overlap)
    before = np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0)))
    table["importance"] = before[table["region"], table["end"]] - before[table["region"], table["start"]]
    table["chrom"] = attributions["region"].values.astype(str).astype(object)[table["region"]]
    table["score"], table["p_value"] = table["coefficient"], np.nan
    columns = ["chrom", "start", "end", "strand", "motif", "score", "p_value", "region", *HIT_EXTRAS]
    order = np.lexsort([table[c].to_numpy() for c in ("motif", "end", "start", "region")])
    return table.loc[order, columns].reset_index(drop=True)


def _contributions(codes: ndarray, attributions: xr.DataArray, track: int | str) -> ndarray:
    """Contributions of the bases that are there, float64 ``(B, L)``, checked."""
    check_attribution_array(attributions)
    n, _, length, n_tracks = attributions.shape
    if (n, length) != codes.shape:
        raise SchemaError(f"attributions of {n:,} regions of {length:,} bp do not fit {codes.shape[0]:,} sequences "
                          f"of {codes.shape[1]:,} bp; pass the sequences that were explained, uncropped")
    known = [str(name) for name in attributions["track"].values]
    if isinstance(track, str):
        if track not in known:
            raise UnknownNameError(f"attributions have no track {track!r}; {nearest(track, known)}")
        track = known.index(track)
    if not 0 <= track < n_tracks:
        raise ConfigError(f"track lies in 0..{n_tracks - 1}; got {track}")
    values = contributions(attributions.isel(track=[track]), one_hot(codes)).values[:, :, 0].astype(float)
    if not values.any():
        raise SchemaError(f"all contributions of track {known[track]} are 0: nothing to explain; does the model read "
                          "these sequences, and was the right track explained?")
    return values


def _atoms(patterns: Sequence[Pattern], trim: float, length: int) -> tuple[ndarray, ndarray]:
    """Trimmed matrices of norm 1, forward and reverse in turn ``(2M, 4, K)``, zeros to the right; and their widths."""
    if not patterns:
        raise ConfigError("there is no pattern to look for; discover some first, or make them of known motifs")
    check_motifs([p.motif for p in patterns])
    cut = []
    for pattern in patterns:
        weight = np.abs(pattern.cwm).sum(axis=0)
        if not np.isfinite(weight).all() or not weight.max() > 0:
            raise SchemaError(f"the contribution weight matrix of pattern {pattern.name} is zero or not finite")
        kept = np.flatnonzero(weight >= trim * weight.max())
        cwm = pattern.cwm[:, kept[0]:kept[-1] + 1]
        cut.append(cwm / np.linalg.norm(cwm))
    long = [(p.name, c.shape[1]) for p, c in zip(patterns, cut, strict=True) if c.shape[1] > length]
    if long:
        raise SchemaError(f"{len(long):,} of {len(patterns):,} patterns are longer than the sequences of {length:,} "
                          f"bp; first: {long[0][0]}, {long[0][1]} bp")
    atoms = np.zeros((2 * len(cut), 4, max(c.shape[1] for c in cut)))
    for i, cwm in enumerate(cut):
        atoms[2 * i, :, :cwm.shape[1]] = cwm
        atoms[2 * i + 1, :, :cwm.shape[1]] = cwm[::-1, ::-1]
    return atoms, np.repeat([c.shape[1] for c in cut], 2)


def _window_power(v: Float[Tensor, "B L"], widths: ndarray) -> Float[Tensor, "B M2 L"]:
    """Squared norm of the contributions under each atom at each start; 0 where it would run off the end."""
    total = pad(v.double() ** 2, (1, 0)).cumsum(dim=1)
    power = torch.zeros(len(v), len(widths), v.shape[1], dtype=v.dtype, device=v.device)
    for i, width in enumerate(widths.tolist()):
        power[:, i, :v.shape[1] - width + 1] = (total[:, width:] - total[:, :-width]).clamp(min=0).to(v.dtype)
    return power


def _correlate(r: Tensor, Q: Tensor, W: Tensor) -> Tensor:
    """Products of each atom with `r`, ``(B, 2M, L)``: the transpose of `_render`."""
    return conv1d(pad(Q * r[:, None], (0, W.shape[2] - 1)), W)


def _render(a: Tensor, Q: Tensor, W: Tensor) -> Tensor:
    """Contributions ``(B, L)`` that amplitudes ``(B, 2M, L)`` make of the sequences."""
    return (conv_transpose1d(a, W)[:, :, :a.shape[2]] * Q).sum(dim=1)


def _solve(v: Tensor, Q: Tensor, W: Tensor, penalty: Tensor, allowed: Tensor, tolerance: float, max_steps: int
           ) -> tuple[Tensor, int]:
    """Amplitudes that minimize ``1/2 |v - D a|² + Σ penalty a``, and the number of sequences short of the tolerance.

    Each sequence has its own step size, halved where a step is too long for its curvature, its own momentum, and
    leaves the batch when it is done.
    """
    out = torch.zeros_like(penalty)
    penalty = torch.where(allowed, penalty, torch.inf)
    left = torch.arange(len(v), device=v.device)
    a, y = torch.zeros_like(out), torch.zeros_like(out)
    Da, Dy = torch.zeros_like(v), torch.zeros_like(v)
    step, t = torch.ones_like(v[:, 0]), torch.ones_like(v[:, 0])
    for k in range(max_steps):
        new = (y + step[:, None, None] * (_correlate(v - Dy, Q, W) - penalty)).clamp_(min=0)
        move = new - y
        Dnew = Dy + _render(move, Q, W)
        curved = (Dnew - Dy).square().sum(1)
        good = curved <= move.square().sum((1, 2)) / step * (1 + 1e-6) + 1e-12
        uphill = -(move * (new - a)).sum((1, 2)) > 0
        grown = torch.where(uphill, 1.0, (1 + (1 + 4 * t**2).sqrt()) / 2)
        beta = torch.where(uphill, 0.0, (t - 1) / grown)
        step = torch.where(good, step, step / 2)
        y = torch.where(good[:, None, None], new + beta[:, None, None] * (new - a), y)
        Dy = torch.where(good[:, None], Dnew + beta[:, None] * (Dnew - Da), Dy)
        a, Da = torch.where(good[:, None, None], new, a), torch.where(good[:, None], Dnew, Da)
        t = torch.where(good, grown, t)
        if k % _CHECK_EVERY == _CHECK_EVERY - 1 or k == max_steps - 1:
            open_ = _gap(v, Da, a, _correlate(v - Da, Q, W), penalty) > tolerance * v.square().sum(1) / 2
            out[left] = a
            if not open_.any():
                return out, 0
            left, v, Q, penalty, a, y, Da, Dy, step, t = (
                x[open_] for x in (left, v, Q, penalty, a, y, Da, Dy, step, t))
    return out, len(left)


def _gap(v: Tensor, Da: Tensor, a: Tensor, slope: Tensor, penalty: Tensor) -> Tensor:
    """Duality gap of each sequence: how far the fit is from the best one at most.

    A residual `r`, shrunk by a factor until no atom's product with it exceeds its penalty, is a point of the dual
    problem ``max 1/2 |v|² - 1/2 |v - θ|²``.
    """
    r = v - Da
    finite = torch.where(penalty.isinf(), 0.0, penalty)
    primal = r.square().sum(1) / 2 + (finite * a).sum((1, 2))
    factor = torch.where(slope > 0, penalty / slope.clamp(min=1e-20), torch.inf).amin((1, 2))
    best = (v * r).sum(1) / r.square().sum(1).clamp(min=1e-20)
    theta = r * torch.minimum(factor, best.clamp(min=0))[:, None]
    return primal - (v.square().sum(1) - (v - theta).square().sum(1)) / 2


def _resolve(hits: pd.DataFrame, max_overlap: float) -> pd.DataFrame:
    """One hit where one pattern stands on both strands; of hits that overlap too much the strongest."""
    hits = hits.sort_values("coefficient", ascending=False, kind="stable")
    place = ["region", "start", "end", "motif"]
    summed = hits.groupby(place, sort=False)["coefficient"].transform("sum")
    hits = hits.assign(coefficient=summed).drop_duplicates(place)
    hits = hits.sort_values("coefficient", ascending=False, kind="stable", ignore_index=True)
    keep = []
    for _, group in hits.groupby("region", sort=False):
        start, end, label = (group[c].to_numpy() for c in ("start", "end", "region"))
        taken: list[int] = []
        for i in range(len(label)):
            shared = np.minimum(end[i], end[taken]) - np.maximum(start[i], start[taken])
            shorter = np.minimum(end[i] - start[i], end[taken] - start[taken])
            if not (shared > max_overlap * shorter).any():
                taken.append(i)
        keep.extend(group.index[taken])
    return hits.loc[keep].reset_index(drop=True)
