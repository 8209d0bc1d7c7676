"""DeepLIFT and DeepSHAP: which bases make the difference between a sequence and its references.

Contributions add up to the difference of the predictions, for any network of operations that have a rule: convolutional
ones with residual connections, gates and pools of any kind, and Enformer-like ones with norms and attention. The rules
are those of `ciscribe.interpret.rescale` and `ciscribe.interpret.reveal_cancel`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnknownNameError, UnsupportedError, nearest
from ciscribe.interpret.references import name_of, row_references
from ciscribe.interpret.rescale import NoRule, Pair
from ciscribe.interpret.reveal_cancel import Parts
from ciscribe.interpret.slopes import batches
from ciscribe.oracle import Oracle
from ciscribe.results import attribution_array
from ciscribe.sequence import N, codes_of

CARD = Card(
    name="deeplift", kind="attribution",
    summary="DeepLIFT and DeepSHAP: splits the difference between the predictions of a sequence and of its references "
            "over the bases, so that contributions add up to it.",
    paper="Shrikumar et al., ICML 2017, arXiv:1704.02685; Lundberg & Lee, NeurIPS 2017, arXiv:1705.07874",
    differences=(
        "Rules belong to operations, not to modules: functional and shared activations, residual connections, gates, "
        "norms, softmax and attention are complete, too.",
        "A max pool hands the difference of two maxima to the position of the larger one.",
        "A product of two changing numbers shares its difference evenly between them.",
        "Where the two inputs of a smooth function nearly agree, its derivative half-way between them is taken.",
        "References are N where the sequence is: an N is never explained.",
        "RevealCancel is used in all layers; the paper combines it with Rescale in convolutions.",
    ),
)

Sequences = Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."]
RULES = ("rescale", "reveal_cancel")


def deep_lift(oracle: Oracle, X: Sequences, S: Tensor | None = None, covariates: Tensor | None = None, *,
              references: str | Tensor | ndarray = "shuffle", n_references: int = 20, rule: str = "rescale",
              batch_size: int = 64, seed: int = 0, progress: bool = False, regions: Sequence[str] | None = None
              ) -> xr.DataArray:
    """Contribution of every base to the difference between the sequence and what it is compared with (DeepLIFT).

    Contributions of the bases that are there add up to f(sequence) − mean f(references), for one backward pass a
    reference. With its defaults, many shuffles of each sequence as references, this is DeepSHAP.

    Parameters
    ----------
    oracle
        Model and readout; every target of the readout is explained.
    X
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``. References are N where the sequence is N, which contributes 0.
    S, covariates
        Further inputs, which a sequence and its references share; `deep_lift_signals` explains S.
    references, n_references, seed
        What to compare with; see `ciscribe.interpret.references.references`.
    rule
        ``"rescale"``, or ``"reveal_cancel"``, which follows positive and negative differences apart, so that two causes
        that cancel are both seen. It takes several times as long, rounds more (its parts are larger than their sum),
        and has no rule for products of two changing numbers (gates, norms of the sample, attention).
    batch_size
        Pairs of a sequence and a reference a pass.
    progress
        Show a bar.
    regions
        Names of the sequences.

    Returns
    -------
    DataArray
        ``(region, base, position, track)``: hypothetical contributions, in units of the readout; positive raises the
        output above that of the references. Attribute ``completeness_error`` is the largest
        |Σ contributions − (f(sequence) − f(reference))| of a pair, relative to the largest |f| of that track.

    Raises
    ------
    SchemaError
        When sequences, references or further inputs do not fit each other.
    UnknownNameError
        For references or a rule that is not known.
    UnsupportedError
        For operations without a rule (recurrences, scans, kernels written for one machine), naming the layer.

    Notes
    -----
    A base b at a position counts for the mean over references of Σ_c m_c (onehot_b − reference_c), with m the
    multiplier.

    References
    ----------
    Shrikumar, Greenside & Kundaje, ICML 2017, arXiv:1704.02685 (both rules); Lundberg & Lee, NeurIPS 2017,
    arXiv:1705.07874 (DeepSHAP). Differences: see `CARD`.
    """
    _check(rule, batch_size)
    codes, gap, out, n = codes_of(X), _Gap(), [], 0
    starts = row_references(codes, references, n_references, seed)
    with oracle.evaluating(gradients=True) as ask:
        size = max(1, batch_size // _number(references, n_references))
        for part, inputs in batches(oracle, codes, S, covariates, size, progress):
            known = torch.from_numpy(part != N)[:, None]
            against = torch.stack([next(starts) for _ in part], dim=1) * known  # references b 4 L
            n, total = len(against), torch.zeros(())
            for before in against.to(oracle.device).split(batch_size):
                found = _explain(lambda x, i=inputs: ask(x, i.S, i.covariates), inputs.X, before, rule)
                gap.add(found)
                # of base b: what it adds, less what the bases that it replaces added
                replaced = found.minus * before
                hypothetical = found.plus * (1 - before) + replaced - replaced.sum(3, keepdim=True)
                total = total.to(hypothetical) + hypothetical.sum(1)
            out.append((total / n).permute(1, 2, 3, 0).cpu())
    return attribution_array(torch.cat(out), "deeplift", units=str(oracle.readout), regions=regions, rule=rule,
                             completeness_error=gap.relative, references=name_of(references), n_references=n, seed=seed)


def deep_lift_signals(oracle: Oracle, X: Sequences, S: Float[Tensor, "B S bins"], covariates: Tensor | None = None, *,
                      references: str | Tensor | ndarray = "zeros", rule: str = "rescale",
                      batch_size: int = 64, progress: bool = False, regions: Sequence[str] | None = None
                      ) -> xr.DataArray:
    """Contribution of every bin of every signal to the difference from a window without signals (DeepLIFT).

    Parameters
    ----------
    oracle
        Model and a readout of one target.
    X, covariates, rule, batch_size, progress, regions
        As in `deep_lift`; sequences are held as they are.
    S
        Signals ``(B, S, bins)``, finite.
    references
        What a signal is compared with: ``"zeros"`` (no signal), or an array ``(B, R, S, bins)``.

    Returns
    -------
    DataArray
        ``(region, track, bin)``, in units of the readout; the sum is f(S) − mean f(references), up to the attribute
        ``completeness_error``.

    Raises
    ------
    SchemaError, UnknownNameError, UnsupportedError
        As `deep_lift`; SchemaError also for a readout of several targets.

    References
    ----------
    See `deep_lift`.
    """
    _check(rule, batch_size)
    codes, gap, out, done = codes_of(X), _Gap(), [], 0
    given = None
    if not isinstance(references, str):
        given = torch.as_tensor(references).detach().float()
        if given.ndim != 4 or not given.shape[1] or (len(given), *given.shape[2:]) != tuple(S.shape):
            raise SchemaError(f"references of signals {tuple(S.shape)} are ({S.shape[0]}, R, {S.shape[1]}, "
                              f"{S.shape[2]}), R at least 1; got {tuple(given.shape)}")
        if not torch.isfinite(given).all():
            raise SchemaError("references of signals hold NaN or infinite numbers")
    elif references != "zeros":
        raise UnknownNameError(f"no references of signals are called {references!r}; {nearest(references, ['zeros'])}; "
                               "or give an array (B, R, S, bins)")
    n = 1 if given is None else given.shape[1]
    with oracle.evaluating(gradients=True) as ask:
        for part, inputs in batches(oracle, codes, S, covariates, max(1, batch_size // n), progress):
            signals = S[done:done + len(part)].detach().float().to(oracle.device)
            against = torch.zeros_like(signals)[:, None] if given is None else given[done:done + len(part)]
            done, total = done + len(part), torch.zeros(())
            for before in against.to(oracle.device).transpose(0, 1).split(batch_size):
                found = _explain(lambda s, i=inputs: ask(i.X, s, i.covariates), signals, before, rule)
                if len(found.plus) > 1:
                    raise SchemaError(f"signals are explained for one target at a time, and {oracle.readout} reads "
                                      f"{len(found.plus)}; choose one with its track, e.g. Scalar(track=0)")
                gap.add(found)
                total = total.to(found.plus) + found.contributions[0].sum(0)
            out.append((total / n).cpu())
    values = torch.cat(out).numpy()
    coords = {"region": np.arange(len(codes)) if regions is None else list(regions),
              "track": np.arange(values.shape[1]), "bin": np.arange(values.shape[2])}
    return xr.DataArray(values, dims=("region", "track", "bin"), coords=coords,
                        attrs={"method": "deeplift", "units": str(oracle.readout), "rule": rule, "n_references": n,
                               "completeness_error": gap.relative,
                               "references": name_of(references)})


def _number(references: str | Tensor | ndarray, n: int) -> int:
    """References of one sequence."""
    if isinstance(references, str):
        return n if references == "shuffle" else 1
    return references.shape[1] if references.ndim > 1 else 1  # what has another shape is refused later


def _check(rule: str, batch_size: int) -> None:
    if rule not in RULES:
        raise UnknownNameError(f"no rule of DeepLIFT is called {rule!r}; {nearest(rule, RULES)}")
    if batch_size < 1:
        raise SchemaError(f"a pass takes at least 1 pair; got batch_size={batch_size}")


class _Explained(NamedTuple):
    """One batch: multipliers and contributions ``(T, references, B, ...)``, and outputs."""

    plus: Tensor  # multipliers of positive differences
    minus: Tensor  # and of negative ones
    contributions: Tensor
    after: Tensor  # B T
    before: Tensor  # references B T


def _explain(ask: Callable[[Any], Any], actual: Tensor, reference: Tensor, rule: str) -> _Explained:
    """Explain inputs ``(B, ...)`` against references ``(references, B, ...)``."""
    difference = actual - reference
    up, down = difference.clamp(min=0), difference.clamp(max=0)
    inputs = [t.detach().requires_grad_() for t in ((reference,) if rule == "rescale" else (up, down))]
    try:
        out = ask(Pair.of(actual, inputs[0]) if rule == "rescale" else Parts.of(actual, reference, *inputs))
    except NoRule as error:
        raise UnsupportedError(str(error)) from None
    if isinstance(out, Pair):
        tracked, before, after = out.reference, out.reference.detach(), out.actual
    elif isinstance(out, Parts):
        tracked, before, after = out.plus + out.minus, out.start, out.actual
    else:
        raise UnsupportedError("the model's output does not depend on what is to be explained")
    n_tracks = tracked.shape[-1]
    found = [torch.autograd.grad(tracked[..., t].sum(), inputs, retain_graph=t + 1 < n_tracks)
             for t in range(n_tracks)]
    plus, minus = (torch.stack([multipliers[i] for multipliers in found]) for i in (0, -1))
    return _Explained(plus, minus, plus * up + minus * down, after, before)


class _Gap:
    """The largest distance between the sum of contributions and the difference of the outputs, track by track."""

    def __init__(self) -> None:
        self.gap = self.scale = np.zeros(1)

    def add(self, found: _Explained) -> None:
        total = found.contributions.flatten(3).sum(3).permute(1, 2, 0)
        gap = (total - (found.after - found.before)).abs().amax((0, 1))
        scale = torch.maximum(found.before.abs().amax((0, 1)), found.after.abs().amax(0))
        self.gap, self.scale = np.maximum(self.gap, gap.cpu().numpy()), np.maximum(self.scale, scale.cpu().numpy())

    @property
    def relative(self) -> float:
        return float((self.gap / np.where(self.scale > 0, self.scale, 1)).max())
