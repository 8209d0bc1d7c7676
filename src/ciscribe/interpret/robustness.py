"""Whether an explanation can be believed: does it repeat, does it depend on the model, does the model act on it.

Three questions, each of which an attribution can fail while it looks convincing. `consistency`: do models of other
seeds or folds (or other methods) point to the same bases? `randomization_check` and `label_check`: does the map change
when the weights, or what was learned, are destroyed? `faithfulness`: are the bases it calls important the ones that
make the output? `compare_methods` puts the answers for several methods side by side. All read contributions (the base
that is there), leave out N, and take intervals by bootstrap over regions.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from functools import partial
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray
from rich.progress import track
from scipy.stats import rankdata
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnknownNameError, UnsupportedError, nearest
from ciscribe.oracle import Oracle
from ciscribe.results import contributions
from ciscribe.sequence import N, codes_of, dinucleotide_shuffle, one_hot
from ciscribe.train.metrics import correlation, interval, resamples

CARDS = {
    "consistency": Card(
        name="consistency", kind="benchmark",
        summary="How well attributions of several models or methods agree on which bases matter.",
        paper="own",
        differences=("Correlations are taken within each sequence and averaged, so that no sequence with large values "
                     "decides.", "Positions that tie with the first one left out are not among the top."),
        n_policy="positions that hold an N are left out"),
    "weight_randomization": Card(
        name="weight_randomization", kind="benchmark",
        summary="Weights are drawn anew from the output layer down to the input; an attribution that still looks the "
                "same does not explain the model.",
        paper="Adebayo et al., NeurIPS 2018, arXiv:1810.03292",
        differences=("Layers are taken in the order in which the forward pass runs them, backwards.",
                     "Layers are drawn by their own initialization; the values of a weight without one are permuted.",
                     "Deep models are measured at some depths only, evenly spaced."),
        n_policy="positions that hold an N are left out"),
    "insertion_deletion": Card(
        name="insertion_deletion", kind="benchmark",
        summary="Bases are destroyed, or put into a shuffled background, in the order of their contribution; the "
                "better the order, the faster the output falls or returns.",
        paper="Petsiuk et al., RISE, BMVC 2018, arXiv:1806.07421; Samek et al. 2017, doi:10.1109/TNNLS.2016.2599820",
        differences=("Background is a dinucleotide shuffle of the sequence (mean of several), not a blurred image.",
                     "Scored as the share of f(x) − f(background), pooled over sequences.",
                     "Where a sequence lies below its background, negative contributions come first.",
                     "A random order stands beside every curve."),
        n_policy="N stays where it is: neither ranked nor filled"),
}

Attributions = Mapping[str, xr.DataArray]
Method = Callable[..., xr.DataArray]
RANDOM, CENTER = "random", "center"
CONTROLS = (RANDOM, CENTER)
CURVES = ("insertion", "deletion")
FRACTIONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_TINY = 1e-6  # of the output: what a float32 model leaves of a difference that is none


class Faithfulness(NamedTuple):
    """What `faithfulness` measures, one row a method, curve and track (and fraction).

    Parameters
    ----------
    curves
        ``method, curve`` (insertion, deletion), ``track, fraction, score, low, high``.
    areas
        ``method, curve`` (insertion, deletion, and their difference), ``track, area, low, high``, and ``gap, gap_low,
        gap_high`` over the random order of the same resamples; a positive gap is always the better one.
    """

    curves: pd.DataFrame
    areas: pd.DataFrame


def consistency(attributions: Attributions | Sequence[xr.DataArray],
                X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], *, top: Sequence[float] = (0.01, 0.05, 0.1),
                n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Compare which bases matter according to several models (seeds, folds) or several methods.

    Agreement is measured within each sequence and averaged over sequences, in which it is defined: an attribution
    that does not vary has no correlation, unless the other is the very same (then 1).

    Parameters
    ----------
    attributions
        Arrays of the same regions, positions and tracks, by name; those of a sequence are named 0, 1 …
    X
        The sequences: codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    top
        Fractions of the positions, those of the largest absolute contributions, whose overlap is compared.
    n_bootstrap, seed
        Resamples of the regions for the intervals.

    Returns
    -------
    DataFrame
        One row a pair, track and metric: ``a, b, track, metric, value, low, high, chance, n_regions``. Metrics are
        ``pearson``, ``spearman``, ``spearman_abs`` (of absolute contributions) and ``jaccard_<fraction>`` (shared
        positions over all positions of the two tops). `chance` is what unrelated maps reach; `n_regions` counts those
        in which the figure is defined.

    Raises
    ------
    SchemaError
        When there are fewer than two arrays, or they do not fit X or each other.
    """
    codes = _codes(X)
    named = _named(attributions)
    if len(named) < 2:
        raise SchemaError(f"agreement needs two attributions or more; got {len(named)}")
    values = _contributions(named, codes)
    tracks = _tracks(named)
    _check_fractions("top", top)
    rows: list[dict[str, Any]] = []
    for a, b in combinations(named, 2):
        rows += _agreement_rows({"a": a, "b": b}, values[a], values[b], codes < N, tracks, top, n_bootstrap, seed)
    return pd.DataFrame(rows)


def label_check(attribution: xr.DataArray, shuffled: Attributions | Sequence[xr.DataArray],
                X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], *, top: Sequence[float] = (0.01, 0.05, 0.1),
                n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Compare an explanation with those of models that were trained on shuffled labels and so know no biology.

    What agrees is due to the sequences, the architecture or the method, not to what was learned; it should be close
    to `chance`.

    Parameters
    ----------
    attribution
        Of the model that was trained on the true labels.
    shuffled
        Of models of the same architecture that were trained on shuffled labels, by name or counted from 0.
    X, top, n_bootstrap, seed
        As in `consistency`.

    Returns
    -------
    DataFrame
        ``model`` (name in `shuffled`), then the columns of `consistency` from ``track`` on.

    References
    ----------
    Adebayo et al., NeurIPS 2018, arXiv:1810.03292 (data randomization test); `CARDS`.
    """
    codes = _codes(X)
    _check_fractions("top", top)
    others = _named(shuffled)
    rows: list[dict[str, Any]] = []
    for name, other in others.items():
        original, values = _contributions({"attribution": attribution, f"shuffled {name}": other}, codes).values()
        rows += _agreement_rows({"model": name}, original, values, codes < N, _tracks({"": attribution}), top,
                                n_bootstrap, seed)
    return pd.DataFrame(rows)


def randomization_check(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], method: Method,
                        S: Tensor | None = None, covariates: Tensor | None = None, *, n: int = 1,
                        cascading: bool = True, max_stages: int = 8, top: Sequence[float] = (0.01, 0.05, 0.1),
                        n_bootstrap: int = 1000, seed: int = 0, progress: bool = False) -> pd.DataFrame:
    """Destroy what the model learned, layer by layer, and see whether the explanation notices.

    An attribution that explains the model falls to no agreement with itself; one that shows the sequence (an edge
    detector) stays where it was. A copy of the model is changed, never the model.

    Parameters
    ----------
    oracle, X, S, covariates
        The model and its inputs; X as codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    method
        ``method(oracle, X, S, covariates)`` → attributions; bind other arguments with `functools.partial`. Its own
        seed must be fixed, or its noise counts as change.
    n
        Independent draws of the weights.
    cascading
        Draw the last layer, then also the one before it, and so on to the first; otherwise all at once.
    max_stages
        Depths at most at which a cascade is measured, evenly spaced, the last layer alone and all layers among them.
    top, n_bootstrap, seed
        As in `consistency`; `seed` also draws the weights.
    progress
        Show a bar.

    Returns
    -------
    DataFrame
        ``draw, n_layers`` (drawn anew so far), ``layer`` (the foremost of them), then the columns of `consistency` from
        ``track`` on. A value is NaN where nothing varies, such as the gradients of a network that died.

    Raises
    ------
    UnsupportedError
        When the model holds no weights, or cannot be copied.

    References
    ----------
    Adebayo et al., NeurIPS 2018, arXiv:1810.03292 (model randomization test). Differences: `CARDS`.
    """
    codes = _codes(X)
    _check_fractions("top", top)
    for name, value in (("n", n), ("max_stages", max_stages)):
        if value < 1:
            raise SchemaError(f"{name} is at least 1; got {value}")
    given = {"S": S, "covariates": covariates}
    attribution = method(oracle, X, S, covariates)
    original, tracks = _contributions({"attribution": attribution}, codes)["attribution"], _tracks({"": attribution})
    rows: list[dict[str, Any]] = []
    for draw in range(n):
        other = copy(oracle)
        other.model = _copied(oracle.model)
        layers = _layers(other, codes[:1], {k: None if v is None else v[:1] for k, v in given.items()})
        n_stages = min(max_stages, len(layers)) if cascading else 1
        stops = np.unique(np.linspace(1, len(layers), n_stages).round().astype(int)) if n_stages > 1 else [len(layers)]
        rng = np.random.default_rng([seed, draw])
        done = 0
        for stop in track(stops, description=f"draw {draw}") if progress else stops:
            for layer in layers[done:stop]:
                _redraw(other.model.get_submodule(layer), int(rng.integers(2**31)))
            done = int(stop)
            values = _contributions({"attribution": method(other, X, S, covariates)}, codes)["attribution"]
            key = {"draw": draw, "n_layers": done, "layer": layers[done - 1] or "(model)"}
            rows += _agreement_rows(key, original, values, codes < N, tracks, top, n_bootstrap, seed)
    return pd.DataFrame(rows)


def faithfulness(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."],
                 attributions: Attributions, S: Tensor | None = None, covariates: Tensor | None = None, *,
                 fractions: Sequence[float] = FRACTIONS, fill: Literal["shuffle", "N"] = "shuffle", n_fills: int = 5,
                 controls: Sequence[str] = (RANDOM,), batch_size: int = 64, n_bootstrap: int = 1000, seed: int = 0,
                 progress: bool = False) -> Faithfulness:
    """Ask the model itself whether the bases that an explanation calls important make its output.

    Deletion replaces the top fraction of the bases by those of a background; insertion keeps only the top fraction, in
    that background. With b the mean output of the backgrounds of a sequence and f that of the changed sequences,
    ``score = Σ s · (f − b) / Σ |f(x) − b|`` over sequences, where ``s = sign(f(x) − b)``: the share of what the
    sequence does more than its background that is (still) there. Insertion rises from 0 to 1, deletion falls from 1 to
    0; a good order has a large area under insertion and a small one under deletion. Sums are divided, not averaged
    ratios, so a sequence that does nothing carries no weight.

    Parameters
    ----------
    oracle, X, S, covariates
        The model and its inputs; X as codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    attributions
        By name of the method, each with the tracks of the oracle. Bases are ordered by ``s`` × contribution, largest
        first, for each track of its own; ties are broken at random, anew for each background.
    fractions
        Of the bases that are not N, 0 to 1; 0 and 1 are added. The area is by trapezoids between them.
    fill
        ``"shuffle"``: `n_fills` dinucleotide shuffles of the sequence; ``"N"``: no base at all, once.
    n_fills
        Backgrounds a sequence; outputs are averaged over them.
    controls
        Orders that know no attribution: ``"random"`` (always there), ``"center"`` (from the middle outward).
    batch_size
        Sequences a forward pass.
    n_bootstrap, seed
        Resamples of the regions; the seed also draws backgrounds and random orders.
    progress
        Show a bar.

    Returns
    -------
    Faithfulness
        Tables `curves` and `areas`. NaN for a track whose output is the same for all sequences and backgrounds.

    Raises
    ------
    SchemaError
        When arrays do not fit X, each other or the oracle, or an option is none of those above.

    Notes
    -----
    Cost: for each sequence, method and track ``2 · (fractions − 2) · n_fills`` forward passes.

    References
    ----------
    Petsiuk et al., RISE, BMVC 2018, arXiv:1806.07421; Samek et al. 2017, IEEE TNNLS, doi:10.1109/TNNLS.2016.2599820.
    Differences: `CARDS`.
    """
    codes = _codes(X)
    named = _named(attributions)
    values = _contributions(named, codes)
    grid = _check_fractions("fractions", fractions)
    grid = np.union1d(grid, [0.0, 1.0])
    controls = tuple(dict.fromkeys((RANDOM, *controls)))
    for name in controls:
        if name not in CONTROLS:
            raise UnknownNameError(f"no control order {name!r}; {nearest(name, CONTROLS)}")
        if name in named:
            raise SchemaError(f"{name!r} is the name of a control; give that attribution another name")
    if fill not in ("shuffle", "N") or n_fills < 1:
        raise SchemaError(f"fill is 'shuffle' or 'N' and n_fills at least 1; got {fill!r} and {n_fills}")
    ask = partial(_ask, oracle, {"S": S, "covariates": covariates}, batch_size)
    of_x = oracle.predict(torch.from_numpy(codes), S, covariates, batch_size=batch_size).double().numpy()  # B T
    tracks = _tracks(named) if named else list(range(of_x.shape[1]))
    if len(tracks) != of_x.shape[1]:
        raise SchemaError(f"the oracle reads {of_x.shape[1]} targets and the attributions hold {len(tracks)} tracks; "
                          "give attributions of all of them, or an oracle whose readout picks one")

    of_background = np.empty_like(of_x)
    outputs = {name: np.empty((2, len(codes), len(grid), of_x.shape[1])) for name in (*named, *controls)}
    rows = range(len(codes))
    with oracle.evaluating():  # the model stays on its device throughout
        for r in track(rows, description="faithfulness") if progress else rows:
            rng = np.random.default_rng([seed, r])
            backgrounds = _backgrounds(codes[r], fill, n_fills, int(rng.integers(2**31)))
            jitter = rng.random(backgrounds.shape)
            of_background[r] = ask(r, backgrounds).mean(axis=0)
            direction = np.where(of_x[r] < of_background[r], -1, 1)
            for name, output in outputs.items():
                output[0, r, 0] = output[1, r, -1] = of_background[r]
                output[0, r, -1] = output[1, r, 0] = of_x[r]
                # a control orders the bases in one way for all tracks
                orders = [_control(name, len(codes[r]))] if name in controls else (direction * values[name][r]).T
                for t, order in enumerate(orders):
                    changed = _changed(codes[r], backgrounds, order, jitter, grid[1:-1])  # 2 F J L
                    answer = ask(r, changed.reshape(-1, codes.shape[1])).reshape(*changed.shape[:3], -1).mean(axis=2)
                    which = slice(None) if name in controls else slice(t, t + 1)
                    output[:, r, 1:-1, which] = answer[..., which]
    return _figures(outputs, of_x, of_background, grid, tracks, n_bootstrap, seed)


def compare_methods(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], attributions: Attributions,
                    S: Tensor | None = None, covariates: Tensor | None = None, *, reference: str = "ism",
                    measured: Faithfulness | None = None, seconds: Mapping[str, float] | None = None,
                    fractions: Sequence[float] = FRACTIONS, fill: Literal["shuffle", "N"] = "shuffle",
                    n_fills: int = 5, controls: Sequence[str] = (RANDOM,), batch_size: int = 64,
                    n_bootstrap: int = 1000, seed: int = 0, progress: bool = False) -> pd.DataFrame:
    """Rank attribution methods by how well the model bears them out.

    Parameters
    ----------
    oracle, X, attributions, S, covariates, fractions, fill, n_fills, controls, batch_size, n_bootstrap, seed, progress
        As in `faithfulness`.
    reference
        Name of the attribution that the others are correlated with: saturation mutagenesis, which asks the model
        directly. Where it is not among them, ``agreement`` is NaN.
    measured
        What `faithfulness` gave for the same arguments, so that the model is not asked again.
    seconds
        What each method took.

    Returns
    -------
    DataFrame
        One row a method and track, best first within a track, the control orders among them: ``method, track,
        insertion, deletion`` (areas), ``gap, gap_low, gap_high`` (insertion less deletion, less that of the random
        order), ``agreement, agreement_low, agreement_high`` (mean Pearson correlation of contributions with the
        reference), ``seconds``.
    """
    if measured is None:
        measured = faithfulness(oracle, X, attributions, S, covariates, fractions=fractions, fill=fill,
                                n_fills=n_fills, controls=controls, batch_size=batch_size, n_bootstrap=n_bootstrap,
                                seed=seed, progress=progress)
    areas = measured.areas
    codes, agreement = _codes(X), {}
    if reference in attributions:
        values, names = _contributions(attributions, codes), _tracks(attributions)
        for name in attributions:
            rows = _agreement_rows({}, values[reference], values[name], codes < N, names, (), n_bootstrap, seed)
            agreement |= {(name, row["track"]): row for row in rows if row["metric"] == "pearson"}
    table = []
    by_curve = [areas.query("curve == @curve").to_dict("records") for curve in (*CURVES, "difference")]
    for insertion, deletion, both in zip(*by_curve, strict=True):
        name, in_track = both["method"], both["track"]
        same = agreement.get((name, in_track), {})
        table.append({"method": name, "track": in_track, "insertion": insertion["area"], "deletion": deletion["area"],
                      "gap": both["gap"], "gap_low": both["gap_low"], "gap_high": both["gap_high"],
                      "agreement": same.get("value", np.nan), "agreement_low": same.get("low", np.nan),
                      "agreement_high": same.get("high", np.nan), "seconds": (seconds or {}).get(name, np.nan)})
    order = list(areas["track"].unique())
    return pd.DataFrame(sorted(table, key=lambda row: (order.index(row["track"]), -row["gap"])))


def _codes(X: Tensor | ndarray) -> UInt8[ndarray, "B L"]:
    codes = codes_of(X)
    if not codes.size:
        raise SchemaError(f"no sequence to judge an explanation on: X is empty, {tuple(X.shape)}")
    return codes


def _named(attributions: Attributions | Sequence[xr.DataArray]) -> dict[str, xr.DataArray]:
    if isinstance(attributions, xr.DataArray):
        raise SchemaError("attributions are several arrays, by name; got a single one: use {'its method': array}")
    return dict(attributions) if isinstance(attributions, Mapping) else {
        str(i): array for i, array in enumerate(attributions)}


def _contributions(named: Attributions, codes: UInt8[ndarray, "B L"]) -> dict[str, Float[ndarray, "B L T"]]:
    """Contributions by name, of arrays that speak of the same regions and tracks."""
    X = one_hot(codes)
    values = {name: contributions(array, X).values for name, array in named.items()}
    first = next(iter(named), "")
    for name, array in named.items():
        for dim in ("region", "track"):
            if not np.array_equal(array[dim].values, named[first][dim].values):
                raise SchemaError(f"attributions of the same {dim}s in the same order are compared; {name!r} and "
                                  f"{first!r} differ in their {dim}s: {_few(array[dim].values)} and "
                                  f"{_few(named[first][dim].values)}")
    return values


def _few(names: ndarray) -> str:
    return f"{', '.join(map(str, names[:3]))}{' …' if len(names) > 3 else ''} ({len(names)})"


def _tracks(named: Attributions) -> list[Any]:
    return next(iter(named.values()))["track"].values.tolist()


def _check_fractions(name: str, fractions: Sequence[float]) -> ndarray:
    values = np.asarray(fractions, float)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise SchemaError(f"{name} are fractions, 0 to 1; got {list(fractions)}")
    return values


def _agreement_rows(key: dict[str, Any], a: Float[ndarray, "B L T"], b: Float[ndarray, "B L T"],
                    known: Bool[ndarray, "B L"], tracks: Sequence[Any], top: Sequence[float], n_bootstrap: int,
                    seed: int) -> list[dict[str, Any]]:
    """Rows of a table of agreement, one a track and metric."""
    by_region = [_agreement(one[there], other[there], top) for one, other, there in zip(a, b, known, strict=True)]
    weights = np.concatenate([weight for _, weight in resamples(len(known), n_bootstrap, seed)])
    chance = {f"jaccard_{fraction:g}": fraction / (2 - fraction) for fraction in top}
    rows = []
    for t, name in enumerate(tracks):
        for metric in by_region[0]:
            values = np.array([region[metric][t] for region in by_region])
            defined = np.isfinite(values)
            drawn = weights @ defined
            draws = weights @ np.where(defined, values, 0.0) / np.where(drawn > 0, drawn, np.nan)
            mean = values[defined].mean() if defined.any() else np.nan
            rows.append(key | {"track": name, "metric": metric, **interval(mean, draws),
                               "chance": chance.get(metric, 0.0), "n_regions": int(defined.sum())})
    return rows


def _agreement(a: Float[ndarray, "L T"], b: Float[ndarray, "L T"], top: Sequence[float]
               ) -> dict[str, Float[ndarray, " T"]]:
    """Each metric in one region; what is the same agrees, also where it does not vary."""
    metrics = {"pearson": _correlated(a, b),
               "spearman": _correlated(rankdata(a, axis=0), rankdata(b, axis=0)),
               "spearman_abs": _correlated(rankdata(np.abs(a), axis=0), rankdata(np.abs(b), axis=0))}
    for fraction in top:
        one, other = _top(a, fraction), _top(b, fraction)
        either = (one | other).sum(axis=0)
        metrics[f"jaccard_{fraction:g}"] = (one & other).sum(axis=0) / np.where(either > 0, either, np.nan)
    same = (a == b).all(axis=0) & (len(a) > 0)
    return {metric: np.where(same, 1.0, values) for metric, values in metrics.items()}


def _correlated(a: ndarray, b: ndarray) -> ndarray:
    """Pearson correlation of columns; exactly constant ones have none."""
    if not len(a):
        return np.full(a.shape[1], np.nan)
    a, b = (np.where(np.ptp(v, axis=0) > 0, v - v.mean(axis=0, dtype=float), 0.0) for v in (a, b))
    return correlation((a * b).sum(axis=0), (a * a).sum(axis=0), (b * b).sum(axis=0))


def _top(values: ndarray, fraction: float) -> ndarray:
    """Positions above the largest value that is left out: ties at the border stay out, zeros always do."""
    size = np.abs(values)
    k = max(1, round(fraction * len(size)))
    return size > (0.0 if k >= len(size) else np.sort(size, axis=0)[-1 - k])


def _copied(model: nn.Module) -> nn.Module:
    if next(model.parameters(), None) is None:
        raise UnsupportedError(f"{type(model).__name__} holds no weights that could be drawn anew; judge its "
                               "attributions by faithfulness() instead")
    try:
        return deepcopy(model).cpu()  # one stream of random numbers, wherever the model lives
    except (RuntimeError, TypeError) as error:
        raise UnsupportedError(f"{type(model).__name__} cannot be copied ({error}), and the check never changes the "
                               "model itself; judge its attributions by faithfulness() instead") from error


def _layers(oracle: Oracle, codes: UInt8[ndarray, "1 L"], given: dict[str, Tensor | None]) -> list[str]:
    """Names of the modules that own weights, the last to run first; those that never run by themselves at the end."""
    owners = {name: module for name, module in oracle.model.named_modules()
              if next(module.parameters(recurse=False), None) is not None}
    ran: list[str] = []

    def note(name: str, *_: object) -> None:
        ran.append(name)

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in owners.items()]
    try:
        oracle.predict(torch.from_numpy(codes), given["S"], given["covariates"])
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys([*reversed(ran), *reversed(owners)]))


def _redraw(module: nn.Module, seed: int) -> None:
    """Draw the weights of one module anew, without touching anybody else's random numbers."""
    own_way = getattr(module, "reset_parameters", None)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        if callable(own_way):
            own_way()
        else:
            for weight in module.parameters(recurse=False):
                weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))


def _ask(oracle: Oracle, given: dict[str, Tensor | None], batch_size: int, row: int, codes: UInt8[ndarray, "n L"]
         ) -> Float[ndarray, "n T"]:
    """Predict variants of one sequence, with its own signals and covariates."""
    extras = [None if value is None else value[row:row + 1].expand(len(codes), *value.shape[1:])
              for value in (given["S"], given["covariates"])]
    return oracle.predict(torch.from_numpy(codes), *extras, batch_size=batch_size).double().numpy()


def _backgrounds(codes: UInt8[ndarray, " L"], fill: str, n: int, seed: int) -> UInt8[ndarray, "J L"]:
    """What stands for "nothing here": shuffles of the bases, with every N where it was, or N throughout."""
    known = codes < N
    if fill == "N":
        return np.full((1, len(codes)), N, dtype=np.uint8)
    out = np.repeat(codes[None], n, axis=0)
    out[:, known] = dinucleotide_shuffle(codes[known], n, seed=seed)
    return out


def _control(name: str, length: int) -> Float[ndarray, " L"]:
    if name == RANDOM:
        return np.zeros(length)  # all ties
    return -np.abs(np.arange(length) - (length - 1) / 2)


def _changed(codes: UInt8[ndarray, " L"], backgrounds: UInt8[ndarray, "J L"], order: Float[ndarray, " L"],
             jitter: Float[ndarray, "J L"], fractions: Float[ndarray, " F"]) -> UInt8[ndarray, "2 F J L"]:
    """Sequences with the top fractions inserted into, or deleted in favour of, each background."""
    known = codes < N
    shape = backgrounds.shape
    ranking = np.lexsort((jitter, np.broadcast_to(-order, shape), np.broadcast_to(~known, shape)), axis=-1)
    rank = np.empty(shape, dtype=np.int64)
    np.put_along_axis(rank, ranking, np.broadcast_to(np.arange(shape[1]), shape), axis=-1)
    n_top = np.floor(fractions * known.sum() + 0.5)
    is_top = rank < n_top[:, None, None]
    return np.stack([np.where(is_top, codes, backgrounds), np.where(is_top, backgrounds, codes)])


def _figures(outputs: dict[str, ndarray], of_x: Float[ndarray, "B T"], of_background: Float[ndarray, "B T"],
             grid: Float[ndarray, " F"], tracks: Sequence[Any], n_bootstrap: int, seed: int) -> Faithfulness:
    """Curves, areas and gaps from outputs ``(2, B, F, T)``, pooled over regions."""
    whole = of_x - of_background
    direction = np.where(whole < 0, -1, 1)
    weights = np.concatenate([np.ones((1, len(of_x))), *(w for _, w in resamples(len(of_x), n_bootstrap, seed))])
    step = np.diff(grid)
    trapezoids = (np.append(step, 0) + np.append(0, step)) / 2
    curves, areas = [], []
    for t, name_of_track in enumerate(tracks):
        total = weights @ np.abs(whole[:, t])  # the first is of all regions, the rest are resamples
        total = np.where(total > _TINY * (weights @ np.abs(of_x[:, t])), total, np.nan)
        area_of = {}
        for name, output in outputs.items():
            gained = direction[:, t, None] * (output[..., t] - of_background[:, t, None])  # 2 B F
            scores = np.einsum("nb,cbf->cnf", weights, gained) / total[:, None]
            for curve, score in zip(CURVES, scores, strict=True):
                for fraction, values in zip(grid, score.T, strict=True):
                    curves.append({"method": name, "curve": curve, "track": name_of_track, "fraction": float(fraction),
                                   **_scored("score", values)})
            insertion, deletion = scores @ trapezoids
            area_of[name] = {"insertion": insertion, "deletion": deletion, "difference": insertion - deletion}
        for name, area in area_of.items():
            for curve, values in area.items():
                gap = _scored("gap", (values - area_of[RANDOM][curve]) * (-1 if curve == "deletion" else 1))
                areas.append({"method": name, "curve": curve, "track": name_of_track, **_scored("area", values),
                              "gap": gap["gap"], "gap_low": gap["low"], "gap_high": gap["high"]})
    return Faithfulness(pd.DataFrame(curves), pd.DataFrame(areas))


def _scored(name: str, values: Float[ndarray, " n"]) -> dict[str, float]:
    figure = interval(float(values[0]), values[1:])
    return {name: figure["value"], "low": figure["low"], "high": figure["high"]}
