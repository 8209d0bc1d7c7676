"""Tensors that stand for something else while a model runs: each operation is given to a rule.

A model is ordinary Python. Handed a tensor of a subclass of `Intercepted`, it runs as always, but every operation on
that tensor lands in `Intercepted.rule` of the subclass, which decides what comes out. So a network need not be traced,
exported or rewritten to be run on the difference that a mutation makes, or on a sequence and its reference side by
side; whatever Python its forward pass is made of stays what it is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_FACTS = {"dim", "size", "numel", "ndimension", "stride", "is_floating_point", "len", "is_complex", "nelement",
          "is_contiguous", "get_device"}
_VIEWS = {"T", "mT", "H", "mH"}  # properties that are operations


class Intercepted(Tensor):
    """Base of tensors whose operations follow rules of their own.

    A subclass makes its objects with `stand_in` and defines `rule`. Questions of shape, type and device are answered
    from the size given there and never reach a rule.
    """

    @classmethod
    def stand_in(cls, size: tuple[int, ...], like: Tensor) -> Any:
        """Make an object without data that passes for a tensor of this size, with the type and device of `like`."""
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, tuple(size), dtype=like.dtype, device=like.device)

    @classmethod
    def rule(cls, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Do one operation; every subclass defines this.

        Parameters
        ----------
        name
            What is done, without the underscores of operators: ``relu``, ``conv1d``, ``add``, ``getitem`` … An
            operation that changes its first argument keeps one underscore at the end: ``add_``.
        func, args, kwargs
            The call, as the model made it.
        """
        raise NotImplementedError

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        name = func.__name__
        if name == "__get__":
            attribute = getattr(getattr(func, "__self__", None), "__name__", "")
            if attribute not in _VIEWS:
                return cls._ask(func, args, kwargs)
            name = attribute
        elif name.startswith("__") or name.startswith("_"):
            name = name.strip("_")
        if name in _FACTS:
            return cls._ask(func, args, kwargs)
        return cls.rule(name, func, args, kwargs or {})

    @staticmethod
    def _ask(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        raise RuntimeError(f"{func} reached the data of a {cls.__name__}, which has none; an operation went around its "
                        "rules")

    def __repr__(self, **_: Any) -> str:
        return f"{type(self).__name__}({tuple(self.shape)})"
