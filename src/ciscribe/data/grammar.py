"""The law of the simulated world: expression of a gene from any DNA sequence, in closed form.

`WorldOracle` finds the binding sites of a sequence, groups them into elements, and adds up what they do to a
gene at a given TSS. `ciscribe.data.world` computes its truth with it on the finished genome, so chance
matches count like planted sites, and any edited sequence has an exact answer.

The law, for a TSS and a cell::

    y        = promoter + Σ activity(e) · contact(|d|)      elements e with |d| ≤ max_distance
    promoter = base + Σ_core best(f) + proximal · Σ_activators      sites within promoter_half of the TSS
    activity = openness · max(0, Σ_activators + synergy · Σ_pairs − Σ_repressors)
    openness = o² / (o² + half_open²)                       o = affinity · activity of the pioneer
    contact  = (1 + |d| / contact_scale) ^ −contact_decay

with weight × affinity × activity of the factor for each site in a sum. An element is the site of a pioneer or
insulator. A pioneer owns the sites within `reach` bp that have no nearer pioneer; an insulator owns nothing.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from numpy.typing import ArrayLike

from ciscribe.data.motif_table import CELLS, FACTORS, Factor
from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.sequence import N, check_codes

_MER = 6  # the scan first looks up the six most telling bases of a motif, and scores in full what can pass
_NEVER = -1e6  # log-odds of an N: a site with an N is no site
_CHUNK = 1 << 24  # bases scanned at once

Position = int | np.integer | Int[ndarray, " B"]  # one for all windows, or one a window


class Elements(NamedTuple):
    """Elements of a batch of windows, ordered by window and position."""

    window: ndarray  # int64 (E,)
    center: ndarray  # float64 (E,) bp from the window's start; a site of even width has a half
    factor: ndarray  # int64 (E,) index into the oracle's factors: which pioneer or insulator
    openness: ndarray  # float64 (E, cells), 0 to 1
    activity: ndarray  # float64 (E, cells), log10 units of expression at contact 1


@dataclass(frozen=True)
class WorldOracle:
    """Closed-form expression of any sequence in the simulated world.

    Parameters
    ----------
    cells
        Cell types, keys of `ciscribe.data.motif_table.CELLS`.
    factors
        Transcription factors and their motifs.
    contact_scale
        Distance in bp at which contact begins to fall.
    contact_decay
        Exponent of the fall.
    max_distance
        Elements farther than this from the TSS do nothing, in bp.
    reach
        Farthest a site may lie from its pioneer, centre to centre, in bp.
    promoter_half
        Half width of the promoter around the TSS in bp; the law is the same on both strands.
    base
        Expression without any site, in log10 units.
    proximal
        Share of its weight that an activator has in a promoter.
    half_open
        Pioneer affinity × activity at which an element is half open.
    synergy
        Extra weight of each pair of `partners` whose edges are `spacing` bp apart, times both affinities and
        activities.
    partners, spacing
        The two factors, and the smallest and largest gap in bp, both included.

    Raises
    ------
    UnknownNameError
        If a cell is not in the table.

    Examples
    --------
    >>> from ciscribe.sequence import encode
    >>> oracle = WorldOracle(("liver", "blood", "neuron"))
    >>> silent = encode("A" * 4001)[None]
    >>> oracle(silent, 2000).tolist()
    [[0.3, 0.3, 0.3]]
    >>> enhancer = "TGTTTACATAAA" + "C" * 20 + "AGTTAATGATTAACC"  # FOXA2 and HNF1A
    >>> active = encode("A" * 1000 + enhancer + "A" * (3001 - len(enhancer)))[None]
    >>> liver, blood, neuron = oracle(active, 2000)[0]
    >>> bool(liver > 0.4), bool(blood < 0.31)
    (True, True)
    """

    cells: tuple[str, ...] = ("liver", "blood", "neuron")
    factors: tuple[Factor, ...] = FACTORS
    contact_scale: float = 3_000.0
    contact_decay: float = 1.0
    max_distance: int = 10_000
    reach: int = 150
    promoter_half: int = 250
    base: float = 0.3
    proximal: float = 0.6
    half_open: float = 0.3
    synergy: float = 0.6
    partners: tuple[str, str] = ("CEBPA", "FOS::JUN")
    spacing: tuple[int, int] = (8, 14)

    def __post_init__(self) -> None:
        for cell in self.cells:
            if cell not in CELLS:
                raise UnknownNameError(f"the world has no cell type '{cell}'; {nearest(cell, CELLS)}")

    @cached_property
    def tf_activity(self) -> pd.DataFrame:
        """Activity of each factor (columns) in each cell (rows), 0 to 1."""
        names = [f.name for f in self.factors]
        table = [[CELLS[cell].get(name, 1.0) for name in names] for cell in self.cells]
        return pd.DataFrame(table, index=pd.Index(self.cells, name="cell"), columns=pd.Index(names))

    @cached_property
    def half_window(self) -> int:
        """Sequence on either side of a TSS that can matter to it, in bp."""
        return self.max_distance + 2 * self.reach + 2 * max(f.width for f in self.factors)

    def contact(self, distance: ArrayLike) -> ndarray:
        """Share of an element's activity that reaches a TSS `distance` bp away; 0 beyond `max_distance`."""
        d = np.abs(np.asarray(distance, dtype=float))
        return np.where(d <= self.max_distance, (1 + d / self.contact_scale) ** -self.contact_decay, 0.0)

    def __call__(self, codes: UInt8[ndarray, "B L"], tss: Position) -> Float[ndarray, "B cells"]:
        """Noiseless expression of a gene in each window.

        Parameters
        ----------
        codes
            Sequences, A C G T N = 0..4. Either strand gives the same answer, with the TSS counted from the
            other end. What lies outside the window counts as N; ±`half_window` bp around the TSS hold all
            that can matter.
        tss
            Position of the TSS in the window, one for all or one a window.

        Returns
        -------
        ndarray
            ``(B, cells)``, log10 units.

        Raises
        ------
        SchemaError
            If `codes` are not codes in two dimensions.
        """
        window = np.arange(len(codes))
        return self.respond(self.sites(codes), window, np.broadcast_to(np.asarray(tss), window.shape))

    def delete(self, codes: UInt8[ndarray, "B L"], tss: Position, start: Position, end: Position
               ) -> Float[ndarray, "B cells"]:
        """Drop of expression when positions ``start`` to ``end`` of each window become N.

        N keeps all distances and destroys every site that touches the interval. Positive: the interval raises
        expression. Positions are one for all or one a window; what is off the window is overlooked.
        """
        at = np.arange(codes.shape[1])
        cut = (at >= np.reshape(start, (-1, 1))) & (at < np.reshape(end, (-1, 1)))
        return self(codes, tss) - self(np.where(cut, np.uint8(N), codes), tss)

    def sites(self, codes: UInt8[ndarray, "B L"], names: tuple[str, ...] | None = None) -> pd.DataFrame:
        """Binding sites of each window, both strands, the better strand where both match at one place.

        Parameters
        ----------
        codes
            Sequences, A C G T N = 0..4; a site with an N is no site.
        names
            Factors to look for; all by default.

        Returns
        -------
        DataFrame
            ``window, start, end, factor, affinity``, sorted by window, start and factor; `factor` is the
            index in `factors`, `affinity` 0.4 at the threshold to 1 at the best possible match.
        """
        codes = np.asarray(codes)
        if codes.ndim != 2:
            raise SchemaError(f"sequence windows are codes (B, L); got shape {codes.shape}; "
                              "for one sequence give codes[None]")
        check_codes(codes)
        pad = max(f.width for f in self.factors)
        flat = np.pad(codes, ((0, 0), (0, pad)), constant_values=N).ravel()  # no site spans two windows
        wanted = [i for i, f in enumerate(self.factors) if names is None or f.name in names]
        found: list[tuple[ndarray, ndarray, ndarray]] = []
        for lo in range(0, len(flat), _CHUNK):
            part = flat[lo : lo + _CHUNK + pad]
            index = _mer_index(part)
            for i in wanted:
                start, score = _matches(part, index, self.factors[i])
                keep = start < _CHUNK
                start, score = start[keep] + lo, score[keep]
                found.append((start, np.full(len(start), i), score))
        start, which, score = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((which, start))
        start, which, score = start[order], which[order], score[order]
        window, at = np.divmod(start, codes.shape[1] + pad)
        width = np.array([f.width for f in self.factors])[which]
        threshold = np.array([f.threshold for f in self.factors])[which]
        best = np.array([f.best for f in self.factors])[which]
        affinity = 0.4 + 0.6 * (score - threshold) / (best - threshold)
        return pd.DataFrame({"window": window, "start": at, "end": at + width, "factor": which,
                             "affinity": affinity})

    def elements(self, sites: pd.DataFrame) -> Elements:
        """Open elements that the sites of `sites` make, with what they do in each cell."""
        window, center, which, affinity = _columns(sites)
        span = (center.max() if len(center) else 0) + 4 * self.reach  # keeps windows apart on one axis
        key = window * span + center
        act = self.tf_activity.to_numpy()
        pioneer, anchor = self._has("pioneer")[which], self._has("pioneer", "insulator")[which]
        order = np.argsort(key[anchor], kind="stable")
        rows = np.flatnonzero(anchor)[order]
        opening = affinity[rows, None] * act[:, which[rows]].T
        openness = opening**2 / (opening**2 + self.half_open**2)

        # Every activator and repressor goes to its nearest pioneer, if that is within reach.
        owners = np.flatnonzero(pioneer[rows])  # which of the elements are pioneers'
        part = np.flatnonzero(self._has("activator", "repressor")[which])
        raw = np.zeros((len(rows), len(self.cells)))
        if len(owners) and len(part):
            at = key[rows][owners]
            right = np.searchsorted(at, key[part]).clip(0, len(at) - 1)
            left = (right - 1).clip(0)
            nearer = np.where(np.abs(at[left] - key[part]) <= np.abs(at[right] - key[part]), left, right)
            near = np.abs(at[nearer] - key[part]) <= self.reach
            part, owner = part[near], owners[nearer[near]]
            sign = np.where(self._has("repressor"), -1.0, 1.0) * self._weights
            pull = sign[which[part]] * affinity[part]
            for c in range(len(self.cells)):
                raw[:, c] = np.bincount(owner, pull * act[c, which[part]], minlength=len(rows))
            raw += self._pairs(sites.iloc[part], owner, len(rows))
        return Elements(window[rows], center[rows], which[rows], openness, openness * np.maximum(raw, 0.0))

    def respond(self, sites: pd.DataFrame, window: Int[ndarray, " G"], tss: Int[ndarray, " G"]
                ) -> Float[ndarray, "G cells"]:
        """Noiseless expression of the genes at `tss` of `window`, given all sites."""
        found = self.elements(sites)
        y = self._promoter(sites, window, tss)
        gene, element = self.in_range(found, window, tss)
        pull = self.contact(found.center[element] - (tss[gene] + 0.5))
        for c in range(len(self.cells)):
            y[:, c] += np.bincount(gene, pull * found.activity[element, c], minlength=len(y))
        return y

    def in_range(self, found: Elements, window: ndarray, tss: ndarray) -> tuple[ndarray, ndarray]:
        """Every pair of a gene and an element within `max_distance` of its TSS: indices of both."""
        return within(found.window, found.center, window, tss + 0.5, self.max_distance)

    @cached_property
    def _weights(self) -> ndarray:
        return np.array([f.weight for f in self.factors])

    def _has(self, *roles: str) -> Bool[ndarray, " F"]:
        return np.array([f.role in roles for f in self.factors])

    def _pairs(self, parts: pd.DataFrame, owner: ndarray, n: int) -> Float[ndarray, "E cells"]:
        """Synergy of each element: its pairs of partners at the right spacing."""
        names = [f.name for f in self.factors]
        i, j = (names.index(name) for name in self.partners)
        parts = parts.assign(owner=owner)
        pair = parts[parts["factor"] == i].merge(parts[parts["factor"] == j], on="owner")
        gap = np.maximum(pair["start_y"] - pair["end_x"], pair["start_x"] - pair["end_y"])
        pair = pair[gap.between(*self.spacing)]
        both = np.bincount(pair["owner"], pair["affinity_x"] * pair["affinity_y"], minlength=n)
        act = self.tf_activity.to_numpy()
        return self.synergy * both[:, None] * act[:, i] * act[:, j]

    def _promoter(self, sites: pd.DataFrame, window: ndarray, tss: ndarray) -> Float[ndarray, "G cells"]:
        """Basal expression: the best site of each core factor, and activators beside the TSS."""
        at, center, which, affinity = _columns(sites)
        gene, site = within(at, center, window, tss + 0.5, self.promoter_half)
        best = np.zeros((len(window), len(self.factors)))
        np.maximum.at(best, (gene, which[site]), affinity[site])
        basal = self.base + best @ np.where(self._has("core"), self._weights, 0.0)
        y = np.repeat(basal[:, None], len(self.cells), axis=1)
        activator = self._has("activator")[which[site]]
        gene, site = gene[activator], site[activator]
        pull = self.proximal * self._weights[which[site]] * affinity[site]
        for c, act in enumerate(self.tf_activity.to_numpy()):
            y[:, c] += np.bincount(gene, pull * act[which[site]], minlength=len(y))
        return y


def _columns(sites: pd.DataFrame) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    center = (sites["start"].to_numpy() + sites["end"].to_numpy()) / 2
    return sites["window"].to_numpy(), center, sites["factor"].to_numpy(), sites["affinity"].to_numpy()


def within(window: ndarray, position: ndarray, at_window: ndarray, at: ndarray, distance: int | float
            ) -> tuple[ndarray, ndarray]:
    """Find all pairs of a query and a point of one window at most `distance` bp apart.

    Parameters
    ----------
    window, position
        The points, in any order.
    at_window, at
        The queries.
    distance
        Largest distance, included.

    Returns
    -------
    tuple
        Index of the query and of the point of each pair; queries ascend.
    """
    if not len(window) or not len(at_window):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    span = max(position.max(), at.max()) + 2 * distance + 1
    key = window * span + position
    order = np.argsort(key, kind="stable")
    center = at_window * span + at
    lo = np.searchsorted(key[order], center - distance, side="left")
    hi = np.searchsorted(key[order], center + distance, side="right")
    query, index = ranges(lo, hi)
    return query, order[index]


def index_of(chroms: ArrayLike, genome: list[str]) -> Int[ndarray, " R"]:
    """Index in `genome` of each chromosome name."""
    return pd.Index(genome).get_indexer(pd.Index(np.asarray(chroms))).astype(np.int64)


def ranges(lo: ndarray, hi: ndarray) -> tuple[ndarray, ndarray]:
    """Concatenated ``lo[i]..hi[i]``: which i each number came from, and the numbers.

    Examples
    --------
    >>> [a.tolist() for a in ranges(np.array([5, 0]), np.array([7, 1]))]
    [[0, 0, 1], [5, 6, 0]]
    """
    n = np.maximum(hi - lo, 0)
    which = np.repeat(np.arange(len(n)), n)
    return which, np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(lo, n)


def _mer_index(codes: UInt8[ndarray, " L"]) -> ndarray:
    """Give the number of the six bases that begin at each position, in base 5 (N is the fifth letter)."""
    index = np.zeros(max(len(codes) - _MER + 1, 0), dtype=np.uint16)
    for j in range(_MER):
        index *= 5
        index += codes[j : j + len(index)]
    return index


def _matches(codes: UInt8[ndarray, " L"], index: ndarray, factor: Factor) -> tuple[ndarray, ndarray]:
    """Find the sites of one factor on either strand: starts, ascending, and scores."""
    starts, scores = [], []
    n = len(codes) - factor.width + 1
    for pwm in (factor.pwm, factor.pwm[::-1, ::-1]):
        table = np.vstack([pwm, np.full(factor.width, _NEVER)])
        most = pwm.max(axis=0)
        block = int(np.argmax(np.convolve(most, np.ones(_MER), "valid")))
        partial = reduce(np.add.outer, table[:, block : block + _MER].T).ravel()
        rest = most.sum() - most[block : block + _MER].sum()
        start = np.flatnonzero((partial >= factor.threshold - rest)[index[block : block + max(n, 0)]])
        score = np.zeros(len(start))
        for j in range(factor.width):
            score += table[codes[start + j], j]
        keep = score >= factor.threshold
        starts.append(start[keep])
        scores.append(score[keep])
    start, score = np.concatenate(starts), np.concatenate(scores)
    order = np.lexsort((-score, start))
    start, score = start[order], score[order]
    first = np.r_[True, start[1:] != start[:-1]] if len(start) else np.empty(0, bool)
    return start[first], score[first]
