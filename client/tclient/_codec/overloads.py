"""Which overload torch would pick, told from the Python arguments alone, so that calls need not wait for the answer.

Knows the entries of the operation table; knows neither tensors nor the connection. A wrong guess would break a program
and waiting never does: whatever is ambiguous is answered with "wait".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict, final

Entry = Mapping[str, Any]


@final
class Fields(TypedDict):
    """Several tensors with names, as one of torch's own tuples: the names, and the class."""

    fields: list[str]
    type: str


@final
class Count(TypedDict):
    """So many tensors in a tuple."""

    count: int


# What a call returns, as far as that can be told before it is answered. "by_signature" depends on the arguments.
Returns = Literal["tensor", "self", "none", "object", "wait", "out", "by_signature"] | Fields | Count

_NO: Final = 0
_MAYBE: Final = 1
_YES: Final = 2

# torch's argument parser also takes numpy's names: https://github.com/pytorch/pytorch/blob/main/torch/csrc/utils/python_arg_parser.cpp
_NUMPY_NAMES: Final = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}

# What torch's parser makes of an argument of a class (row) where it expects a type (column). Not listed is no.
# A tensor of one element passes for a number, and True for an int in some signatures only: maybe. (A number passes for
# a tensor in arithmetic only, where every overload returns one tensor.)
_FITS: Final[dict[str, dict[str, int]]] = {
    "tensor": {"tensor": _YES, "int": _MAYBE, "float": _MAYBE, "number": _MAYBE, "bool": _MAYBE, "ints": _MAYBE},
    "int": {"int": _YES, "float": _YES, "number": _YES, "ints": _MAYBE, "floats": _MAYBE},
    "true": {"true": _YES, "bool": _YES, "number": _YES, "int": _MAYBE, "float": _MAYBE},
    "false": {"false": _YES, "bool": _YES, "number": _YES, "int": _MAYBE, "float": _MAYBE},
    "float": {"float": _YES, "number": _YES, "floats": _MAYBE},
    "complex": {"number": _YES},
    "str": {"str": _YES, "dtype": _MAYBE, "device": _MAYBE},
    "none": {"none": _YES},
    "ints": {"ints": _YES, "floats": _YES},
    "floats": {"floats": _YES},
    "tensors": {"tensors": _YES, "ints": _MAYBE, "floats": _MAYBE},
    "empty": {"ints": _YES, "floats": _YES, "tensors": _YES},
    "dtype": {"dtype": _YES},
    "device": {"device": _YES},
    "layout": {"layout": _YES},
    "memory_format": {"memory_format": _YES},
    "Generator": {"generator": _YES},
}
_PLAIN: Final[dict[type, str]] = {int: "int", float: "float", complex: "complex", str: "str", type(None): "none"}
_NAMED: Final = frozenset({"dtype", "device", "layout", "memory_format", "Generator"})
_SEQUENCE_LIMIT: Final = 16

_Classes = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]
_answers: dict[tuple[str, _Classes], Returns] = {}


def resolve(entry: Entry, args: Sequence[Any], kwargs: Mapping[str, Any], is_tensor: Callable[[Any], bool]) -> Returns:
    """What the operation returns when it is called with these arguments; "wait" if that cannot be told.

    The first argument of a method is its tensor. Wrong arguments give "wait" too: the error is then raised at once.
    """
    returns: Returns = entry["returns"]
    if returns != "by_signature":
        return returns
    classes = (
        tuple([_class_of(value, is_tensor) for value in args]),
        tuple([(name, _class_of(value, is_tensor)) for name, value in kwargs.items()]) if kwargs else (),
    )
    key = (entry["name"], classes)
    answer = _answers.get(key)
    if answer is None:
        if len(_answers) > 4096:  # a program has a few dozen; a generated one shall not grow without bound
            _answers.clear()
        answer = _answers[key] = _pick(entry["overloads"], *classes)
    return answer


def written(entry: Entry, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments that the call may change in place. Does not count `out=`, nor what is no argument at all."""
    names = entry.get("writes", ())
    condition = entry.get("writes_if")
    if condition is not None:
        flag = _argument(entry, condition["flag"], args, kwargs, condition["default"])
        if flag is not None and flag is not False:
            names = [*names, *condition["writes"]]
    found = [_argument(entry, name, args, kwargs, None) for name in names]
    return [value for value in found if value is not None]


def _argument(entry: Entry, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], default: Any) -> Any:
    if name == "self":
        return args[0] if args else kwargs.get("input", kwargs.get("self", next(iter(kwargs.values()), None)))
    position = entry.get("positions", {}).get(name)
    if position is None:
        return kwargs.get(name, default)
    return args[position] if position < len(args) else kwargs.get(name, default)


def _class_of(value: Any, is_tensor: Callable[[Any], bool], depth: int = 0) -> str:
    plain = _PLAIN.get(type(value))
    if plain is not None:
        return plain
    if value is True:
        return "true"
    if value is False:
        return "false"
    if is_tensor(value):
        return "tensor"
    if isinstance(value, (list, tuple)):
        return _class_of_sequence(value, is_tensor, depth)
    name = type(value).__name__
    return name if name in _NAMED else "unknown"


def _class_of_sequence(value: Sequence[Any], is_tensor: Callable[[Any], bool], depth: int) -> str:
    if not value:
        return "empty"
    # A sequence of sequences is none of what torch's signatures name.
    if len(value) > _SEQUENCE_LIMIT or depth:
        return "unknown"
    classes = {_class_of(item, is_tensor, depth + 1) for item in value}
    if classes == {"int"}:
        return "ints"
    if classes == {"tensor"}:
        return "tensors"
    if classes <= {"int", "float"}:
        return "floats"
    return "unknown"


def _pick(
    overloads: Sequence[Mapping[str, Any]], args: tuple[str, ...], kwargs: tuple[tuple[str, str], ...]
) -> Returns:
    """Goes through the overloads as torch does, in order, up to the first that surely fits."""
    possible: list[Returns] = []
    for overload in overloads:
        fit = _fit(overload["params"], args, kwargs)
        if fit != _NO:
            possible.append(overload["returns"])
        if fit == _YES:
            break
    if possible and all(returns == possible[0] for returns in possible):
        return possible[0]
    return "wait"


def _fit(params: Sequence[Sequence[Any]], args: tuple[str, ...], kwargs: tuple[tuple[str, str], ...]) -> int:
    worst = _YES
    named = {_NUMPY_NAMES.get(name, name): given for name, given in kwargs}
    if len(named) < len(kwargs):
        return _MAYBE
    used = 0
    for name, expected, required, keyword_only in params:
        if name.startswith("**"):
            named.clear()
        elif name.startswith("*"):
            for given in args[used:]:
                worst = min(worst, _fit_one(given, expected))
            used = len(args)
        elif not keyword_only and used < len(args):
            worst = min(worst, _fit_one(args[used], expected))
            used += 1
        elif name in named or (name == "self" and "input" in named):
            worst = min(worst, _fit_one(named.pop(name if name in named else "input"), expected))
        elif required:
            return _NO
        if worst == _NO:
            return _NO
    if used < len(args) or named:
        return _NO
    return worst


def _fit_one(given: str, expected: str) -> int:
    if given == "unknown" or expected == "any":
        return _MAYBE
    row = _FITS.get(given, {})
    return max([row.get(atom, _NO) for atom in expected.split("|")], default=_NO)
