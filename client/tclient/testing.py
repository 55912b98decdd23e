"""assert_close: torch's comparison with torch's tolerances and texts, computed where the tensors are.

All tensors of a comparison are compared by calls that do not wait, and one read tells whether all are close. Only where
they are not is more asked for, to say where and by how much.
"""

from __future__ import annotations

import cmath
import contextlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

import tclient
from tclient._codec.dtypes import DTYPES, LAYOUTS, dtype
from tclient._issue import catch_up
from tclient._tensor import Tensor

__all__ = ["assert_close"]

# rtol and atol; all other dtypes must be equal.
_TOLERANCES = {
    DTYPES["float16"]: (1e-3, 1e-5),
    DTYPES["bfloat16"]: (1.6e-2, 1e-5),
    DTYPES["float32"]: (1.3e-6, 1e-5),
    DTYPES["float64"]: (1e-7, 1e-7),
    DTYPES["complex32"]: (1e-3, 1e-5),
    DTYPES["complex64"]: (1.3e-6, 1e-5),
    DTYPES["complex128"]: (1e-7, 1e-7),
}
_OF_PYTHON = {int: DTYPES["int64"], float: DTYPES["float64"], complex: DTYPES["complex128"]}
_WITHOUT_PROMOTION = frozenset({DTYPES["uint16"], DTYPES["uint32"], DTYPES["uint64"]})
_STRIDED = next(each for each in LAYOUTS.values() if repr(each) == "torch.strided")

Place = tuple[Any, ...]


class _Options(NamedTuple):
    allow_subclasses: bool
    rtol: float | None
    atol: float | None
    equal_nan: bool
    check_device: bool
    check_dtype: bool
    check_layout: bool
    check_stride: bool
    msg: str | Callable[[str], str] | None


class _Mismatch(Exception):
    """Why the inputs are not close, and the class of the exception to say it with."""

    def __init__(self, text: str, place: Place = (), kind: type[Exception] = AssertionError) -> None:
        super().__init__(text)
        self.text, self.place, self.kind = text, place, kind

    def to_error(self, msg: str | Callable[[str], str] | None) -> Exception:
        if isinstance(msg, str):
            return self.kind(msg)
        text = self.text
        if self.place:
            text += f"\n\nThe failure occurred for item {''.join(str([part]) for part in self.place)}"
        return self.kind(msg(text) if msg is not None else text)


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Asserts that |actual - expected| <= atol + rtol·|expected| for every element; infinities must be equal.

    Args:
        actual, expected: two tensors, two numpy arrays, two numbers; or sequences or mappings of them.
        rtol, atol: both or none. Without them: 1.3e-6 and 1e-5 for float32, 1e-7 and 1e-7 for float64, 1e-3 and 1e-5
            for float16, 1.6e-2 and 1e-5 for bfloat16, and equality for integers and bools; the looser of the two.
        equal_nan: whether nan is close to nan.
        check_device, check_dtype, check_layout, check_stride: what must be the same besides the shape.
        msg: the text of the error, or a function that makes it of the one that would be raised.

    Raises: AssertionError, which says how many elements differ, and where they differ most; TypeError for inputs that
    are not of related classes; ValueError for one tolerance without the other.

    Example:
        >>> torch.testing.assert_close(torch.ones(2) / 3, torch.full((2,), 0.3333333))
    """
    __tracebackhide__ = True
    options = _Options(
        allow_subclasses, rtol, atol, equal_nan, check_device, check_dtype, check_layout, check_stride, msg
    )
    catch_up((actual, expected))
    with tclient.no_grad():  # the comparison is no part of what the caller differentiates
        found: list[_Tensors | _Mismatch] = []
        try:
            _pair(actual, expected, (), options, found)
        except _Mismatch as mismatch:
            # The inputs cannot be compared at all; torch leaves `msg` aside here.
            raise mismatch.to_error(None) from None
        failed = _first_failure(found)
    if failed is not None:
        raise failed.to_error(msg)


def _pair(actual: Any, expected: Any, place: Place, options: _Options, found: list[Any]) -> None:
    """Goes through the inputs side by side: what differs here is noted, and tensors with the comparison on its way."""
    if _is_sequence(actual) and _is_sequence(expected):
        if len(actual) != len(expected):
            raise _Mismatch(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}", place)
        for index in range(len(actual)):
            _pair(actual[index], expected[index], (*place, index), options, found)
        return
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        for key in _keys(actual, expected, place):
            _pair(actual[key], expected[key], (*place, key), options, found)
        return
    try:
        if actual is None or expected is None:
            if actual is not expected:
                raise _Mismatch(f"None mismatch: {actual} is not {expected}", place)
        elif isinstance(actual, bool | np.bool_) and isinstance(expected, bool | np.bool_):
            if bool(actual) is not bool(expected):
                raise _Mismatch(f"Booleans mismatch: {bool(actual)} is not {bool(expected)}", place)
        elif _is_number(actual) and _is_number(expected):
            _compare_numbers(actual, expected, place, options)
        else:
            found.append(_tensors(actual, expected, place, options))
    except _Mismatch as mismatch:
        if mismatch.kind is not AssertionError:
            raise
        found.append(mismatch)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex | np.number)


def _keys(actual: Mapping[Any, Any], expected: Mapping[Any, Any], place: Place) -> Collection[Any]:
    mine, theirs = set(actual), set(expected)
    if mine != theirs:
        raise _Mismatch(
            "The keys of the mappings do not match:\n"
            f"Missing keys in the actual mapping: {sorted(theirs - mine)}\n"
            f"Additional keys in the actual mapping: {sorted(mine - theirs)}",
            place,
        )
    with contextlib.suppress(TypeError):
        return sorted(mine)
    return mine


def _tolerances(kinds: Sequence[dtype], place: Place, options: _Options) -> tuple[float, float]:
    rtol, atol = options.rtol, options.atol
    if rtol is not None and atol is not None:
        return rtol, atol
    if rtol is not None or atol is not None:
        raise _Mismatch(
            "Both 'rtol' and 'atol' must be either specified or omitted, "
            f"but got no {'rtol' if rtol is None else 'atol'}.",
            place,
            ValueError,
        )
    of_each = [_TOLERANCES.get(kind, (0.0, 0.0)) for kind in kinds]
    return max(rtol for rtol, _ in of_each), max(atol for _, atol in of_each)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _compare_numbers(actual: Any, expected: Any, place: Place, options: _Options) -> None:
    actual, expected = (value.item() if isinstance(value, np.number) else value for value in (actual, expected))
    rtol, atol = _tolerances([_OF_PYTHON[_plain(value)] for value in (actual, expected)], place, options)
    if options.check_dtype and type(actual) is not type(expected):
        raise _Mismatch(f"The (d)types do not match: {type(actual)} != {type(expected)}.", place)
    if actual == expected or (options.equal_nan and cmath.isnan(actual) and cmath.isnan(expected)):
        return
    difference = abs(actual - expected)
    if not (cmath.isfinite(difference) and difference <= atol + rtol * abs(expected)):
        raise _Mismatch(_text_of_numbers(actual, expected, rtol, atol), place)


def _plain(value: Any) -> type:
    """The number class that a value belongs to; a bool beside a number counts as an int."""
    return next(kind for kind in (int, float, complex) if isinstance(value, kind))


def _text_of_numbers(actual: Any, expected: Any, rtol: float, atol: float) -> str:
    absolute = abs(actual - expected)
    relative = math.inf if expected == 0 else absolute / abs(expected)
    word, allowed = _words(rtol, atol)
    return (
        f"Scalars are not {word}!\n\nExpected {expected} but got {actual}.\n"
        f"Absolute difference: {absolute}{allowed(atol)}\nRelative difference: {relative}{allowed(rtol)}"
    )


def _words(rtol: float, atol: float) -> tuple[str, Callable[[float], str]]:
    if rtol == 0 and atol == 0:
        return "equal", lambda tolerance: ""
    return "close", lambda tolerance: f" (up to {tolerance} allowed)"


# ---- tensors ---------------------------------------------------------------------------------------------------------


class _Tensors(NamedTuple):
    """Two tensors that agree in all but their elements, and which elements are close: on its way."""

    actual: Tensor
    expected: Tensor
    matches: Tensor
    all_match: Tensor
    rtol: float
    atol: float
    place: Place


def _tensors(actual: Any, expected: Any, place: Place, options: _Options) -> _Tensors:
    kinds = f"{type(actual)} and {type(expected)}"
    related = isinstance(actual, type(expected)) or isinstance(expected, type(actual))
    if not related or (not options.allow_subclasses and type(actual) is not type(expected)):
        _not_comparable(kinds, place)
    mine, theirs = _tensor_of(actual, kinds, place), _tensor_of(expected, kinds, place)
    rtol, atol = _tolerances([mine.dtype, theirs.dtype], place, options)
    _compare_attributes(mine, theirs, place, options)
    if mine.is_sparse or theirs.is_sparse:
        mine, theirs = mine.to_dense(), theirs.to_dense()
    mine, theirs = _equalized(mine, theirs)
    if mine.dtype.is_floating_point and mine.dtype.itemsize == 1 and (rtol != 0 or atol != 0):
        raise _Mismatch(
            f"Rtol={rtol} and atol={atol} are not supported for bitwise comparison of low dimensional floats. "
            "Please use rtol=0.0 and atol=0.0."
        )
    matches = tclient.isclose(mine, theirs, rtol=rtol, atol=atol, equal_nan=options.equal_nan)
    return _Tensors(mine, theirs, matches, matches.all().cpu(), rtol, atol, place)


def _not_comparable(kinds: str, place: Place) -> NoReturn:
    raise _Mismatch(f"No comparison pair was able to handle inputs of type {kinds}.", place, TypeError)


def _tensor_of(value: Any, kinds: str, place: Place) -> Any:
    if isinstance(value, Tensor):
        return value
    try:
        made = tclient.as_tensor(value)
        made.dtype  # noqa: B018 -- waits: data that is no tensor is told of here
    except (TypeError, ValueError, RuntimeError):
        _not_comparable(kinds, place)
    return made


def _compare_attributes(actual: Tensor, expected: Tensor, place: Place, options: _Options) -> None:
    def compare(name: str, mine: Any, theirs: Any) -> None:
        if mine != theirs:
            raise _Mismatch(f"The values for attribute '{name}' do not match: {mine} != {theirs}.", place)

    compare("shape", actual.shape, expected.shape)
    if options.check_layout:
        compare("layout", actual.layout, expected.layout)
    if options.check_stride and actual.layout == expected.layout == _STRIDED:
        compare("stride()", actual.stride(), expected.stride())
    if options.check_device:
        compare("device", actual.device, expected.device)
    if options.check_dtype:
        compare("dtype", actual.dtype, expected.dtype)


def _equalized(actual: Tensor, expected: Tensor) -> tuple[Any, Any]:
    """Tensors of one device and one dtype."""
    if actual.device != expected.device:
        actual, expected = actual.cpu(), expected.cpu()
    if actual.dtype != expected.dtype:
        wide = [DTYPES["int64"] if x.dtype in _WITHOUT_PROMOTION else x.dtype for x in (actual, expected)]
        common = tclient.promote_types(*wide)
        actual, expected = actual.to(common), expected.to(common)
    return actual, expected


def _first_failure(found: list[_Tensors | _Mismatch]) -> _Mismatch | None:
    """The first of the pairs that is not close; one wait if all are."""
    tensors = [each for each in found if isinstance(each, _Tensors)]
    close = iter(tclient.stack([each.all_match for each in tensors]).tolist() if tensors else [])
    for each in found:
        if isinstance(each, _Mismatch):
            return each
        if not next(close):
            return _Mismatch(_text_of_tensors(each), each.place)
    return None


def _text_of_tensors(pair: _Tensors) -> str:
    actual, expected, matches, _, rtol, atol, _ = pair
    if not actual.shape:
        return _text_of_numbers(actual.item(), expected.item(), rtol, atol)
    count = matches.numel()
    wrong = count - int(matches.sum().item())
    head = f"Mismatched elements: {wrong} / {count} ({wrong / count:.1%})\n"
    word, allowed = _words(rtol, atol)
    if actual.dtype.is_floating_point and actual.dtype.itemsize == 1:
        first = tuple(tclient.nonzero(~matches)[0].tolist())
        return f"Tensor-likes are not 'equal'!\n\n{head}The first mismatched element is at index {first}."
    mine, theirs, close = actual.flatten(), expected.flatten(), matches.flatten()
    if not actual.dtype.is_floating_point and not actual.dtype.is_complex:
        mine, theirs = mine.to(tclient.int64), theirs.to(tclient.int64)
    absolute = (mine - theirs).abs()
    absolute[close] = 0
    relative = absolute / theirs.abs()
    relative[close] = 0
    lines = []
    for name, difference, tolerance in (("absolute", absolute, atol), ("relative", relative, rtol)):
        greatest = difference.max(0)
        index = tuple(int(part) for part in np.unravel_index(greatest.indices.item(), actual.shape))
        lines.append(f"Greatest {name} difference: {greatest.values.item()} at index {index}{allowed(tolerance)}")
    return f"Tensor-likes are not {word}!\n\n{head}" + "\n".join(lines)
