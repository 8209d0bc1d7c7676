"""One way to ask any model: sequences (and signals) in, numbers out.

Every analysis takes an `Oracle`, never a model, so that any PyTorch module from anywhere can be evaluated,
explained and searched. An oracle adds a readout, batching and a device; it never trains, and it leaves the
model as it found it, also after an exception.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from rich.progress import track
from torch import Tensor, nn

from ciscribe.errors import DeviceError, SchemaError
from ciscribe.sequence import one_hot_tensor

Output = Tensor | Mapping[str, Tensor]


@runtime_checkable
class Readout(Protocol):
    """What is read off a model's output: one number a target."""

    def __call__(self, output: Any) -> Float[Tensor, "B T"]:
        """Take the numbers out of a model's output."""
        ...


@dataclass(frozen=True)
class Scalar:
    """Readout: the model's own numbers, one a target.

    Parameters
    ----------
    head
        Key of the model's output when it returns a dictionary.
    track
        Index of one target; None keeps all.
    """

    head: str = "expression"
    track: int | None = None

    def __call__(self, output: Output) -> Float[Tensor, "B T"]:
        """Take the numbers out of a model's output."""
        return _tracks(_head(output, self.head, "Scalar", "(B, T)"), self.track)


@dataclass(frozen=True)
class WindowSum:
    """Readout of binned tracks: the sum over bins `start` to `end` (half-open, of the cropped output).

    Parameters
    ----------
    start, end
        Bins; ``end=None`` is the last.
    head
        Key of the model's output when it returns a dictionary, e.g. the organism.
    track
        Index of one track; None keeps all.
    """

    start: int = 0
    end: int | None = None
    head: str = "human"
    track: int | None = None

    def __call__(self, output: Output) -> Float[Tensor, "B T"]:
        """Take the sums out of a model's output ``(B, T, bins)``."""
        tracks = _head(output, self.head, "WindowSum", "(B, T, bins)")
        n_bins = tracks.shape[2]
        end = n_bins if self.end is None else self.end
        if not 0 <= self.start < end <= n_bins:
            raise SchemaError(f"the model returns {n_bins} bins, so start and end of a WindowSum lie in 0 to {n_bins}, "
                              f"start before end; got {self.start} and {end}")
        return _tracks(tracks[:, :, self.start:end].sum(dim=2), self.track)


@dataclass(frozen=True)
class LogCounts:
    """Readout of models of profiles: the predicted ln(1 + total count).

    Parameters
    ----------
    head
        Key of the counts in the output.
    track
        Index of one count; None keeps all.
    """

    head: str = "counts"
    track: int | None = None

    def __call__(self, output: Output) -> Float[Tensor, "B T"]:
        """Take the log counts out of a model's output."""
        return _tracks(_head(output, self.head, "LogCounts", "(B, n)"), self.track)


@dataclass(frozen=True)
class Profile:
    """Readout along positions: every bin of every track, one track after the other.

    Parameters
    ----------
    head
        Key of the model's output when it returns a dictionary.
    n_tracks
        Tracks that the model returns; the `bins` of the first come first.
    resolution
        bp a bin.
    logits
        True: the output becomes the shape of a profile, a softmax over the bins of each track (BPNet). False: the
        numbers as they are, such as coverage.
    """

    head: str = "profile"
    n_tracks: int = 1
    resolution: int = 1
    logits: bool = True

    def __call__(self, output: Output) -> Float[Tensor, "B _"]:
        """Take the bins ``(B, n_tracks · bins)`` out of a model's output ``(B, n_tracks, bins)``."""
        tracks = _head(output, self.head, "Profile", "(B, T, bins)")
        if tracks.shape[1] != self.n_tracks:
            raise SchemaError(f"the model returns {tracks.shape[1]} tracks, Profile says {self.n_tracks}; use "
                              f"Profile(n_tracks={tracks.shape[1]})")
        return (tracks.softmax(dim=2) if self.logits else tracks).flatten(1)


@dataclass(frozen=True)
class Probability:
    """Readout of classifiers, which return logits: the probability of each label.

    Parameters
    ----------
    head
        Key of the model's output when it returns a dictionary.
    track
        Index of one label; None keeps all.
    """

    head: str = "expression"
    track: int | None = None

    def __call__(self, output: Output) -> Float[Tensor, "B T"]:
        """Take the probabilities out of a model's output."""
        return _tracks(_head(output, self.head, "Probability", "(B, T)"), self.track).sigmoid()


@dataclass(frozen=True)
class ExpectedBin:
    """Readout of models of sorting bins (LegNet): Σ p · bin, with p the softmax of the logits and bins from 0.

    Parameters
    ----------
    head
        Key of the model's output when it returns a dictionary.
    """

    head: str = "expression"

    def __call__(self, output: Output) -> Float[Tensor, "B 1"]:
        """Take the expected bin out of a model's output ``(B, bins)``."""
        logits = _head(output, self.head, "ExpectedBin", "(B, bins)")
        return logits.softmax(dim=1) @ torch.arange(logits.shape[1], dtype=logits.dtype, device=logits.device)[:, None]


def _head(output: Output, head: str, readout: str, shape: str) -> Tensor:
    """One head of an output; a tensor is its own only head."""
    if isinstance(output, Mapping):
        if head not in output:
            raise SchemaError(f"the readout wants the output {head!r}; the model returned {', '.join(output)}; "
                              f"use {readout}(head=...)")
        output = output[head]
    if output.ndim != shape.count(",") + 1:
        raise SchemaError(f"a {readout} readout needs outputs {shape}; got shape {tuple(output.shape)}")
    return output


def _tracks(values: Tensor, track: int | None) -> Tensor:
    if track is None:
        return values
    if not 0 <= track < values.shape[1]:
        raise SchemaError(f"the model has targets 0 to {values.shape[1] - 1}; got track {track}")
    return values[:, track:track + 1]


class MaskPosterior(NamedTuple):
    """Mean and standard deviation of the mask, each float32 ``(B, n_bins)`` on the CPU."""

    mean: Tensor
    sd: Tensor


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Device to run on; None means a GPU when there is one, else the CPU.

    Raises
    ------
    DeviceError
        When a GPU is asked for and none is there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"device {str(device)!r} was asked for, but PyTorch sees no GPU on this machine; "
                          "use device cpu, or leave it out to take what is there")
    return device


@contextmanager
def _evaluating(model: nn.Module, device: torch.device, gradients: bool = False) -> Iterator[None]:
    modes = [(m, m.training) for m in model.modules()]
    frozen = [p for p in model.parameters() if p.requires_grad] if gradients else []
    first = next(model.parameters(), None)
    home = device if first is None else first.device
    try:
        model.eval().to(device)
        for parameter in frozen:
            parameter.requires_grad_(False)
        with torch.enable_grad() if gradients else torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter in frozen:
            parameter.requires_grad_(True)
        model.to(home)


class Oracle:
    """A model behind one calling convention.

    Parameters
    ----------
    model
        ``forward(X[, S][, covariates][, keep])`` as in the model contract, or any module that takes X alone.
    readout
        What is read off the output; `Scalar` unless given.
    layout
        Layout that the model wants its one-hot input in.
    device
        See `resolve_device`.
    """

    def __init__(self, model: nn.Module, readout: Readout | None = None, *,
                 layout: Literal["B 4 L", "B L 4"] = "B 4 L", device: str | torch.device | None = None):
        self.model = model
        self.readout: Readout = readout or Scalar()
        self.layout = layout
        self.device = resolve_device(device)

    def __repr__(self) -> str:
        return (f"Oracle({type(self.model).__name__}, {self.readout}, layout={self.layout!r}, "
                f"device={self.device.type!r})")

    def _batches(self, X: Tensor, extras: dict[str, Tensor | None], batch_size: int, progress: bool
                 ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        n = len(X)
        for name, value in extras.items():
            if value is not None and len(value) != n:
                raise SchemaError(f"X has {n} sequences but {name} has {len(value)} rows")
        if not (X.ndim == 2 or (X.ndim == 3 and X.shape[1] == 4)):
            raise SchemaError(f"X must be codes (B, L) or one-hot (B, 4, L); got {tuple(X.shape)}")
        steps: object = range(0, n, batch_size)
        for i in (track(steps, description="predict") if progress else steps):  # type: ignore[arg-type, union-attr]
            part = X[i:i + batch_size].to(self.device)
            part = one_hot_tensor(part) if part.ndim == 2 else part.float()
            if self.layout == "B L 4":
                part = part.transpose(1, 2)
            yield part, {k: v[i:i + batch_size].to(self.device) for k, v in extras.items() if v is not None}

    @contextmanager
    def evaluating(self, *, gradients: bool = False) -> Iterator[Callable[..., Tensor]]:
        """Hold the model ready for an analysis, and leave it as it was, also after an exception.

        Within, the model is in evaluation mode on the oracle's device. With `gradients`, operations are recorded and
        the parameters are frozen: a gradient reaches the inputs and nothing else.

        Yields
        ------
        callable
            ``ask(X, S=None, covariates=None, keep=None) -> (B, T)``: float one-hot ``(B, 4, L)`` on the device in,
            what the readout takes out; inputs that are None are not passed on.

        Examples
        --------
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4 * 7, 1))
        >>> X = torch.zeros(1, 4, 7, requires_grad=True)
        >>> with Oracle(model, device="cpu").evaluating(gradients=True) as ask:
        ...     ask(X).sum().backward()
        >>> X.grad.shape, model[1].weight.grad
        (torch.Size([1, 4, 7]), None)
        """
        def ask(X: Tensor, S: Tensor | None = None, covariates: Tensor | None = None, keep: Tensor | None = None
                ) -> Tensor:
            given = {"S": S, "covariates": covariates, "keep": keep}
            X = X.transpose(1, 2) if self.layout == "B L 4" else X
            return self.readout(self.model(X, **{k: v for k, v in given.items() if v is not None}))

        with _evaluating(self.model, self.device, gradients):
            yield ask

    def predict(self, X: Shaped[Tensor, "B ..."], S: Tensor | None = None, covariates: Tensor | None = None,
                keep: Tensor | None = None, *, batch_size: int = 64, progress: bool = False) -> Float[Tensor, "B T"]:
        """Predict a batch of any size.

        Parameters
        ----------
        X
            Codes ``(B, L)`` (uint8) or one-hot ``(B, 4, L)``.
        S, covariates, keep
            Signals ``(B, S, n_bins)``, gene features ``(B, C)``, and the multiplier of the mask ``(B, n_bins)``
            (0 erases a bin); passed on only when given.
        batch_size
            Rows a forward pass.
        progress
            Show a bar.

        Returns
        -------
        Tensor
            float32 ``(B, T)`` on the CPU, in the order of the rows.
        """
        inputs = {"S": S, "covariates": covariates, "keep": keep}
        out = []
        with _evaluating(self.model, self.device):
            for part, extras in self._batches(X, inputs, batch_size, progress):
                out.append(self.readout(self.model(part, **extras)).float().cpu())
        return torch.cat(out).clone() if out else torch.zeros(0, 0)

    def posterior(self, X: Shaped[Tensor, "B ..."], S: Tensor | None = None, covariates: Tensor | None = None, *,
                  batch_size: int = 64, progress: bool = False) -> MaskPosterior:
        """Mask posterior of a batch; `covariates` are accepted and not used.

        Raises
        ------
        SchemaError
            When the model has no mask.
        """
        if not self.has_mask:
            raise SchemaError(f"{type(self.model).__name__} has no mask; elements can be called from beacon and "
                              "seq2exp")
        means, sds = [], []
        with _evaluating(self.model, self.device):
            for part, extras in self._batches(X, {"S": S}, batch_size, progress):
                posterior = self.model.posterior(part, **extras)  # type: ignore[operator]
                means.append(posterior.mean.float().cpu())
                sds.append(posterior.sd.float().cpu())
        return MaskPosterior(torch.cat(means).clone(), torch.cat(sds).clone())

    @property
    def has_mask(self) -> bool:
        """Whether the model draws a mask."""
        return callable(getattr(self.model, "posterior", None))
