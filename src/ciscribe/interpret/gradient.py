"""Importance by backpropagation: which bases would move the prediction.

One backward pass gives the slope of an output with respect to every base. The slope at the sequence itself (`gradient`)
is fast and local; averaged along the way from a reference (`integrated_gradients`, `expected_gradients`) it adds up to
the difference of the predictions, which saturation cannot hide. Signals are explained alike in `interpret.signals`.
"""

from collections.abc import Callable, Sequence

import torch
import xarray as xr
from jaxtyping import Shaped
from numpy import ndarray
from torch import Tensor

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.interpret.references import name_of, row_references
from ciscribe.interpret.slopes import (
    Ask,
    Inputs,
    Line,
    along,
    asking,
    batches,
    integrate,
    random_places,
    slopes_at,
    take_turns,
    warn_unless_complete,
)
from ciscribe.oracle import Oracle
from ciscribe.results import attribution_array
from ciscribe.sequence import N, codes_of

Sequences = Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."]

_N = "an N contributes 0; a reference has N where the sequence has"
CARDS = {
    "gradient": Card(
        name="gradient", kind="attribution", n_policy="an N contributes 0",
        summary="Slope of the prediction with respect to every base; on the bases that are there, gradient x input.",
        paper="Simonyan, Vedaldi & Zisserman, ICLR workshop 2014, arXiv:1312.6034; gradient x input: Shrikumar et al. "
              "2016, arXiv:1605.01713",
        differences=("Signed; the paper takes the largest absolute value over the channels.",)),
    "corrected_gradient": Card(
        name="corrected_gradient", kind="attribution", n_policy="an N contributes 0",
        summary="Slope of the prediction, without the part that would change all four bases of a position at once.",
        paper="Majdandzic, Rajesh & Koo, Genome Biol 2023, doi:10.1186/s13059-023-02956-3"),
    "integrated_gradients": Card(
        name="integrated_gradients", kind="attribution", n_policy=_N,
        summary="Slopes averaged from reference to sequence: contributions add up to the difference of the two.",
        paper="Sundararajan, Taly & Yan, ICML 2017, arXiv:1703.01365",
        differences=("Midpoint rule, its steps tripled for the sequences whose contributions do not add up.",
                     "Averaged over several references, dinucleotide shuffles unless told otherwise.",
                     "Hypothetical contributions of the absent bases, as DeepSHAP has them.")),
    "expected_gradients": Card(
        name="expected_gradients", kind="attribution", n_policy=_N,
        summary="Slopes at random places between many references and the sequence: integrated gradients by sampling.",
        paper="Erion et al., Nat Mach Intell 2021, doi:10.1038/s42256-021-00343-w",
        differences=("The places are stratified: one in each of as many parts of the path as there are references.",
                     "References are dinucleotide shuffles of the sequence instead of other sequences.")),
    "smooth_grad": Card(
        name="smooth_grad", kind="attribution", n_policy="an N gets no noise and contributes 0",
        summary="Mean slope over copies of the sequence with a little noise on every base.",
        paper="Smilkov et al. 2017, arXiv:1706.03825"),
}


def gradient(oracle: Oracle, X: Sequences, S: Tensor | None = None, covariates: Tensor | None = None, *,
             batch_size: int = 64, seed: int = 0, progress: bool = False, regions: Sequence[str] | None = None
             ) -> xr.DataArray:
    """How fast the prediction changes with every base at every position (saliency).

    Positive: more of this base there raises the output. `results.contributions` of it is gradient × input, the slope
    at the base that is there; it is not a difference between two predictions and does not add up to one. The slope is
    local: where a network is saturated it is small, however important the base.

    Parameters
    ----------
    oracle
        Model; every target that its readout gives is explained, one backward pass each.
    X
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    S, covariates
        Signals ``(B, S, bins)`` and gene features ``(B, C)``, held as they are.
    batch_size
        Sequences a pass.
    seed
        Not used: nothing is random.
    progress
        Show a bar.
    regions
        Names of the sequences.

    Returns
    -------
    DataArray
        ``(region, base, position, track)``, units of the readout a base.

    Raises
    ------
    UnsupportedError
        When no gradient reaches the sequence, as in a model that rounds or takes the largest.

    References
    ----------
    Simonyan et al. 2014, arXiv:1312.6034 (signed here); gradient × input: Shrikumar et al. 2016, arXiv:1605.01713.
    """
    values = _explain(oracle, X, S, covariates, batch_size, progress,
                      lambda ask, codes, inputs: slopes_at(ask, inputs)[0])
    return attribution_array(values, "gradient", units=str(oracle.readout), regions=regions)


def corrected_gradient(oracle: Oracle, X: Sequences, S: Tensor | None = None, covariates: Tensor | None = None, *,
                       batch_size: int = 64, seed: int = 0, progress: bool = False,
                       regions: Sequence[str] | None = None) -> xr.DataArray:
    """How fast the prediction changes with every base, compared with the mean of the four bases there.

    A sequence always has one base at a position, so the part of the slope that all four bases share cannot come from
    data: it is noise of training, and is taken away.

    Parameters
    ----------
    oracle, X, S, covariates, batch_size, seed, progress, regions
        As in `gradient`.

    Returns
    -------
    DataArray
        As `gradient`; the four bases of a position sum to 0.

    References
    ----------
    Majdandzic et al., Genome Biol 2023, doi:10.1186/s13059-023-02956-3.
    """
    array = gradient(oracle, X, S, covariates, batch_size=batch_size, progress=progress, regions=regions)
    return (array - array.mean("base")).assign_attrs(array.attrs | {"method": "corrected_gradient"})


def smooth_grad(oracle: Oracle, X: Sequences, S: Tensor | None = None, covariates: Tensor | None = None, *,
                noise: float = 0.15, n_samples: int = 50, batch_size: int = 64, seed: int = 0, progress: bool = False,
                regions: Sequence[str] | None = None) -> xr.DataArray:
    """Mean gradient over copies of the sequence with a little noise on every base.

    Parameters
    ----------
    oracle, X, S, covariates, progress, regions
        As in `gradient`.
    noise
        Standard deviation of the Gaussian noise on the one-hot sequence, whose values lie 0 to 1.
    n_samples
        Copies of each sequence; all sequences get the same noise.
    batch_size
        Copies a pass.
    seed
        Of the noise.

    References
    ----------
    Smilkov et al. 2017, arXiv:1706.03825 (noise of 10 to 20 % of the range, 50 samples).
    """
    if noise < 0 or n_samples < 1:
        raise SchemaError(f"noise is at least 0 and n_samples at least 1; got {noise} and {n_samples}")
    def explain(ask: Ask, codes: ndarray, inputs: Inputs) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        shifts = noise * torch.randn(n_samples, *inputs.X.shape[1:], generator=draw) * torch.from_numpy(codes != N)
        line = Line(inputs, inputs.X + shifts.to(oracle.device))
        return along(ask, line, torch.zeros(n_samples, 1), batch_size)[0].mean(dim=0, keepdim=True)

    values = _explain(oracle, X, S, covariates, 1, progress, explain)
    return attribution_array(values, "smooth_grad", units=str(oracle.readout), regions=regions, noise=noise,
                             n_samples=n_samples, seed=seed)


def integrated_gradients(oracle: Oracle, X: Sequences, S: Tensor | None = None, covariates: Tensor | None = None, *,
                         references: str | Tensor | ndarray = "shuffle", n_references: int = 10, n_steps: int = 20,
                         max_steps: int = 540, tolerance: float = 0.005, batch_size: int = 64, seed: int = 0,
                         progress: bool = False, regions: Sequence[str] | None = None) -> xr.DataArray:
    """Contribution of every base to the difference between the sequence and what it is compared with.

    The slope is averaged along the straight line from each reference to the sequence. The contributions of the bases
    that are there add up to f(sequence) − mean f(references), up to an error that shrinks with the steps.

    Parameters
    ----------
    oracle, X, S, covariates, progress, regions
        As in `gradient`.
    references, n_references, seed
        What to compare with; see `ciscribe.interpret.references.references`.
    n_steps
        Places on each line at first.
    max_steps, tolerance
        Steps are tripled for each sequence whose contributions miss the difference by more than `tolerance` times the
        sum of their absolute values, while there are at most `max_steps`; tripling reuses the places before.
    batch_size
        Places a pass.

    Returns
    -------
    DataArray
        ``(region, base, position, track)``: hypothetical contributions, in units of the readout. Attribute
        ``completeness_error`` is the largest miss relative to that sum, ``n_steps`` the most steps that were used.

    Warns
    -----
    UserWarning
        When an error is left above `tolerance`: the model jumps on the way, as with a hard mask.

    Notes
    -----
    A base b at a position counts for the mean over references and steps of Σ_c m_c (onehot_b − reference_c), with m
    the slope.

    References
    ----------
    Sundararajan et al., ICML 2017, arXiv:1703.01365. Differences: see `CARDS`.
    """
    starts = row_references(codes_of(X), references, n_references, seed)
    worst, most = 0.0, n_steps

    def explain(ask: Ask, codes: ndarray, inputs: Inputs) -> Tensor:
        nonlocal worst, most
        line = Line(inputs, next(starts).to(oracle.device))
        found = integrate(ask, line, n_steps=n_steps, max_steps=max_steps, tolerance=tolerance, batch_size=batch_size)
        worst, most = max(worst, found.error), max(most, found.n_steps)
        return line.hypothetical(found.slopes[0])[None]

    values = _explain(oracle, X, S, covariates, 1, progress, explain)
    warn_unless_complete(worst, tolerance)
    return attribution_array(values, "integrated_gradients", units=str(oracle.readout), regions=regions,
                             completeness_error=worst, n_steps=most, references=name_of(references), seed=seed)


def expected_gradients(oracle: Oracle, X: Sequences, S: Tensor | None = None, covariates: Tensor | None = None, *,
                       references: str | Tensor | ndarray = "shuffle", n_references: int = 50, batch_size: int = 64,
                       seed: int = 0, progress: bool = False, regions: Sequence[str] | None = None) -> xr.DataArray:
    """Contribution of every base, from slopes at random places between references and the sequence.

    As `integrated_gradients` with one place on the line from each reference: contributions add up to f(sequence) −
    mean f(references) only in expectation, and many references are cheap.

    Parameters
    ----------
    oracle, X, S, covariates, progress, regions
        As in `gradient`.
    references, seed
        As in `integrated_gradients`; `seed` draws the places too, the same for every sequence.
    n_references
        Places; where there are fewer references they take turns.
    batch_size
        Places a pass.

    References
    ----------
    Erion et al., Nat Mach Intell 2021, doi:10.1038/s42256-021-00343-w. Differences: see `CARDS`.
    """
    starts = row_references(codes_of(X), references, n_references, seed)

    def explain(ask: Ask, codes: ndarray, inputs: Inputs) -> Tensor:
        line = Line(inputs, take_turns(next(starts), n_references).to(oracle.device))
        return line.hypothetical(along(ask, line, random_places(line.n, seed), batch_size)[0])[None]

    values = _explain(oracle, X, S, covariates, 1, progress, explain)
    return attribution_array(values, "expected_gradients", units=str(oracle.readout), regions=regions,
                             n_references=n_references, references=name_of(references), seed=seed)


def _explain(oracle: Oracle, X: Sequences, S: Tensor | None, covariates: Tensor | None, size: int, progress: bool,
             explain: Callable[[Ask, ndarray, Inputs], Tensor]) -> Tensor:
    """Run ``explain(ask, codes, inputs) -> (b, T, 4, L)`` over all sequences; ``(B, 4, L, T)`` on the CPU."""
    with asking(oracle) as ask:
        parts = [explain(ask, codes, inputs).cpu()
                 for codes, inputs in batches(oracle, codes_of(X), S, covariates, size, progress)]
    return torch.cat(parts).permute(0, 2, 3, 1)
