"""torch._foreach_add and its kin: one operation over lists of tensors. Each is as many calls as the list is long.

Optimisers that people write call them. What is right of a name behind "_foreach_" is torch's own function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tclient._codec.operations import TABLE
from tclient._issue import dispatch
from tclient._tensor import Tensor

_UNARY = (
    "abs acos asin atan ceil clone cos cosh erf erfc exp expm1 floor frac lgamma log log10 log1p log2 max neg "
    "reciprocal round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc"
)
_BINARY = "add sub mul div maximum minimum clamp_min clamp_max pow lerp"
_TERNARY = "addcdiv addcmul"
_LISTS = (list, tuple)


def _at(argument: Any, place: int) -> Any:
    """The argument for the tensor at a place: of a list the one there, else the same for all."""
    return argument[place] if isinstance(argument, _LISTS) else argument


# What these are with a number, which torch's functions of these names do not take.
_WITH_NUMBER = {"maximum": "clamp_min", "minimum": "clamp_max"}


def _over(name: str, in_place: bool) -> Callable[..., Any]:
    end = "_" if in_place else ""
    method = TABLE.get(f"Tensor.{name}{end}") or TABLE[f"Tensor.{_WITH_NUMBER[name]}{end}"]
    with_number = TABLE[f"Tensor.{_WITH_NUMBER.get(name, name)}{end}"]

    def function(self: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        many = [*args, *kwargs.values()]
        for each in many:
            if isinstance(each, _LISTS) and len(each) != len(self):
                raise RuntimeError(
                    f"Tensor lists must have the same number of tensors, got {len(self)} and {len(each)}"
                )
        results = []
        for place, tensor in enumerate(self):
            named = {key: _at(value, place) for key, value in kwargs.items()}
            given = [_at(value, place) for value in args]
            if name in ("addcdiv", "addcmul") and len(given) > 2:
                named["value"] = given.pop()
            fits = method if not given or isinstance(given[0], Tensor) else with_number
            results.append(dispatch(fits, (tensor, *given), named or None))
        return None if in_place else tuple(results)

    return function


def _power(self: Any, exponent: Any) -> tuple[Any, ...]:
    """torch's one with a number as the base and a list as exponents, and the other ways round."""
    if isinstance(self, _LISTS):
        return _over("pow", in_place=False)(self, exponent)  # type: ignore[no-any-return]
    return tuple(self**each for each in exponent)


def _norm(self: Sequence[Tensor], ord: Any = 2, dtype: Any = None) -> tuple[Any, ...]:
    named = {"dtype": dtype} if dtype else None
    return tuple(dispatch(TABLE["linalg.vector_norm"], (each, ord), named) for each in self)


def _copy_(self: Sequence[Tensor], src: Sequence[Tensor], non_blocking: bool = False) -> None:
    for mine, other in zip(self, src, strict=True):
        mine.copy_(other)


def _zero_(self: Sequence[Tensor]) -> None:
    for each in self:
        each.zero_()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        f"_foreach_{name}{'_' if in_place else ''}": _over(name, in_place)
        for name in f"{_UNARY} {_BINARY} {_TERNARY}".split()
        for in_place in (False, True)
        if f"Tensor.{_WITH_NUMBER.get(name, name)}{'_' if in_place else ''}" in TABLE
    },
    "_foreach_pow": _power,
    "_foreach_norm": _norm,
    "_foreach_copy_": _copy_,
    "_foreach_zero_": _zero_,
}
