"""Changes of sequences as a table of their own, and the predictions of what they make."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from numpy import ndarray
from rich.progress import track
from torch import Tensor

from ciscribe.errors import SchemaError
from ciscribe.oracle import Oracle
from ciscribe.perturb.local import Difference, Layouts, Tape
from ciscribe.sequence import N, codes_of, one_hot_tensor

_POSITIONS = 2**16  # of the edited sequences of a batch where a model stays local, at least; more outgrows the caches
_ROUNDING = {"cpu": 1e-4, "cuda": 1e-3}  # of the largest output: what the two ways may differ by; GPUs use TF32


class Edits(NamedTuple):
    """`n` changed sequences: which sequence, from where, and the bases that stand there instead.

    Parameters
    ----------
    row
        Sequence of the batch that is changed, int64 ``(n,)``.
    start
        First position that is replaced, int64 ``(n,)``.
    bases
        Codes that replace ``start`` to ``start + w``, uint8 ``(n, w)``; 4 is N.
    """

    row: Int[ndarray, " n"]
    start: Int[ndarray, " n"]
    bases: UInt8[ndarray, "n w"]


def check_edits(edits: Edits, n_sequences: int, length: int) -> None:
    """Raise SchemaError unless every edit lies in its sequence and holds codes."""
    row, start, bases = edits
    if bases.ndim != 2 or not len(row) == len(start) == len(bases):
        raise SchemaError(f"edits are row (n,), start (n,) and bases (n, w); got {row.shape}, {start.shape} and "
                          f"{bases.shape}")
    for bad, fault in (((row < 0) | (row >= n_sequences), f"change a sequence that is not among the {n_sequences:,}"),
                       ((start < 0) | (start + bases.shape[1] > length), f"leave their sequence of {length:,} bp"),
                       ((bases > N).any(axis=1), "hold something other than codes 0..4")):
        bad = np.asarray(bad)
        if bad.any():
            i = int(bad.argmax())
            raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} edits {fault}; first: edit {i}, sequence {row[i]}, "
                              f"position {start[i]} to {start[i] + bases.shape[1]}")


def apply_edits(codes: UInt8[ndarray, "B L"], edits: Edits) -> UInt8[ndarray, "n L"]:
    """Write the edited sequences out in full."""
    edited = codes[edits.row]
    at = edits.start[:, None] + np.arange(edits.bases.shape[1])
    np.put_along_axis(edited, at, edits.bases, axis=1)
    return edited


def predict_edited(oracle: Oracle, X: Shaped[Tensor, "B ..."] | Shaped[ndarray, "B ..."], edits: Edits,
                   S: Tensor | None = None, covariates: Tensor | None = None, *, batch_size: int = 64,
                   fast: bool = True, progress: bool = False) -> Float[ndarray, "n T"]:
    """Predict every edited sequence; where the model allows it, only what an edit can reach is computed.

    Parameters
    ----------
    oracle
        Any model. How much is saved depends on how far it stays local (`ciscribe.perturb.local`); the answer does not.
    X
        Codes ``(B, L)`` or one-hot ``(B, 4, L)``.
    edits
        What to change; see `Edits`.
    S, covariates
        Further inputs of the unedited sequences, ``(B, ...)``; an edit does not change them.
    batch_size
        Edited sequences a forward pass. More of short sequences where the model stays local to its end, so that none
        of them is ever held in full.
    fast
        False predicts every edited sequence in full. The fast way is compared with that on a few edits first, and
        not taken where they differ by more than rounding.

    Returns
    -------
    ndarray
        float32 ``(n, T)``, in the order of the edits.

    Raises
    ------
    SchemaError
        When an edit leaves its sequence.
    """
    codes = codes_of(X)
    check_edits(edits, *codes.shape)
    n = len(edits.row)
    if not n:
        y = oracle.predict(torch.from_numpy(codes[:1]), *_take((S, covariates), slice(1)))
        return np.zeros((0, y.shape[1]), np.float32)
    order = np.lexsort((edits.start, edits.row))
    ordered = Edits._make(field[order] for field in edits)
    with oracle.evaluating() as ask:
        work = _Work(oracle, ask, codes, (S, covariates), batch_size)
        fast = fast and work.follows(ordered)
        is_local = fast and not work.thread.tape.left
        batches = _batches(ordered, max(batch_size, _POSITIONS // codes.shape[1]) if is_local else batch_size)
        out = work.run(batches, fast, progress)
    made = np.empty((n, out[0].shape[1]), np.float32)
    made[order] = torch.cat(out).numpy()
    return made


def _batches(edits: Edits, batch_size: int) -> list[tuple[ndarray, Edits]]:
    """Batches of edits in their order, each with the sequences of its block; blocks hold a batch or one sequence."""
    rows, first = np.unique(edits.row, return_index=True)
    ends = np.append(first[1:], len(edits.row))
    batches, i = [], 0
    while i < len(rows):
        j = i + 1
        while j < len(rows) and ends[j] - first[i] <= batch_size:
            j += 1
        block = Edits._make(field[first[i]:ends[j - 1]] for field in edits)
        batches += [(rows[i:j], piece) for piece in _pieces(block, batch_size)]
        i = j
    return batches


def _pieces(edits: Edits, size: int) -> list[Edits]:
    return [Edits._make(field[i:i + size] for field in edits) for i in range(0, len(edits.row), size)]


def _take(extras: tuple[Tensor | None, ...], rows: Any) -> list[Tensor | None]:
    return [None if value is None else value[rows] for value in extras]


class _Work:
    """The sequences, and a model that is ready to answer: in full, or for differences to a block of sequences."""

    def __init__(self, oracle: Oracle, ask: Callable[..., Tensor], codes: ndarray, extras: tuple[Tensor | None, ...],
                 batch_size: int):
        self.oracle, self.ask, self.codes, self.extras, self.batch_size = oracle, ask, codes, extras, batch_size
        self.layouts = Layouts()
        self.thread = threading.local()  # block that a thread is working on: its sequences, tracks and tape

    def run(self, batches: list[tuple[ndarray, Edits]], fast: bool, progress: bool) -> list[Tensor]:
        """Predict all batches, in their order.

        On a CPU each thread takes whole batches: the pieces of one are too small to be shared out.
        """
        n_threads = torch.get_num_threads() if fast and self.oracle.device.type == "cpu" else 1
        if n_threads == 1 or len(batches) == 1:
            steps = track(batches, description="edits") if progress else batches
            return [self.predict(block, edits, fast) for block, edits in steps]
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(n_threads) as pool:
                made = pool.map(lambda batch: self.predict(batch[0], batch[1], fast), batches)
                return list(track(made, description="edits", total=len(batches)) if progress else made)
        finally:
            torch.set_num_threads(n_threads)

    def predict(self, block: ndarray, edits: Edits, fast: bool) -> Tensor:
        """Predict one batch, on the CPU."""
        with torch.inference_mode():
            y = self.differences(block, edits) if fast and len(edits.row) > 2 * len(block) else None
            if y is None:
                y = torch.cat([self.in_full(piece) for piece in _pieces(edits, self.batch_size)])
            return y.float().cpu()

    def in_full(self, edits: Edits) -> Tensor:
        """Predict the edited sequences as they are."""
        X = one_hot_tensor(torch.from_numpy(apply_edits(self.codes, edits)).to(self.oracle.device))
        extras = _take(self.extras, edits.row)
        return self.ask(X, *(None if value is None else value.to(self.oracle.device) for value in extras))

    def differences(self, block: ndarray, edits: Edits) -> Tensor | None:
        """Predict from the differences to the sequences of the block; None where the model cannot be run this way."""
        device, mine = self.oracle.device, self.thread
        if not np.array_equal(getattr(mine, "block", None), block):  # type: ignore[arg-type]
            S = _take(self.extras, block)[0]
            mine.block, mine.tape, mine.bases = block, Tape(self.layouts), self._bases(self.codes[block])
            mine.tracks = None if S is None else S.to(device).transpose(1, 2).contiguous()
        tape: Tape = mine.tape
        at = edits.start[:, None] + np.arange(edits.bases.shape[1])
        delta = self._bases(edits.bases) - self._bases(self.codes[edits.row[:, None], at])
        row, start = (torch.from_numpy(v).to(device) for v in (np.searchsorted(block, edits.row), edits.start))
        tape.rewind()
        X, S = Difference.make(mine.bases, row, start, delta, tape), None
        covariates = _take(self.extras, edits.row)[1]
        if mine.tracks is not None:
            S = Difference.make(mine.tracks, row, start, delta.new_zeros(len(row), 0, mine.tracks.shape[2]), tape)
        try:
            y = self.ask(X, S, None if covariates is None else covariates.to(device))
        except Exception:  # whatever it is: the full computation works, or fails with an error worth reading
            return None
        return y.full() if isinstance(y, Difference) else y

    def _bases(self, codes: ndarray) -> Tensor:
        """One-hot with bases last."""
        return one_hot_tensor(torch.from_numpy(codes).to(self.oracle.device)).transpose(1, 2).contiguous()

    def follows(self, edits: Edits) -> bool:
        """Whether a few edits, of the sequences with the most, get the answer of the full computation."""
        rows, counts = np.unique(edits.row, return_counts=True)
        if counts.max() <= 2:  # nothing to gain
            return False
        block = np.sort(rows[np.argsort(-counts, kind="stable")[:min(2, self.batch_size)]])
        theirs = np.flatnonzero(np.isin(edits.row, block))
        few = theirs[np.linspace(0, len(theirs) - 1, 3).astype(int)]
        allowed = _ROUNDING["cuda" if self.oracle.device.type == "cuda" else "cpu"]
        with torch.inference_mode():
            pieces = _pieces(Edits._make(field[few] for field in edits), self.batch_size)
            made = [self.differences(block, piece) for piece in pieces]
            whole = torch.cat([self.in_full(piece) for piece in pieces])
            if any(y is None for y in made):
                return False
            y = torch.cat([y for y in made if y is not None])
            return y.shape == whole.shape and bool((y - whole).abs().max() <= allowed * whole.abs().max())
