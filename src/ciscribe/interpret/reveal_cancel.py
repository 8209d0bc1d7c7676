"""The RevealCancel rule of DeepLIFT: what raises and what lowers a number are followed apart through a network.

Rescale sees a difference only as a whole, so that two causes that cancel in one unit are both missed. Here each tensor
is what the references give, and the positive and the negative part of what the sequences change.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ciscribe.interpret.rescale import (
    COMPOSED,
    CONSTANTS,
    ELEMENTWISE,
    LINEAR,
    POOLS,
    WEIGHTED,
    Call,
    Scaled,
    Side,
    fill,
    folded,
    is_layer,
    larger_of,
    max_pool,
    pairs_in,
    refusal,
    slope_of,
    vectorized,
)


class Parts(Side):
    """A batch of references somewhere in the model, and the positive and negative part of what differs from them.

    All three are ``(references, *size)``; autograd tracks the parts. What the sequences themselves give, `actual` of
    that size, is the sum of the three without its rounding, which decides who is larger where zeros meet.
    """

    actual: Tensor
    start: Tensor
    plus: Tensor
    minus: Tensor

    @classmethod
    def of(cls, actual: Tensor, start: Tensor, plus: Tensor, minus: Tensor) -> "Parts":
        """Parts of their tensors."""
        parts = cls.stand_in(tuple(actual.shape), actual)
        parts.actual, parts.start, parts.plus, parts.minus = actual.detach(), start.detach(), plus, minus
        parts.family = [weakref.ref(parts)]
        return parts

    def become(self, other: Any) -> None:
        """Take the numbers of another one."""
        self.actual, self.start, self.plus, self.minus = other.actual, other.start, other.plus, other.minus

    def ends(self) -> tuple[Tensor, Tensor]:
        """What the sequences give and what the references give."""
        return self.actual, self.start

    def picked(self, value: Tensor, value_r: Tensor, dim: int, places: Tensor, multiplier: Tensor) -> "Parts":
        """Values that come from `places` along `dim`, with a multiplier."""
        return Parts.of(value, value_r, *(multiplier * part.gather(dim, places) for part in (self.plus, self.minus)))

    @classmethod
    def apply(cls, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What comes out of an operation that changes nothing in place."""
        parts = pairs_in((args, kwargs), cls)
        call = func, args, kwargs
        if name in CONSTANTS:
            return func(*fill(args, cls, lambda p: p.actual), **kwargs)
        if name == "neg":
            return cls.of(-parts[0].actual, -parts[0].start, -parts[0].minus, -parts[0].plus)
        if "alpha" in kwargs and name in ("add", "sub"):
            return args[0] + args[1] * (kwargs["alpha"] if name == "add" else -kwargs["alpha"])
        if name in ("sub", "rsub"):
            first, second = args if name == "sub" else args[::-1]
            return first + -second
        if name in ("maximum", "minimum") and len(parts) == 2:
            return larger_of(name, *args)
        if name == "div" and args[0] is parts[0] and len(parts) == 1 and not kwargs:
            return args[0] * (1 / args[1])
        if name in POOLS:
            return max_pool(POOLS[name], *args, **kwargs)
        if name in ("amax", "max", "amin", "min", "batch_norm", "logaddexp", "iter"):
            return COMPOSED[name](*args, **kwargs)
        masked = name == "where" and not isinstance(args[0], cls)
        if masked or (name in LINEAR - {"diff"} and not name.startswith("fft")):  # of no negative coefficients
            return _as_parts(*_linear(call, name, parts))
        if name in WEIGHTED and len(parts) == 1 and not (args[0] is parts[0] and name in ("addmm", "baddbmm")):
            return _weighted(call, name, parts[0])
        if name in ELEMENTWISE and len(parts) == 1:
            return _reveal_cancel(call, name, parts[0])
        raise refusal(f"{name} under rule='reveal_cancel'",
                       "take rule='rescale', which has more rules, or explain the model")


def _as_parts(actual: Any, *others: Any) -> Any:
    if isinstance(actual, Tensor):
        return Parts.of(actual, *others)
    return type(actual)(_as_parts(*members) for members in zip(actual, *others, strict=True))


def _done(call: Call, name: str, tensors: Sequence[Tensor]) -> Any:
    if is_layer(name, call[1], pairs_in(call[1:], Parts)):
        return folded(call, name, tensors[0])
    return vectorized(call, Parts, tensors)


def _change(call: Call, name: str, tensors: Sequence[Tensor]) -> Any:
    """What an affine call makes of changes: without its constants."""
    made, constant = _done(call, name, tensors), _done(call, name, [torch.zeros_like(t[:1]) for t in tensors])
    if isinstance(made, Tensor):
        return made - constant
    return type(made)(m - c for m, c in zip(made, constant, strict=True))


def _values(call: Call, name: str, parts: Sequence[Parts]) -> tuple[Any, Any]:
    """What a call makes of the sequences and of the references."""
    with torch.no_grad():
        actual = _done(call, name, [p.actual[None] for p in parts])
        actual = actual[0] if isinstance(actual, Tensor) else type(actual)(v[0] for v in actual)
        return actual, _done(call, name, [p.start for p in parts])


def _linear(call: Call, name: str, parts: Sequence[Parts]) -> tuple[Any, Any, Any, Any]:
    changes = (_change(call, name, [p.plus for p in parts]), _change(call, name, [p.minus for p in parts]))
    return *_values(call, name, parts), *changes


def _weighted(call: Call, name: str, x: Parts) -> Parts:
    """Positive weights keep the signs, negative weights change them over."""
    func, args, kwargs = call

    def halved(value: Any, sign: int) -> Any:
        if isinstance(value, Parts | bool) or (isinstance(value, int | float) and name != "mul"):
            return value
        if isinstance(value, Tensor):
            value = value.float() if value.dtype == torch.bool else value
            return value.clamp(min=0) if sign > 0 else value.clamp(max=0)
        if isinstance(value, int | float):
            return max(value, 0) if sign > 0 else min(value, 0)
        return type(value)(halved(v, sign) for v in value) if type(value) in (tuple, list) else value

    def change(part: Tensor, sign: int) -> Tensor:
        weights = {k: halved(v, sign) for k, v in kwargs.items()}
        return _change((func, halved(args, sign), weights), name, [part])

    changes = (change(x.plus, 1) + change(x.minus, -1), change(x.plus, -1) + change(x.minus, 1))
    return Parts.of(*_values(call, name, [x]), *changes)


def _reveal_cancel(call: Call, name: str, x: Parts) -> Parts:
    """Each part's change of the function, averaged over being added first and being added last."""
    def f(t: Tensor) -> Tensor:
        return vectorized(call, Parts, [t])

    made = []
    with torch.no_grad():
        up, down, after = x.start + x.plus, x.start + x.minus, x.start + x.plus + x.minus
        start, value_up, value_down, value_after, actual = map(f, (x.start, up, down, after, x.actual[None]))
    for part, first, value_first, other, value_other in ((x.plus, up, value_up, down, value_down),
                                                         (x.minus, down, value_down, up, value_up)):
        with torch.no_grad():
            slopes = [slope_of(f, first, x.start, value_first, start, name),
                      slope_of(f, after, other, value_after, value_other, name)]
            change = (value_first - start + value_after - value_other) / 2
        made.append(Scaled.apply(part, change, (slopes[0] + slopes[1]) / 2))
    return Parts.of(actual[0], start, *made)
