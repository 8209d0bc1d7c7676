"""A network run on the difference that an edit makes: only what the edit can reach is computed.

A `Difference` stands for the activations of edited sequences. It holds those of the unedited sequence once, and for
each edited one the window of positions where it differs, and by how much. A linear layer needs the difference alone
(a convolution of a window 529 wide to one 1,041 wide costs 529 positions, not 1,041); a non-linear one also the
activations of the unedited sequence in the window. What has no rule here gets the activations in full, and the network
goes on as always. So any model can be run this way, the answer is that of the full computation up to rounding, and how
much is saved depends on how far the model stays local: everything up to the dense layers in a convolutional network.

References
----------
The idea of recomputing only what changed: Nair et al., "fastISM", Bioinformatics 2022,
doi:10.1093/bioinformatics/btac135. Ours differs: it runs the model's own Python instead of rewriting its graph, and
carries differences through linear layers instead of windows of values.
"""

from collections.abc import Callable, Hashable, Mapping
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.nn.conv import conv1d
from ciscribe.nn.intercept import Intercepted
from ciscribe.perturb.kernels import lay_taps, relu_windows, serves

_WIDE = 0.75  # share of the positions from which a window is no cheaper than the whole
_POINTWISE = {"relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "softplus",
              "exp", "expm1", "sigmoid", "tanh", "log", "log1p", "log2", "sqrt", "square", "abs", "clamp", "clip",
              "reciprocal", "neg", "pow", "logsigmoid", "hardtanh", "hardsigmoid", "softsign"}
_SAME = {"contiguous", "clone", "detach", "float"}  # a new object each: what changes one in place leaves the other


class Layouts:
    """Weights as rules want them laid out, made once for all batches and threads of a call."""

    def __init__(self) -> None:
        self._made: dict[Any, tuple[Tensor, Tensor]] = {}
        self._lock = Lock()

    def read(self, what: Hashable, weight: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Return `what` is made of a parameter; of a weight that the network itself makes in every pass, anew."""
        if not isinstance(weight, nn.Parameter):
            return compute()
        with self._lock:
            found = self._made.get((what, id(weight)))
            if found is None:  # the parameter is kept with what was made of it: its id stays its own
                found = self._made[what, id(weight)] = weight, compute()
            return found[1]


class Tape:
    """What operations make of the unedited sequences, computed once and read again by every further batch of edits.

    The operations of a model come in the same order each time. A record is read only where the operation and all that
    goes into it (activations of the unedited sequences, weights, settings) are those that it was made from; else it is
    made anew. So a model that takes another path for some batches, or makes its weights anew in every pass, is
    followed as well.

    Attributes
    ----------
    layouts
        Of weights, shared by tapes.
    left
        Whether some activations of edited sequences were needed in full.
    """

    def __init__(self, layouts: Layouts | None = None) -> None:
        self.layouts = layouts or Layouts()
        self._records: list[tuple[Any, Any]] = []
        self._next = 0
        self._call: Any = None
        self.left = False

    def rewind(self) -> None:
        """Start again at the first operation."""
        self._next = 0

    def enter(self, *call: Any) -> None:
        """Begin an operation; `call` is all that its results for the unedited sequences depend on."""
        self._call = call

    def read(self, what: str, compute: Callable[[], Any]) -> Any:
        """Return `what` the operation makes of the unedited sequences."""
        i, self._next = self._next, self._next + 1
        key = what, self._call
        if i == len(self._records) or not _equal(self._records[i][0], key):
            self._records[i:] = [(key, compute())]
        return self._records[i][1]


def _equal(a: Any, b: Any) -> bool:
    """Whether two arguments are the same; tensors that are not the same object may hold the same numbers."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    return bool(a == b)


class Difference(Intercepted):
    """Activations ``(n, C, L)`` of edited sequences, as those of the unedited ones and what differs.

    `reference` ``(R, L, C)``; `row` ``(n,)``: whose; `start` ``(n,)``: first position of the window, which may lie
    outside of the sequence (what is outside is 0); `delta` ``(n, w, C)``. `flat` when the model has flattened
    channels and positions.
    """

    reference: Tensor
    row: Tensor
    start: Tensor
    delta: Tensor
    tape: Tape
    flat: bool

    @classmethod
    def make(cls, reference: Tensor, row: Tensor, start: Tensor, delta: Tensor, tape: Tape, flat: bool = False
             ) -> "Difference":
        """Put the parts together."""
        n, (_, length, channels) = len(row), reference.shape
        new = cls.stand_in((n, channels * length) if flat else (n, channels, length), reference)
        new.reference, new.row, new.start, new.delta, new.tape, new.flat = reference, row, start, delta, tape, flat
        return new

    def like(self, reference: Tensor, delta: Tensor, start: Tensor | None = None) -> "Difference":
        """The same edits with other activations."""
        return Difference.make(reference, self.row, self.start if start is None else start, delta, self.tape,
                               self.flat)

    @property
    def width(self) -> int:
        """Positions of the window."""
        return self.delta.shape[1]

    @property
    def n_positions(self) -> int:
        """Positions of the whole."""
        return self.reference.shape[1]

    @classmethod
    def rule(cls, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Follow the operation locally where that is known how, else in full."""
        tapes: list[Tape] = []
        _replaced((args, kwargs), lambda x: tapes.append(x.tape))
        tapes[0].enter(name, _replaced((args, kwargs), lambda x: (x.reference, x.flat)))
        in_place = kwargs.get("inplace") or name.endswith("_") or name in ("setitem", "set")
        if name.endswith("_"):
            name = name.rstrip("_")
            func = getattr(Tensor, name, None) or getattr(F, name, func)
        rule = _RULES.get(name) or (_pointwise if name in _POINTWISE else _same if name in _SAME else None)
        made = NotImplemented if rule is None else rule(name, func, *args, **kwargs)
        if in_place:  # relu(x, inplace=True), x += y
            if not isinstance(made, Difference):
                raise NotFollowed(f"{name} changes a tensor in place")
            args[0].__dict__.update(made.__dict__)
            return args[0]
        if made is not NotImplemented:
            return made
        args, kwargs = _replaced((args, kwargs), Difference.full)
        return func(*args, **kwargs)

    # ---- windows

    def window(self, reference: Tensor | None = None) -> Tensor:
        """Activations of the unedited sequence in the windows, ``(n, w, C)``; those outside repeat the end."""
        return self.read(self.start, self.width, self.reference if reference is None else reference)

    def read(self, start: Tensor, width: int, reference: Tensor) -> Tensor:
        """Activations of the unedited sequence in windows of this start and width."""
        rows, length, channels = reference.shape
        at = (start[:, None] + torch.arange(width, device=start.device)).clamp_(0, length - 1)
        at += self.row[:, None] * length
        return reference.reshape(rows * length, channels).index_select(0, at.flatten()).view(*at.shape, channels)

    def moved(self, start: Tensor, width: int) -> Tensor:
        """The differences in windows of another start and width, which hold the old ones; 0 around."""
        if not self.width:
            return self.delta.new_zeros(len(start), width, self.delta.shape[2])
        offset = self.start - start
        if width == self.width and not bool(offset.any()):
            return self.delta
        return self.add_to(self.delta.new_zeros(len(start), width, self.delta.shape[2]), start)

    def add_to(self, other: Tensor, start: Tensor, sign: int = 1) -> Tensor:
        """Add the differences, in place, to others in windows of another start, which hold the old ones."""
        if self.width:
            offset = self.start - start
            offsets = offset.unique().tolist()
            for by in offsets:
                if len(offsets) == 1:
                    other[:, by:by + self.width].add_(self.delta, alpha=sign)
                else:
                    which = offset == by
                    other[which, by:by + self.width] += sign * self.delta[which]
        return other

    def full(self) -> Tensor:
        """The activations in full, ``(n, C, L)``."""
        self.tape.left = True
        _, length, channels = self.reference.shape
        whole = self.reference.index_select(0, self.row)
        at = self.start[:, None] + torch.arange(self.width, device=self.start.device)
        inside = (at >= 0) & (at < length)
        flat = (at + torch.arange(len(self.row), device=at.device)[:, None] * length)[inside]
        whole.view(-1, channels).index_add_(0, flat, self.delta[inside])
        whole = whole.transpose(1, 2)
        return whole.flatten(1) if self.flat else whole


class NotFollowed(RuntimeError):
    """An operation that changes its argument in place in a way that is not followed."""


def _replaced(value: Any, by: Callable[[Difference], Any]) -> Any:
    """Arguments with something in the place of every difference."""
    if isinstance(value, Difference):
        return by(value)
    if isinstance(value, list | tuple):
        return type(value)(_replaced(v, by) for v in value)
    return {k: _replaced(v, by) for k, v in value.items()} if isinstance(value, Mapping) else value


def _inside(start: Tensor, delta: Tensor, length: int) -> Tensor:
    """Set to 0, in place, what lies outside of the sequence."""
    width = delta.shape[1]
    over = ((start < 0) | (start + width > length)).nonzero().squeeze(1)
    if len(over):
        at = start[over, None] + torch.arange(width, device=start.device)
        part = delta[over]
        part[(at < 0) | (at >= length)] = 0
        delta[over] = part
    return delta


def _result(x: Difference, reference: Tensor, delta: Tensor, start: Tensor, *, inside: bool = False
            ) -> Difference | Tensor:
    """A new difference, or the whole where the window has become as good as that.

    `inside` when `delta`, which is changed otherwise, is known to be 0 outside of the sequence.
    """
    made = x.like(reference, delta if inside else _inside(start, delta, reference.shape[1]), start)
    return made.full() if made.width and made.width >= _WIDE * made.n_positions else made


def _join(a: Difference, b: Difference) -> tuple[Tensor, int]:
    """Start and width of the windows that hold those of both."""
    if not a.width or not b.width:
        return (a.start, a.width) if a.width else (b.start, b.width)
    start = torch.minimum(a.start, b.start)
    end = torch.maximum(a.start + a.width, b.start + b.width)
    return start, int((end - start).max()) if len(start) else 0


def _one(value: Any) -> int:
    return int(value if isinstance(value, int) else value[0])


def _as_positions(image: Tensor) -> Tensor:
    """``(R, C, L)`` as ``(R, L, C)`` in memory."""
    return image.transpose(1, 2).contiguous()


# ---- rules: (name, func, *args, **kwargs) -> result, or NotImplemented where the case is not followed locally


def _same(name: str, func: Any, x: Difference, *args: Any, **kwargs: Any) -> Any:
    return x.like(x.reference, x.delta)


def _dropout(name: str, func: Any, x: Difference, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return NotImplemented if training else _same(name, func, x)


def _pointwise(name: str, func: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(x, Difference) or any(isinstance(a, Tensor) for a in (*args, *kwargs.values())):
        return NotImplemented
    kwargs.pop("inplace", None)
    reference = x.tape.read(name, lambda: func(x.reference, *args, **kwargs))
    if name == "relu" and serves(x.delta):
        return x.like(reference, relu_windows(x.delta, x.reference, x.row, x.start))
    after = func(x.window().add_(x.delta), *args, **kwargs)
    return x.like(reference, after.sub_(x.window(reference)))


def _conv1d(name: str, func: Any, x: Difference, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
            padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    if not isinstance(x, Difference) or x.flat or isinstance(weight, Difference):
        return NotImplemented
    (n_out, _, taps), step, far = weight.shape, _one(stride), _one(dilation)
    reach = (taps - 1) * far
    before = (reach // 2 if padding == "same" else 0) if isinstance(padding, str) else _one(padding)
    reference = x.tape.read(name, lambda: _as_positions(
        conv1d(x.reference.transpose(1, 2), weight, bias, stride, padding, dilation, groups)))
    if not x.width:
        return x.like(reference, x.delta.new_zeros(len(x.row), 0, n_out))
    if step == 1 and groups == 1:
        start = x.start + before - reach
        return _result(x, reference, _spread(x, weight, far, start, reference.shape[1]), start, inside=True)
    start = -((reach - before - x.start) // step)  # the first output that reads the window: a ceiling
    width = (x.width - 1 + reach) // step + 1
    read = x.moved(start * step - before, (width - 1) * step + reach + 1)
    delta = _as_positions(conv1d(read.transpose(1, 2), weight, None, stride, 0, dilation, groups))
    return _result(x, reference, delta, start)


def _spread(x: Difference, weight: Tensor, far: int, start: Tensor, length: int) -> Tensor:
    """Difference of the outputs of a convolution: what each tap makes of the window, laid where it falls."""
    (n_out, n_in, taps), (n, width, _) = weight.shape, x.delta.shape
    if far < 4 and width > 2 * taps and n_in >= 16:  # the windows are hardly wider than what is read
        padded = F.pad(x.delta, (0, 0, (taps - 1) * far, (taps - 1) * far))
        return _inside(start, _as_positions(conv1d(padded.transpose(1, 2), weight, None, 1, 0, far)), length)
    last_first = x.tape.layouts.read("taps", weight, lambda: weight.flip(2).permute(1, 2, 0).reshape(
        n_in, taps * n_out))
    made = (x.delta.reshape(n * width, n_in) @ last_first).view(n, width, taps, n_out)
    if serves(made):
        return lay_taps(made, far, start, length)
    out = made.new_zeros(n, width + (taps - 1) * far, n_out)
    for tap in range(taps):
        out[:, tap * far:tap * far + width] += made[:, :, tap]
    return _inside(start, out, length)


def _batch_norm(name: str, func: Any, x: Difference, running_mean: Tensor | None, running_var: Tensor | None,
                weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
                momentum: float = 0.1, eps: float = 1e-5) -> Any:
    if training or running_var is None or running_mean is None or x.flat:
        return NotImplemented
    scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
    reference = x.tape.read(name, lambda: func(x.reference.transpose(1, 2), running_mean, running_var, weight, bias,
                                               False, momentum, eps).transpose(1, 2).contiguous())
    return x.like(reference, x.delta * scale)


def _layout(x: Difference, other: Any) -> Any:
    """A constant in the layout ``(rows, positions, channels)``; NotImplemented where it differs between edits."""
    if not isinstance(other, Tensor) or other.ndim == 0:
        return other
    if x.flat or other.ndim > 3 or (other.ndim == 3 and other.shape[0] != 1):
        return NotImplemented
    other = other.reshape((1,) * (3 - other.ndim) + tuple(other.shape))
    return other.transpose(1, 2)


def _add(name: str, func: Any, a: Any, b: Any, *, alpha: int | float = 1, out: Any = None) -> Any:
    if alpha != 1 or out is not None:
        return NotImplemented
    sign = -1 if name in ("sub", "rsub") else 1
    if name == "rsub":
        a, b = b, a
    if isinstance(a, Difference) and isinstance(b, Difference):
        if a.flat != b.flat or a.reference.shape != b.reference.shape:
            return NotImplemented
        reference = a.tape.read(name, lambda: a.reference + sign * b.reference)
        start, width = _join(a, b)
        wide, narrow = ((a, 1), (b, sign)) if a.width >= b.width else ((b, sign), (a, 1))
        delta = wide[0].moved(start, width) * wide[1]
        narrow[0].add_to(delta, start, narrow[1])
        return _result(a, reference, delta, start, inside=True)
    x, other = (a, b) if isinstance(a, Difference) else (b, a)
    other = _layout(x, other)
    if other is NotImplemented:
        return NotImplemented
    if x is a:
        reference = x.tape.read(name, lambda: x.reference + sign * other)
        return x.like(reference, x.delta)
    reference = x.tape.read(name, lambda: other + sign * x.reference)
    return x.like(reference, sign * x.delta)


def _mul(name: str, func: Any, a: Any, b: Any, *, out: Any = None, rounding_mode: str | None = None) -> Any:
    divides = name in ("div", "true_divide")
    if out is not None or rounding_mode is not None:
        return NotImplemented
    if isinstance(a, Difference) and isinstance(b, Difference):
        if divides or a.flat != b.flat or a.reference.shape != b.reference.shape:
            return NotImplemented
        reference = a.tape.read(name, lambda: a.reference * b.reference)
        start, width = _join(a, b)
        before = [x.read(start, width, x.reference) for x in (a, b)]
        after = [r + x.moved(start, width) for x, r in zip((a, b), before, strict=True)]
        return _result(a, reference, after[0].mul_(after[1]).sub_(before[0].mul_(before[1])), start)
    if divides and not isinstance(a, Difference):
        return NotImplemented
    x, other = (a, b) if isinstance(a, Difference) else (b, a)
    other = _layout(x, other)
    if other is NotImplemented or (isinstance(other, Tensor) and other.ndim and other.shape[1] != 1):
        return NotImplemented
    other = 1 / other if divides else other
    return x.like(x.tape.read(name, lambda: x.reference * other), x.delta * other)


def _max_pool1d(name: str, func: Any, x: Difference, kernel_size: Any, stride: Any = None, padding: Any = 0,
                dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    if x.flat or return_indices:
        return NotImplemented
    taps, before, far = _one(kernel_size), _one(padding), _one(dilation)
    step = taps if stride is None or stride == [] else _one(stride)
    reach = (taps - 1) * far
    reference = x.tape.read(name, lambda: _as_positions(
        F.max_pool1d(x.reference.transpose(1, 2), taps, step, before, far, ceil_mode)))
    if not x.width:
        return x.like(reference, x.delta)
    start = -((reach - before - x.start) // step)
    width = (x.width - 1 + reach) // step + 1
    first, n_read = start * step - before, (width - 1) * step + reach + 1
    values = x.read(first, n_read, x.reference).add_(x.moved(first, n_read))
    over = ((first < 0) | (first + n_read > x.n_positions)).nonzero().squeeze(1)
    if len(over):
        at = first[over, None] + torch.arange(n_read, device=first.device)
        part = values[over]
        part[(at < 0) | (at >= x.n_positions)] = -torch.inf
        values[over] = part
    reads = [values[:, tap * far:tap * far + (width - 1) * step + 1:step] for tap in range(taps)]
    best = reads[0].clone()
    for read in reads[1:]:
        torch.maximum(best, read, out=best)
    return _result(x, reference, best.sub_(x.read(start, width, reference)), start)


def _avg_pool1d(name: str, func: Any, x: Difference, kernel_size: Any, stride: Any = None, padding: Any = 0,
                ceil_mode: bool = False, count_include_pad: bool = True) -> Any:
    taps, before = _one(kernel_size), _one(padding)
    step = taps if stride is None or stride == [] else _one(stride)
    if x.flat or ceil_mode or (before and not count_include_pad):
        return NotImplemented
    reference = x.tape.read(name, lambda: _as_positions(F.avg_pool1d(x.reference.transpose(1, 2), taps, step, before)))
    if not x.width:
        return x.like(reference, x.delta)
    start = -((taps - 1 - before - x.start) // step)
    width = (x.width + taps - 2) // step + 1
    read = x.moved(start * step - before, (width - 1) * step + taps)
    delta = read[:, :(width - 1) * step + 1:step].clone()
    for tap in range(1, taps):
        delta += read[:, tap:tap + (width - 1) * step + 1:step]
    return _result(x, reference, delta.div_(taps), start)


def _over_positions(x: Any, dim: Any) -> bool:
    return isinstance(x, Difference) and not x.flat and (dim if not isinstance(dim, list | tuple) else
                                                         dim[0] if len(dim) == 1 else None) in (2, -1)


def _mean(name: str, func: Any, x: Difference, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    if not _over_positions(x, dim) or kwargs:
        return NotImplemented
    total = x.tape.read(name, lambda: x.reference.sum(1))[x.row] + x.delta.sum(1)
    total = total / x.n_positions if name == "mean" else total
    return total[:, :, None] if keepdim else total


def _amax(name: str, func: Any, x: Difference, dim: Any = None, keepdim: bool = False) -> Any:
    if not _over_positions(x, dim):
        return NotImplemented

    def around() -> tuple[Tensor, Tensor]:
        low = x.reference.new_full((x.reference.shape[0], 1, x.reference.shape[2]), -torch.inf)
        ahead = torch.cat([low, x.reference.cummax(1).values], 1)
        behind = torch.cat([x.reference.flip(1).cummax(1).values.flip(1), low], 1)
        return ahead, behind

    ahead, behind = x.tape.read(name, around)  # largest before a position; largest from a position on
    first = x.start.clamp(0, x.n_positions)
    last = (x.start + x.width).clamp(0, x.n_positions)
    best = (x.window() + x.delta).amax(1)  # outside of the sequence the window repeats the end, which counts anyway
    at_end = x.start + x.width > x.n_positions
    edge = at_end | (x.start < 0)
    if bool(edge.any()):
        at = x.start[edge, None] + torch.arange(x.width, device=x.start.device)
        values = x.window()[edge] + x.delta[edge]
        values[(at < 0) | (at >= x.n_positions)] = -torch.inf
        best[edge] = values.amax(1)
    best = torch.maximum(torch.maximum(best, ahead[x.row, first]), behind[x.row, last])
    return best[:, :, None] if keepdim else best


def _adaptive(name: str, func: Any, x: Difference, output_size: Any, return_indices: bool = False) -> Any:
    if x.flat or return_indices or _one(output_size) != 1:
        return NotImplemented
    return (_mean("mean", func, x, 2, True) if name == "adaptive_avg_pool1d" else _amax("amax", func, x, 2, True))


def _getitem(name: str, func: Any, x: Difference, key: Any) -> Any:
    if not isinstance(x, Difference) or x.flat:
        return NotImplemented
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in [k for k in key if not isinstance(k, Tensor)]:
        i = key.index(Ellipsis)
        key = key[:i] + (slice(None),) * (3 - len(key) + 1) + key[i + 1:]
    key += (slice(None),) * (3 - len(key))
    if len(key) != 3 or not all(isinstance(k, slice) and k.step in (None, 1) for k in key) or key[0] != slice(None):
        return NotImplemented
    first, last, _ = key[2].indices(x.n_positions)
    reference = x.tape.read(name, lambda: x.reference[:, first:last, key[1]].contiguous())
    if not reference.numel():
        return NotImplemented
    return _result(x, reference, x.delta[:, :, key[1]].clone(), x.start - first)


def _pad(name: str, func: Any, x: Difference, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    pad = tuple(pad)
    if x.flat or mode != "constant" or any(pad[2:]):
        return NotImplemented
    left, right = pad[:2]
    reference = x.tape.read(name, lambda: F.pad(x.reference, (0, 0, left, right), value=value or 0.0))
    return _result(x, reference, x.delta.clone(), x.start + left)


def _cat(name: str, func: Any, tensors: Any, dim: int = 0) -> Any:
    parts = list(tensors)
    if dim not in (1, -2) or not all(isinstance(p, Difference) and not p.flat for p in parts):
        return NotImplemented
    wide = [p for p in parts if p.width] or parts[:1]
    start, end = wide[0].start, wide[0].start + wide[0].width
    for part in wide[1:]:
        start, end = torch.minimum(start, part.start), torch.maximum(end, part.start + part.width)
    width = int((end - start).max())
    reference = parts[0].tape.read(name, lambda: torch.cat([p.reference for p in parts], 2))
    return _result(parts[0], reference, torch.cat([p.moved(start, width) for p in parts], 2), start)


def _flip(name: str, func: Any, x: Difference, *dims: Any) -> Any:
    dims_ = tuple(d % 3 for d in (dims[0] if len(dims) == 1 and isinstance(dims[0], list | tuple) else dims))
    if x.flat or 0 in dims_:
        return NotImplemented
    turned = [{1: 2, 2: 1}[d] for d in dims_]
    reference = x.tape.read(name, lambda: x.reference.flip(turned))
    start = x.n_positions - x.start - x.width if 2 in dims_ else x.start
    return x.like(reference, x.delta.flip(turned), start)


def _flatten(name: str, func: Any, x: Difference, start_dim: int = 0, end_dim: int = -1) -> Any:
    if x.flat or (start_dim % 3, end_dim % 3) != (1, 2):
        return NotImplemented
    return Difference.make(x.reference, x.row, x.start, x.delta, x.tape, flat=True)


def _reshape(name: str, func: Any, x: Difference, *shape: Any) -> Any:
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape
    if len(sizes) != 2 or sizes[0] not in (len(x.row), -1) or sizes[1] not in (-1, x.shape[1:].numel()):
        return NotImplemented
    return _flatten(name, func, x, 1)


def _linear(name: str, func: Any, x: Difference, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not isinstance(x, Difference) or not x.flat:
        return NotImplemented
    length, channels = x.n_positions, x.reference.shape[2]
    out = x.tape.read(name, lambda: F.linear(x.reference.transpose(1, 2).flatten(1), weight, bias))[x.row]
    by_position = x.tape.layouts.read(("by position", channels), weight, lambda: weight.reshape(
        -1, channels, length).permute(2, 1, 0).reshape(length * channels, -1))
    for start in x.start.unique().tolist():
        which = (x.start == start).nonzero().squeeze(1)
        first, last = max(0, start), min(length, start + x.width)
        if first < last:
            part = x.delta[which, first - start:last - start].flatten(1)
            out.index_add_(0, which, part @ by_position[first * channels:last * channels])
    return out


_RULES: dict[str, Callable[..., Any]] = {
    "conv1d": _conv1d, "batch_norm": _batch_norm, "linear": _linear,
    "max_pool1d": _max_pool1d, "avg_pool1d": _avg_pool1d, "mean": _mean, "sum": _mean, "amax": _amax,
    "adaptive_avg_pool1d": _adaptive, "adaptive_max_pool1d": _adaptive,
    "add": _add, "radd": _add, "sub": _add, "rsub": _add, "mul": _mul, "rmul": _mul, "div": _mul, "true_divide": _mul,
    "getitem": _getitem, "pad": _pad, "cat": _cat, "concat": _cat, "flip": _flip,
    "flatten": _flatten, "reshape": _reshape, "view": _reshape,
    "dropout": _dropout, "dropout1d": _dropout, "feature_dropout": _dropout,
}
