"""The Rescale rule of DeepLIFT for every operation that a network is made of.

A sequence and its references run side by side through the model's own Python: every tensor is a `Pair`, and every
operation has a rule for pairs (`ciscribe.nn.intercept`). So there are no hooks, a module may be called twice, and
functional activations, residual connections, gates, norms and attention are what they are to the model. The sequence is
computed once for all of its references, and only the references keep what a backward pass needs.

What a rule puts in the place of a derivative is a *multiplier*. Every rule obeys
Σ multiplier · (actual − reference) = difference of the output, for one operation and so for all of them in a row.
"""

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.nn.conv import AvgPool1d, conv1d
from ciscribe.nn.intercept import Intercepted

# Operations by what they do to a difference; names are PyTorch's, without underscores.
ALIASING = frozenset({
    "T", "alpha_dropout", "bfloat16", "broadcast_to", "chunk", "contiguous", "cpu", "cuda", "detach", "diagonal",
    "double", "dropout", "dropout1d", "expand", "expand_as", "feature_alpha_dropout", "flatten", "float", "getitem",
    "half", "index_select", "mT", "moveaxis", "movedim", "narrow", "permute", "positive", "reshape", "reshape_as",
    "select", "split", "squeeze", "swapaxes", "swapdims", "t", "tensor_split", "to", "transpose", "type", "type_as",
    "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as",
})  # linear; what comes out may share its memory with what went in
LINEAR = ALIASING | frozenset({
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "add", "avg_pool1d", "avg_pool2d", "cat", "clone", "cumsum", "diff",
    "fft_fft", "fft_ifft", "fft_irfft", "fft_rfft", "flip", "gather", "hstack", "interpolate", "masked_fill", "mean",
    "neg", "pad", "repeat", "repeat_interleave", "roll", "rsub", "stack", "sub", "sum", "take_along_dim", "tile",
    "tril", "triu", "upsample", "vstack",
})
WEIGHTED = frozenset({
    "addmm", "baddbmm", "bmm", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "einsum", "linear", "matmul",
    "mm", "mul", "rmatmul",
})  # linear in a pair; in two, linear in each
BATCHED = frozenset({
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "conv1d", "conv2d", "conv_transpose1d",
    "conv_transpose2d",
})  # know one batch dimension, the first
KINKED = frozenset({
    "abs", "clamp", "clamp_max", "clamp_min", "clip", "hardshrink", "hardsigmoid", "hardtanh", "leaky_relu", "maximum",
    "minimum", "prelu", "relu", "relu6", "softshrink", "threshold",
})
SMOOTH = frozenset({
    "atan", "celu", "cos", "cosh", "elu", "erf", "exp", "exp2", "expm1", "gelu", "hardswish", "log1p", "logsigmoid",
    "mish", "selu", "sigmoid", "silu", "sin", "sinh", "softplus", "softsign", "square", "tanh", "tanhshrink",
})
SINGULAR = frozenset({
    "log", "log10", "log2", "logit", "pow", "rdiv", "reciprocal", "rpow", "rsqrt", "sqrt",
})  # curved on the scale of |x|
CONSTANTS = frozenset({
    "empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_tensor", "new_zeros", "ones_like",
    "zeros_like",
})
ELEMENTWISE = KINKED | SMOOTH | SINGULAR
_COMPARISONS = frozenset({"ge", "gt", "le", "lt"})
_SYNONYMS = {
    "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "idiv": "div", "ipow": "pow", "truediv": "div",
    "divide": "div", "true_divide": "div", "multiply": "mul", "rmul": "mul", "subtract": "sub", "radd": "add",
    "negative": "neg", "absolute": "abs", "concat": "cat", "concatenate": "cat", "rtruediv": "rdiv",
    "special_expit": "sigmoid", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
}
POOLS: dict[str, Callable[..., Any]] = {
    "max_pool1d": F.max_pool1d, "max_pool2d": F.max_pool2d, "adaptive_max_pool1d": F.adaptive_max_pool1d,
    "adaptive_max_pool2d": F.adaptive_max_pool2d,
}

# A function, its arguments and keyword arguments, with pairs among them.
Call = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]
_T = TypeVar("_T")


class NoRule(Exception):
    """There is no rule for an operation; not a TypeError, which Python's operators would swallow."""


class Scaled(torch.autograd.Function):
    """`value`, whose gradient with respect to `of` is `multiplier`."""

    @staticmethod
    def forward(ctx: Any, of: Tensor, value: Tensor, multiplier: Tensor) -> Tensor:
        """Keep the multiplier."""
        ctx.save_for_backward(multiplier)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply by it."""
        return gradients[0] * ctx.saved_tensors[0], None, None


class _Picked(torch.autograd.Function):
    """`value`, whose gradient with respect to the `places` of `of` along `dim` is `multiplier`."""

    @staticmethod
    def forward(ctx: Any, of: Tensor, value: Tensor, dim: int, places: Tensor, multiplier: Tensor) -> Tensor:
        ctx.save_for_backward(places, multiplier)
        ctx.like, ctx.dim = torch.empty_like(of, device="meta"), dim
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        places, multiplier = ctx.saved_tensors
        made = torch.zeros_like(ctx.like, device=multiplier.device)  # in the layout of `of`
        return made.scatter_add_(ctx.dim, places, gradients[0] * multiplier), None, None, None, None


class _Instead(torch.autograd.Function):
    """`value`, whose gradient is that of `proxy`, a tensor of the same shape."""

    @staticmethod
    def forward(ctx: Any, proxy: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None


class _Max(NamedTuple):
    values: Any
    indices: None = None


class Side(Intercepted):
    """What the two kinds of pair share: how a call is taken apart, and in-place operations.

    Each kind defines `apply`, `become`, `ends` and `picked`. (Tensors have a metaclass of their own, which leaves no
    place for abstract methods.)
    """

    family: list[weakref.ref[Any]]  # pairs that may share memory with this one

    @classmethod
    def rule(cls, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Do one operation, or say which layer asks for one that has no rule."""
        bare = name.removesuffix("_")
        bare = _SYNONYMS.get(bare, bare)
        in_place = name.endswith("_") or name in ("iadd", "isub", "imul", "itruediv", "idiv", "ipow")
        if kwargs.get("training") and "dropout" in bare:
            raise refusal(f"{bare} that goes on after training")
        if kwargs.get("out") is not None:
            raise refusal(f"{bare} with out=")
        if in_place:
            func = getattr(Tensor, bare, None) or getattr(F, bare, func)
        in_place = in_place or bool(kwargs.get("inplace"))
        kwargs = {k: v for k, v in kwargs.items() if k != "inplace"}
        with torch.enable_grad():  # also where the model's own code forbids it: the difference passes through there
            made = cls.apply(bare, func, args, kwargs)
        if not in_place:
            if bare in ALIASING:
                pairs_in(args, cls)[0].share(made)
            return made
        target = args[0]
        if not isinstance(target, cls):
            raise refusal(f"{name}, which writes into a constant,")
        if sum(r() is not None for r in target.family) > 1 or made.shape != target.shape:
            raise refusal(f"{name}, which writes into what other tensors look at,")
        target.become(made)
        return target

    @classmethod
    def apply(cls, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What comes out of an operation that changes nothing in place."""
        raise NotImplementedError

    def share(self, made: Any) -> None:
        """Note that what was made of this pair may share its memory."""
        for pair in pairs_in((made,), type(self)):
            if pair is not self:
                pair.family = self.family
                self.family.append(weakref.ref(pair))

    def become(self, other: Any) -> None:
        """Take the numbers of another pair."""
        raise NotImplementedError

    def ends(self) -> tuple[Tensor, Tensor]:
        """What the sequences give and what the references give."""
        raise NotImplementedError

    def picked(self, value: Tensor, value_r: Tensor, dim: int, places: Tensor, multiplier: Tensor) -> "Side":
        """Values that come from `places` along `dim`, with a multiplier."""
        raise NotImplementedError


class Pair(Side):
    """A batch of sequences somewhere in the model, beside its references.

    `actual` has the size of the pair, `reference` is ``(references, *size)`` and tracked by autograd. `source` belongs
    to comparisons: the pair on whose size the answer depends.
    """

    actual: Tensor
    reference: Tensor
    source: "Pair | None"

    @classmethod
    def of(cls, actual: Tensor, reference: Tensor, source: "Pair | None" = None) -> "Pair":
        """Pair of two tensors."""
        pair = cls.stand_in(tuple(actual.shape), actual)
        pair.actual, pair.reference, pair.source = actual.detach(), reference, source
        pair.family = [weakref.ref(pair)]
        return pair

    def become(self, other: Any) -> None:
        """Take the numbers of another pair."""
        self.actual, self.reference, self.source = other.actual, other.reference, other.source

    def ends(self) -> tuple[Tensor, Tensor]:
        """What the sequences give and what the references give."""
        return self.actual, self.reference

    def picked(self, value: Tensor, value_r: Tensor, dim: int, places: Tensor, multiplier: Tensor) -> "Pair":
        """Values that come from `places` along `dim`, with a multiplier."""
        return Pair.of(value, _Picked.apply(self.reference, value_r, dim, places, multiplier))

    @classmethod
    def apply(cls, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What comes out of an operation that changes nothing in place."""
        pairs = pairs_in((args, kwargs), cls)
        call = func, args, kwargs
        if name in CONSTANTS:
            return func(*fill(args, cls, lambda p: p.actual), **kwargs)
        if name in _COMPARISONS:
            left, right = args
            return cls.of(*_both(call), source=pairs[0] if left is pairs[0] and not isinstance(right, Tensor)
                          else left - right)
        if any(p.source is not None for p in pairs):
            return _conditional(name, args, pairs)
        if name == "detach":  # the forward pass counts: a straight-through estimator is what it computes
            return cls.of(pairs[0].actual, pairs[0].reference)
        if name in COMPOSED:
            return COMPOSED[name](*args, **kwargs)
        if name in POOLS:
            return max_pool(POOLS[name], *args, **kwargs)
        if name in LINEAR or (name in WEIGHTED and len(pairs) == 1):
            return _as_pairs(*_both(call, name))
        if name in WEIGHTED and len(pairs) == 2:
            return _product(call, name, pairs)
        if name in ("maximum", "minimum") and len(pairs) == 2:
            return larger_of(name, *args)
        if name in ELEMENTWISE and len(pairs) == 1:
            return _elementwise(call, name, pairs[0])
        raise refusal(name)


def fill(x: Any, kind: type, choose: Callable[[Any], Any]) -> Any:
    """Arguments in which each pair is filled in by one of its tensors."""
    if isinstance(x, kind):
        return choose(x)
    if isinstance(x, dict):
        return {k: fill(v, kind, choose) for k, v in x.items()}
    return type(x)(fill(v, kind, choose) for v in x) if type(x) in (tuple, list) else x


def pairs_in(x: Any, kind: type[_T]) -> list[_T]:
    """The pairs of arguments, in order."""
    pairs: list[_T] = []
    fill(x, kind, pairs.append)
    return pairs


def vectorized(call: Call, kind: type, tensors: Sequence[Tensor]) -> Any:
    """Do a call on tensors ``(references, *size)`` in the places of its pairs, as if each reference came alone."""
    func, args, kwargs = call

    def run(*one: Tensor) -> Any:
        left = iter(one)
        filled = fill((args, kwargs), kind, lambda _: next(left))
        made = func(*filled[0], **filled[1])
        return tuple(made) if isinstance(made, list) else made

    return torch.func.vmap(run)(*tensors)


def is_layer(name: str, args: tuple[Any, ...], pairs: Sequence[Any]) -> bool:
    """Whether this is a layer's call on a batch and on constants."""
    return name in BATCHED and len(pairs) == 1 and args[0] is pairs[0] and pairs[0].ndim == int(name[-2]) + 2


def folded(call: Call, name: str, x: Tensor) -> Tensor:
    """Do a layer's call on the first argument ``(references, batch, ...)``, in the fastest layout."""
    func, args, kwargs = call
    func = {"conv1d": conv1d, "avg_pool1d": _avg_pool1d}.get(name, func)
    made = func(x.flatten(0, 1), *args[1:], **kwargs)
    return made.unflatten(0, x.shape[:2])


def _avg_pool1d(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return AvgPool1d(*args, **kwargs)(x)


def _both(call: Call, name: str = "") -> tuple[Any, Any]:
    """Do a call on the actual and on the reference tensors of its pairs."""
    func, args, kwargs = call
    pairs = pairs_in((args, kwargs), Pair)
    if is_layer(name, args, pairs):
        with torch.no_grad():
            actual = folded(call, name, pairs[0].actual[None])[0]
        return actual, folded(call, name, pairs[0].reference)
    with torch.no_grad():
        filled = fill((args, kwargs), Pair, lambda p: p.actual)
        actual = func(*filled[0], **filled[1])
    return actual, vectorized(call, Pair, [p.reference for p in pairs])


def _as_pairs(actual: Any, reference: Any) -> Any:
    if isinstance(actual, Tensor):
        return Pair.of(actual, reference)
    return type(actual)(_as_pairs(*members) for members in zip(actual, reference, strict=True))


def slope_of(f: Callable[[Tensor], Tensor], a: Tensor, r: Tensor, fa: Tensor, fr: Tensor, name: str) -> Tensor:
    """(f(a) − f(r)) / (a − r), and the derivative half-way where that is 0 / 0 or only rounding."""
    difference = a - r
    if name == "relu":  # 0 / 0 becomes the derivative without a look at where it is
        tiny = torch.finfo(r.dtype).tiny
        return (fa - fr).add_(fr.sign(), alpha=tiny).div_(difference.add_(tiny))
    slope = (fa - fr).div_(difference)
    if name in KINKED:  # exact but for a = r
        close = difference == 0
    else:
        close = difference.abs() <= torch.finfo(r.dtype).eps ** 0.4 * ((a + r).abs() / 2 if name in SINGULAR else 1)
    if not bool(close.any()):
        return slope
    with torch.enable_grad():
        middle = ((a + r) / 2).requires_grad_()
        derivative = torch.autograd.grad(f(middle).sum(), middle)[0]
    return torch.where(close, derivative, slope)


def _elementwise(call: Call, name: str, pair: Pair) -> Pair:
    """Rescale rule: the multiplier is the slope of the line through both points of the function."""
    if len(pairs_in(call[1:], Tensor)) > 1:  # constants, which may lie along any dimension
        def f(t: Tensor) -> Tensor:
            return vectorized(call, Pair, [t])
    else:
        def f(t: Tensor) -> Tensor:
            filled = fill(call[1:], Pair, lambda _: t)
            return call[0](*filled[0], **filled[1])
    with torch.no_grad():
        actual, reference = f(pair.actual[None]), f(pair.reference)
        if reference.shape != pair.reference.shape:
            raise refusal(f"{name} with a constant of a larger shape")
        slope = slope_of(f, pair.actual, pair.reference, actual, reference, name)
    return Pair.of(actual[0], Scaled.apply(pair.reference, reference, slope))


def _product(call: Call, name: str, pairs: Sequence[Pair]) -> Pair:
    """Product of two pairs: Δ(ab) = Δa · (b + b′) / 2 + Δb · (a + a′) / 2, for matrices and sums of products, too."""
    first, second = ((p.actual + p.reference.detach()) / 2 for p in pairs)
    with torch.no_grad():
        actual, reference = _both(call)
    proxy = (vectorized(call, Pair, [pairs[0].reference, second])
             + vectorized(call, Pair, [first, pairs[1].reference]))
    return Pair.of(actual, _Instead.apply(proxy, reference))


def _routed(x: Any, find: Callable[[Tensor], tuple[Tensor, Tensor]], dim: int) -> Any:
    """Maxima along `dim`, which `find` gives with their places: the place of the larger one gets the difference.

    There the inputs differ by at least as much as the maxima do, in the same direction: multipliers lie in (0, 1].
    Where both maxima are equal there is nothing to give.
    """
    after, before = x.ends()
    with torch.no_grad():
        (value, place), (value_r, place_r) = find(after), find(before)
        larger = torch.where(value >= value_r, place.expand_as(place_r), place_r)
        difference = after.expand_as(before).gather(dim, larger) - before.gather(dim, larger)
        tiny = torch.finfo(before.dtype).tiny  # where the inputs agree, so do the maxima: 1
        multiplier = (value - value_r).add_(tiny).div_(difference.add_(tiny))
    return x.picked(value, value_r, dim, larger, multiplier)


def max_pool(pool: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> Any:
    """Max pool of `POOLS`, which tells the places of the maxima."""
    kwargs = {k: v for k, v in kwargs.items() if k != "return_indices"}
    n = 1 if pool in (F.max_pool1d, F.adaptive_max_pool1d) else 2  # dimensions that are pooled
    if x.ndim == n + 1:  # without a batch
        return max_pool(pool, x[None], *args, **kwargs)[0]
    given, size = x.shape[-n:], []

    def find(t: Tensor) -> tuple[Tensor, Tensor]:
        image = t.unflatten(-1, given) if n == 2 else t
        value, place = pool(image.flatten(0, -n - 2), *args, **kwargs, return_indices=True)
        size[:] = value.shape[-n:]
        return tuple(v.flatten(-n).unflatten(0, image.shape[:-n - 1]) for v in (value, place))  # type: ignore

    made = _routed(x.flatten(-2) if n == 2 else x, find, -1)
    return made.unflatten(-1, tuple(size)) if n == 2 else made


def _amax(x: Any, dim: int | tuple[int, ...] = (), keepdim: bool = False) -> Any:
    dims = (dim,) if isinstance(dim, int) else tuple(dim) or tuple(range(x.ndim))
    for d in (d % x.ndim - x.ndim for d in dims):
        x = _routed(x, lambda t, d=d: t.max(d, keepdim=True), d)  # type: ignore[arg-type]
    return x if keepdim else _squeezed(x, dims)


def _max(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Tensor):
        return torch.maximum(x, dim)
    return _amax(x) if dim is None else _Max(_amax(x, dim, keepdim))


def _min(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Tensor):
        return torch.minimum(x, dim)
    return -_amax(-x) if dim is None else _Max(-_amax(-x, dim, keepdim))


def larger_of(name: str, x: Any, y: Any) -> Any:
    """`maximum` or `minimum` of two pairs."""
    zero = torch.zeros_like(x - y)  # brings both to one shape
    both = torch.stack([x + zero, y + zero])
    return both.amax(0) if name == "maximum" else both.amin(0)


def _where(condition: Any, yes: Any, no: Any) -> Pair:
    """Choose by a comparison.

    Where sequence and reference choose alike, the difference is that of what they choose; elsewhere all of it is due to
    what was compared.
    """
    if not isinstance(condition, Pair):
        return _as_pairs(*_both((torch.where, (condition, yes, no), {})))
    source = condition.source
    if source is None:
        raise refusal("where with a condition that is not a comparison")
    call = torch.where, (condition, yes, no), {}
    actual, reference = _both(call)
    if condition.ndim != actual.ndim:
        raise refusal("where with a condition of fewer dimensions")
    with torch.no_grad():
        differ = condition.actual != condition.reference
        slope = torch.where(differ, (actual - reference) / (source.actual - source.reference), 0.0)
    proxy = torch.where(differ, slope * source.reference, reference)
    return Pair.of(actual, _Instead.apply(proxy, reference.detach()))


def _conditional(name: str, args: tuple[Any, ...], pairs: Sequence[Pair]) -> Any:
    """Operations on the answers of a comparison."""
    condition = next(p for p in pairs if p.source is not None)
    if name == "where":
        return _where(*args)
    zero = torch.zeros((), dtype=condition.source.dtype, device=condition.device)  # type: ignore[union-attr]
    if name in ("to", "float", "double", "type", "type_as"):
        return _where(condition, zero + 1, zero)
    if name == "mul" and len(pairs) <= 2 and sum(p.source is not None for p in pairs) == 1:
        other = args[1] if args[0] is condition else args[0]
        return _where(condition, other, zero)
    raise refusal(f"{name} of a comparison")


def _logsumexp(x: Pair, dim: int | tuple[int, ...], keepdim: bool = False) -> Pair:
    """Logarithm of Σ eˣ; input j has the multiplier L(eᵃʲ, eʳʲ) / L(Σeᵃ, Σeʳ), L the logarithmic mean.

    Both means are scaled by the larger sum, which cancels: stable at any size.
    """
    dims = [d % x.ndim - x.ndim for d in ((dim,) if isinstance(dim, int) else dim)]
    with torch.no_grad():
        value, value_r = (t.logsumexp(dims, keepdim=True) for t in (x.actual, x.reference))
        top = torch.maximum(value, value_r)
        means = []
        for a, r in ((x.actual - top, x.reference - top), (value - top, value_r - top)):
            means.append(slope_of(torch.exp, a, r, a.exp(), r.exp(), "exp"))
    proxy = (means[0] / means[1] * x.reference).sum(dims, keepdim=True)
    made = Pair.of(value, _Instead.apply(proxy, value_r))
    return made if keepdim else _squeezed(made, dim)


def _squeezed(x: Any, dim: int | tuple[int, ...]) -> Any:
    dims = (dim,) if isinstance(dim, int) else dim
    for d in sorted(d % x.ndim - x.ndim for d in dims):  # later ones, counted from the end, stay where they are
        x = x.squeeze(d)
    return x


def _softmax(x: Any, dim: int, *_: Any, **__: Any) -> Any:
    return (x - torch.logsumexp(x, dim, keepdim=True)).exp()


def _div(x: Any, y: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode is not None:
        raise refusal("division with rounding")
    if not isinstance(y, Pair):
        return _as_pairs(*_both((torch.div, (x, y), {})))
    return x * y.reciprocal()


def _standardized(x: Any, dims: tuple[int, ...], eps: float | None, center: bool = True) -> Any:
    x = x - x.mean(dims, keepdim=True) if center else x
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return x * (x.square().mean(dims, keepdim=True) + eps).rsqrt()


def _scaled(x: Any, weight: Tensor | None, bias: Tensor | None) -> Any:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _layer_norm(x: Any, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
                eps: float = 1e-5, *_: Any) -> Any:
    return _scaled(_standardized(x, tuple(range(-len(normalized_shape), 0)), eps), weight, bias)


def _rms_norm(x: Any, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Any:
    return _scaled(_standardized(x, tuple(range(-len(normalized_shape), 0)), eps, center=False), weight, None)


def _group_norm(x: Any, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
                *_: Any) -> Any:
    groups = x.unflatten(1, (num_groups, -1))
    x = _standardized(groups, tuple(range(2, groups.ndim)), eps).flatten(1, 2)
    return _scaled(x, *(None if v is None else _per_channel(v, x) for v in (weight, bias)))


def _per_channel(v: Tensor, x: Tensor) -> Tensor:
    return v.view(-1, *[1] * (x.ndim - 2))


def _instance_norm(x: Any, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                   weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                   momentum: float = 0.1, eps: float = 1e-5) -> Any:
    if use_input_stats:
        return _group_norm(x, x.shape[1], weight, bias, eps)
    return _batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)


def _affine(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
            ) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation mode as a scale and a shift of each channel."""
    scale = (var + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    return _per_channel(scale, x), _per_channel(shift, x)


def _batch_norm(x: Any, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
                bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
                *_: Any) -> Any:
    if training or running_mean is None or running_var is None:
        raise refusal("batch norm by the statistics of the batch, in which sequences see each other,")
    scale, shift = _affine(x, running_mean, running_var, weight, bias, eps)
    if isinstance(x, Pair):
        return Pair.of(torch.addcmul(shift, x.actual, scale), torch.addcmul(shift, x.reference, scale))
    return x * scale + shift


def _attention(q: Any, k: Any, v: Any, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
               scale: float | None = None, enable_gqa: bool = False) -> Any:
    if dropout_p or enable_gqa:
        raise refusal("attention with dropout or grouped queries")
    logits = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, -1e30) if attn_mask.dtype == torch.bool else logits + attn_mask
    return _softmax(logits, -1) @ v


def _halves(x: Any, dim: int) -> Any:
    first, second = x.chunk(2, dim=dim)
    return first * second.sigmoid()


COMPOSED: dict[str, Callable[..., Any]] = {
    "amax": _amax, "max": _max, "amin": lambda x, *a, **k: -_amax(-x, *a, **k), "min": _min, "where": _where,
    "logsumexp": _logsumexp, "softmax": _softmax,
    "log_softmax": lambda x, dim, *_, **__: x - torch.logsumexp(x, dim, keepdim=True),
    "softmin": lambda x, dim, *_, **__: _softmax(-x, dim), "div": _div, "layer_norm": _layer_norm,
    "rms_norm": _rms_norm, "group_norm": _group_norm, "instance_norm": _instance_norm, "batch_norm": _batch_norm,
    "scaled_dot_product_attention": _attention, "glu": lambda x, dim=-1: _halves(x, dim),
    "logaddexp": lambda x, y: x + F.softplus(y - x), "lerp": lambda x, y, weight: x + weight * (y - x),
    "addcmul": lambda x, y, z, *, value=1: x + value * y * z, "iter": lambda x: iter(x.unbind(0)),
    "std": lambda x, *a, **k: x.var(*a, **k).sqrt(),
    "var": lambda x, dim, *, correction=1, keepdim=False: (
        (x - x.mean(dim, keepdim=True)).square().sum(dim, keepdim=keepdim) / (x.shape[dim] - correction)),
}


def refusal(what: str, advice: str = "explain the model") -> NoRule:
    """Error for an operation without a rule, naming the layer that did it."""
    modules: list[nn.Module] = []
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and not (modules and modules[-1] is owner):
            modules.append(owner)
        frame = frame.f_back
    where = "outside of the model's layers"
    if modules:
        name = next((n for n, m in modules[-1].named_modules() if m is modules[0]), "")
        where = f"in layer {name!r} ({type(modules[0]).__name__})" if name else f"in {type(modules[0]).__name__}"
    return NoRule(f"DeepLIFT has no rule for {what.rstrip(',')} {where}; {advice} with integrated gradients or "
                            "in-silico mutagenesis, which ask nothing of its layers")
