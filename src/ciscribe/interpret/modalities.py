"""What a prediction is made of: the sequence, each signal, the surroundings, the other covariates.

`modality_shapley` shares a gene's prediction among the groups of its inputs, each of which may be replaced by what an
average gene has; `erase_signal` asks two counterfactuals of a place: its signal without its sequence, and the reverse.
Both ask the model only, so they hold for any model; integrated gradients of the same question are in
`ciscribe.interpret.signals.modality_split`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from rich.progress import track
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.interpret.shapley import Shapley, shapley
from ciscribe.oracle import Oracle
from ciscribe.sequence import N, codes_of, dinucleotide_shuffle

SEQUENCE, SURROUNDINGS, COVARIATES = "sequence", "surroundings", "covariates"
EXACT = 5
"""Most groups of which all coalitions (32) are asked."""

CARDS = {
    "modality_shapley": Card(
        name="modality_shapley", kind="attribution",
        summary="Shares the prediction of a gene among its sequence, its signals and its covariates.",
        paper="Shapley 1953, doi:10.1515/9781400881970-018; as of inputs: Lundberg & Lee, NeurIPS 2017, "
              "arXiv:1705.07874",
        differences=("Players are whole groups of inputs; a group that is absent is replaced by dinucleotide shuffles "
                     "(mean of several) or by what the average training gene has.",
                     f"All coalitions are asked up to {EXACT} groups; beyond, permutations are drawn with their "
                     "reverses."),
        n_policy="an N is shuffled with the other bases of its window"),
    "signal_counterfactual": Card(
        name="signal_counterfactual", kind="attribution",
        summary="Erases the signal of a place and keeps its DNA, or the reverse, and asks what the prediction loses.",
        paper="own; shuffling in context: Toneyan & Koo, Nature Genetics 2024, doi:10.1038/s41588-024-01923-3 (CREME)",
        n_policy="an N is shuffled with the other bases of its place"),
}

Sequences = Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."]
Groups = Mapping[str, Sequence[str]]


def input_groups(tracks: Sequence[str], covariates: Sequence[str]) -> dict[str, list[str]]:
    """Groups of inputs as they are told apart unless one says otherwise.

    Returns
    -------
    dict
        ``sequence`` (no members: the bases), each track by its name, ``surroundings`` (covariates called
        ``track@distance``: the coarse signals around the window, which are accessibility and not gene features), and
        ``covariates`` (all others). Groups without members are left out. The track ``contact`` is a function of the
        distance and the same for every gene; it is no group.

    Examples
    --------
    >>> input_groups(["atac", "contact"], ["atac@-1024", "atac@+0", "length"])
    {'sequence': [], 'atac': ['atac'], 'surroundings': ['atac@-1024', 'atac@+0'], 'covariates': ['length']}
    """
    around = [name for name in covariates if "@" in name]
    groups: dict[str, list[str]] = {SEQUENCE: []} | {name: [name] for name in tracks if name != "contact"}
    for name, members in ((SURROUNDINGS, around), (COVARIATES, [c for c in covariates if c not in set(around)])):
        if members:
            groups[name] = members
    return groups


def modality_shapley(oracle: Oracle, X: Sequences, S: Float[Tensor, "B S bins"] | None = None,
                     covariates: Float[Tensor, "B C"] | None = None, keep: Float[Tensor, "B bins"] | None = None, *,
                     tracks: Sequence[str] = (), covariate_names: Sequence[str] = (), groups: Groups | None = None,
                     sequence: str = "shuffle",
                     signals: str | Float[ndarray, "_ _"] = "zeros",
                     average: Float[ndarray, " _"] | None = None, n_shuffles: int = 5, n_permutations: int = 40,
                     batch_size: int = 64, seed: int = 0, progress: bool = False,
                     regions: Sequence[str] | None = None, targets: Sequence[str] | None = None) -> pd.DataFrame:
    """Share of each group of inputs in the prediction of each gene.

    Parameters
    ----------
    oracle, X, S, covariates, keep
        Model and inputs, one row a gene. `keep` is passed on as it is.
    tracks, covariate_names
        Names of the signals and of the covariates, in their order.
    groups
        Name → members (tracks and covariates); ``sequence`` stands for the bases. `input_groups` unless given. What no
        group holds stays as it is in every coalition.
    sequence
        What absent bases become: ``shuffle``, dinucleotide shuffles of the window (mean of the predictions of
        `n_shuffles`), or ``N``.
    signals
        What absent signals become: ``zeros``, or a profile ``(S, bins)``, such as the mean of the training genes.
    average
        What absent covariates become, ``(C,)``; 0 unless given, the training mean of standardized ones.
    n_permutations
        Beyond `EXACT` groups; even, at least 4. See `ciscribe.interpret.shapley.shapley`.
    n_shuffles, batch_size, seed, progress
        Shuffles a gene; rows a forward pass; of shuffles and permutations; show a bar.
    regions, targets
        Names of the rows and of the model's targets.

    Returns
    -------
    DataFrame
        ``region, target, group, shapley, standard_error, prediction, baseline``, one row a gene, target and group.
        `shapley` is in units of the readout, positive where the group raises the output over what an average gene's
        would; the groups of a gene sum to ``prediction − baseline``, where `baseline` has all of them absent. The error
        is 0 where all coalitions were asked.

    Raises
    ------
    SchemaError
        When names, groups and inputs do not fit each other.

    References
    ----------
    See `CARDS`.
    """
    codes = codes_of(X)
    known = input_groups(tracks, covariate_names) if groups is None else {k: list(v) for k, v in groups.items()}
    _check(codes, S, covariates, tracks, covariate_names, known, sequence, signals, average)
    names = list(known)
    of_tracks = [[list(tracks).index(m) for m in members if m in tracks] for members in known.values()]
    of_covariates = [[list(covariate_names).index(m) for m in members if m in covariate_names]
                     for members in known.values()]
    absent_S = _profile(S, signals)
    absent_c = torch.zeros(len(covariate_names)) if average is None else torch.as_tensor(average).float()
    bases = names.index(SEQUENCE) if SEQUENCE in names else None
    parts: list[Shapley] = []
    ends: list[tuple[ndarray, ndarray]] = []
    for row in track(range(len(codes)), description="modalities", disable=not progress):
        if sequence == "N":
            other = np.full_like(codes[row:row + 1], N)
        else:
            other = dinucleotide_shuffle(codes[row], n_shuffles, seed=seed + row)
        worth: dict[bytes, ndarray] = {}

        def value(who: ndarray, row: int = row, other: ndarray = other, worth: dict[bytes, ndarray] = worth) -> ndarray:
            rows, of = [], []
            s_rows, c_rows = [], []
            for i, member in enumerate(who):
                s, c = (None if v is None else v[row].clone() for v in (S, covariates))
                for present, of_track, of_covariate in zip(member, of_tracks, of_covariates, strict=True):
                    if present:
                        continue
                    if s is not None and of_track:
                        s[of_track] = absent_S[of_track]
                    if c is not None and of_covariate:
                        c[of_covariate] = absent_c[of_covariate]
                x = codes[row:row + 1] if bases is None or member[bases] else other
                rows.append(x)
                of += [i] * len(x)
                s_rows += [s] * len(x)
                c_rows += [c] * len(x)
            given = [None if v is None else torch.stack(r) for v, r in ((S, s_rows), (covariates, c_rows))]
            mask = None if keep is None else keep[row:row + 1].expand(len(of), -1)
            y = oracle.predict(torch.from_numpy(np.concatenate(rows)), *given, keep=mask,
                               batch_size=batch_size).numpy().astype(np.float64)
            total = np.zeros((len(who), y.shape[1]))
            np.add.at(total, of, y)
            total /= np.bincount(of)[:, None]
            for member, t in zip(who, total, strict=True):
                if member.all() or not member.any():
                    worth[member.tobytes()] = t
            return total

        parts.append(shapley(value, len(names), n_permutations=n_permutations, seed=seed, exact=EXACT))
        ends.append((worth[np.ones(len(names), bool).tobytes()], worth[np.zeros(len(names), bool).tobytes()]))
    return _table(parts, ends, names, regions, targets)


def erase_signal(oracle: Oracle, X: Sequences, S: Float[Tensor, "B S bins"], covariates: Tensor | None = None,
                 keep: Float[Tensor, "B bins"] | None = None, *, places: pd.DataFrame, resolution: int,
                 background: str = "median", tracks: Sequence[int] | None = None,
                 n_shuffles: int = 5, batch_size: int = 64, seed: int = 0, progress: bool = False,
                 targets: Sequence[str] | None = None) -> pd.DataFrame:
    """Erase the signal of a place and keep its DNA, shuffle its DNA and keep the signal, and do both.

    Parameters
    ----------
    oracle, X, S, covariates, keep
        Model and inputs, one row a gene. Covariates stay as they are, also where they hold signals of the surroundings.
    places
        One row a place: ``region`` (row of `X`), ``start, end`` in bp within the window as the model reads it, 0-based
        half-open; other columns are kept. Bins that it touches count as its own.
    resolution
        bp a bin of the signals.
    background
        What an erased signal becomes: ``median`` of the track over the gene's window, or ``zeros``.
    tracks
        Which signals are erased; all unless given.
    n_shuffles
        Dinucleotide shuffles of the bases of each place, whose predictions are averaged.
    batch_size, seed, progress, targets
        As in `modality_shapley`.

    Returns
    -------
    DataFrame
        The columns of `places`, then ``target, prediction, signal_effect, dna_effect, both_effect, interaction``, one
        row a place and target, units of the readout. Effects are before − after: positive where what was taken away
        raises the output. ``interaction`` = both − signal − DNA: 0 where the model adds the two, negative where either
        will do, positive where it takes both.

    Raises
    ------
    SchemaError
        When a place lies off its window, columns are missing, or shapes disagree.
    """
    codes = codes_of(X)
    if S.ndim != 3 or len(S) != len(codes) or S.shape[2] * resolution != codes.shape[1]:
        raise SchemaError(f"signals of {len(codes)} windows of {codes.shape[1]:,} bp in bins of {resolution} bp are "
                          f"({len(codes)}, S, {codes.shape[1] / resolution:g}); got {tuple(S.shape)}")
    if background not in ("median", "zeros"):
        raise SchemaError(f"an erased signal becomes the median or zeros; got {background!r}")
    if n_shuffles < 1:
        raise SchemaError(f"at least 1 shuffle is needed; got n_shuffles={n_shuffles}")
    _check_places(places, *codes.shape)
    which = list(range(S.shape[1])) if tracks is None else list(tracks)
    level = S.median(dim=2).values if background == "median" else torch.zeros(S.shape[:2])
    out = []
    region, start, end = (places[c].to_numpy(np.int64) for c in ("region", "start", "end"))
    for i in track(range(len(places)), description="counterfactuals", disable=not progress):
        row, a, b = int(region[i]), int(start[i]), int(end[i])
        flat = S[row].clone()
        first, last = a // resolution, -(-b // resolution)
        flat[which, first:last] = level[row, which, None].expand(-1, last - first)
        shuffled = np.repeat(codes[row:row + 1], n_shuffles, axis=0)
        shuffled[:, a:b] = dinucleotide_shuffle(codes[row, a:b], n_shuffles, seed=seed + i)
        x = np.concatenate([codes[row:row + 1], codes[row:row + 1], shuffled, shuffled])
        s = torch.stack([S[row], flat, *[S[row]] * n_shuffles, *[flat] * n_shuffles])
        given: dict[str, Any] = {name: None if v is None else v[row:row + 1].expand(len(x), *v.shape[1:])
                                 for name, v in (("covariates", covariates), ("keep", keep))}
        y = oracle.predict(torch.from_numpy(x), s, **given, batch_size=batch_size).numpy().astype(np.float64)
        before, signal = y[0], y[0] - y[1]
        dna, both = (before - y[2 + k * n_shuffles:2 + (k + 1) * n_shuffles].mean(axis=0) for k in (0, 1))
        out.append(np.stack([before, signal, dna, both, both - signal - dna], axis=1))
    columns = ["prediction", "signal_effect", "dna_effect", "both_effect", "interaction"]
    values = np.stack(out) if out else np.zeros((0, 1, len(columns)))
    n_targets = values.shape[1]
    long = places.iloc[np.repeat(np.arange(len(places)), n_targets)].reset_index(drop=True)
    names = list(range(n_targets)) if targets is None or not out else _named(targets, n_targets)
    long["target"] = np.tile(np.asarray(names, dtype=object), len(places))
    return long.assign(**dict(zip(columns, values.reshape(-1, len(columns)).T, strict=True)))


def _table(parts: Sequence[Shapley], ends: Sequence[tuple[ndarray, ndarray]], names: Sequence[str],
           regions: Sequence[str] | None, targets: Sequence[str] | None) -> pd.DataFrame:
    """One row a gene, target and group."""
    columns = ["region", "target", "group", "shapley", "standard_error", "prediction", "baseline"]
    if not parts:
        return pd.DataFrame({c: [] for c in columns})
    n, n_targets = len(parts), parts[0].values.shape[1]
    regions_ = list(range(n)) if regions is None else list(regions)
    if len(regions_) != n:
        raise SchemaError(f"{n} rows need {n} names; got {len(regions_)}")
    targets_ = list(range(n_targets)) if targets is None else _named(targets, n_targets)
    values, errors = (np.stack([getattr(p, f) for p in parts]).transpose(0, 2, 1) for f in ("values", "standard_error"))
    full, empty = (np.stack([e[k] for e in ends]) for k in (0, 1))  # genes, targets
    k = len(names)
    return pd.DataFrame({
        "region": np.repeat(np.asarray(regions_, dtype=object), n_targets * k),
        "target": np.tile(np.repeat(np.asarray(targets_, dtype=object), k), n),
        "group": np.tile(np.asarray(names, dtype=object), n * n_targets),
        "shapley": values.ravel(), "standard_error": errors.ravel(),
        "prediction": np.repeat(full.ravel(), k), "baseline": np.repeat(empty.ravel(), k)})


def _named(names: Sequence[str], n: int) -> list[str]:
    if len(names) != n:
        raise SchemaError(f"{n} targets need {n} names; got {len(names)}")
    return list(names)


def _profile(S: Tensor | None, signals: str | ndarray) -> Tensor:
    if S is None:
        return torch.zeros(0, 0)
    return torch.zeros(S.shape[1:]) if isinstance(signals, str) else torch.as_tensor(signals).float()


def _check(codes: ndarray, S: Tensor | None, covariates: Tensor | None, tracks: Sequence[str],
           covariate_names: Sequence[str], groups: Groups, sequence: str, signals: str | ndarray,
           average: ndarray | None) -> None:
    """Raise unless names, groups and inputs fit each other."""
    n_tracks, n_covariates = (0 if v is None else v.shape[1] for v in (S, covariates))
    for what, names, n in (("tracks", tracks, n_tracks), ("covariate_names", covariate_names, n_covariates)):
        if len(names) != n or len(set(names)) != len(names):
            raise SchemaError(f"{what} must hold {n} different names, as the inputs have; got {len(names)}: "
                              f"{', '.join(map(str, names[:5]))}")
    members = [m for name, own in groups.items() if name != SEQUENCE for m in own]
    unknown = [m for m in members if m not in tracks and m not in covariate_names]
    twice = sorted({m for m in members if members.count(m) > 1})
    empty = [name for name, own in groups.items() if name != SEQUENCE and not own]
    for fault, names in (("are no track and no covariate", unknown), ("stand in two groups", twice),
                         ("are groups without a member", empty)):
        if names:
            raise SchemaError(f"{len(names)} names of groups {fault}; first: {names[0]!r}; tracks: "
                              f"{', '.join(tracks) or '(none)'}; covariates: "
                              f"{', '.join(covariate_names[:5]) or '(none)'}")
    if not groups:
        raise SchemaError("a prediction is shared among at least 1 group; got none")
    if sequence not in ("shuffle", "N"):
        raise SchemaError(f"absent bases are shuffle or N; got {sequence!r}")
    if not isinstance(signals, str) and (S is None or np.shape(signals) != tuple(S.shape[1:])):
        raise SchemaError(f"absent signals are a profile {None if S is None else tuple(S.shape[1:])}; got "
                          f"{np.shape(signals)}")
    if isinstance(signals, str) and signals != "zeros":
        raise SchemaError(f"absent signals are zeros or an array; got {signals!r}")
    if average is not None and len(average) != n_covariates:
        raise SchemaError(f"the average gene has {n_covariates} covariates; got {len(average)}")
    if codes.ndim != 2:
        raise SchemaError(f"sequences are codes (B, L); got {codes.shape}")


def _check_places(places: pd.DataFrame, n: int, length: int) -> None:
    missing = [c for c in ("region", "start", "end") if c not in places.columns]
    if missing:
        raise SchemaError(f"places need the columns region, start, end; missing: {', '.join(missing)}; got "
                          f"{', '.join(map(str, places.columns))}")
    bad = (~places["region"].isin(range(n)) | (places["start"] < 0) | (places["end"] > length)
           | (places["start"] >= places["end"])).to_numpy(bool)
    if bad.any():
        first = places.iloc[int(bad.argmax())]
        raise SchemaError(f"{int(bad.sum()):,} of {len(places):,} places are no interval in one of the {n} windows of "
                          f"{length:,} bp; first: row {int(bad.argmax())}, region {first['region']}, "
                          f"{first['start']}-{first['end']}")
