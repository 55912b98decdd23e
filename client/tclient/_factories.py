"""Shape, dtype and device of what is made of nothing, or of Python's numbers, told from the arguments alone.

Whatever is not plain to see is None, and asked for. Knows arguments and sessions; issues no calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tclient._codec.device import device
from tclient._codec.dtypes import BY_NUMPY, DTYPES, LAYOUTS, dtype
from tclient._codec.size import size_of
from tclient._session.kinds import Meta, known
from tclient._session.modes import MODES
from tclient._session.session import Session

_SIZED = frozenset(("zeros", "ones", "empty", "rand", "randn"))
DATA = frozenset(("tensor", "as_tensor", "from_numpy"))
FACTORIES = _SIZED | DATA | {"full", "arange", "eye", "randint", "randperm", "linspace"}
_OPTIONS = frozenset(("dtype", "device", "requires_grad", "generator", "pin_memory"))
_BOOL, _INT64, _FLOAT32, _FLOAT64 = (DTYPES[name] for name in ("bool", "int64", "float32", "float64"))
_STRIDED = next(each for each in LAYOUTS.values() if str(each) == "torch.strided")
# Of a long list it costs more to look than it may save.
_LONG = 512
_Shape = Sequence[int]


def made(session: Session, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Meta | None:
    """What a call of one of FACTORIES makes."""
    wanted = kwargs.get("dtype")
    if not kwargs.keys() <= _OPTIONS or not (wanted is None or wanted.__class__ is dtype):
        return None
    place = _place(session, kwargs.get("device"), name)
    usual = _FLOAT32 if session.default_dtype_known else None
    found = _of_data(args, wanted, usual) if name in DATA else _of_numbers(name, args, usual)
    if place is None or found is None:
        return None
    shape, element = found
    element = wanted or element
    return None if element is None else known(size_of(shape), element, place, _STRIDED)


def _place(session: Session, given: Any, name: str) -> device | None:
    """Where it lies: on a device that is sure to be there."""
    usual = session.opened.default_device or "cpu"
    if MODES.gpu is not None and usual.startswith("cuda"):
        usual = f"cuda:{MODES.gpu}"
    if given is None:
        return None if name in DATA and usual != "cpu" else device(usual)
    named = str(given) if given.__class__ in (str, device) else ""
    return device(named) if named in ("cpu", usual) else None


def _are_sizes(values: Sequence[Any]) -> bool:
    return all(each.__class__ is int and each >= 0 for each in values)


def _sizes(values: Sequence[Any]) -> _Shape | None:
    """The sizes of zeros(2, 3), or of zeros((2, 3))."""
    if len(values) == 1 and isinstance(values[0], (tuple, list)):
        values = values[0]
    return tuple(values) if _are_sizes(values) else None


def _of_numbers(name: str, args: Sequence[Any], usual: dtype | None) -> tuple[_Shape, dtype | None] | None:
    """Shape, and the dtype that it has where none is asked for."""
    shape: _Shape | None = None
    element = usual
    count = len(args)
    if name in _SIZED:
        shape = _sizes(args)
    elif name == "full" and count == 2:
        shape = _sizes(args[:1]) if isinstance(args[0], (tuple, list)) else None
        element = {bool: _BOOL, int: _INT64, float: usual}.get(args[1].__class__)
    elif name == "eye" and count in (1, 2):
        shape = (args[0], args[-1]) if _are_sizes(args) else None
    elif name == "randint" and count in (2, 3) and isinstance(args[-1], (tuple, list)):
        shape = _sizes(args[-1:]) if all(each.__class__ is int for each in args[:-1]) else None
        element = _INT64
    elif name == "randperm" and count == 1:
        shape, element = (args if _are_sizes(args) else None), _INT64
    elif name == "linspace" and count == 3:
        are_numbers = all(each.__class__ in (int, float) for each in args[:2])
        shape = args[2:] if are_numbers and _are_sizes(args[2:]) else None
    elif name == "arange" and 1 <= count <= 3 and all(each.__class__ is int for each in args):
        begin, end, step = (0, args[0], 1) if count == 1 else (*args, 1)[:3]
        if step and (end - begin) * step >= 0:
            shape, element = (len(range(begin, end, step)),), _INT64
    return None if shape is None else (shape, element)


def _of_data(args: Sequence[Any], wanted: dtype | None, usual: dtype | None) -> tuple[_Shape, dtype | None] | None:
    """The same of an array, or of numbers in lists."""
    if len(args) != 1:
        return None
    data = args[0]
    if data.__class__ is np.ndarray:
        return (data.shape, BY_NUMPY[data.dtype]) if data.dtype in BY_NUMPY and data.dtype.isnative else None
    classes: set[type] = set()
    shape = _nested(data, classes, [_LONG])
    if shape is None or wanted not in (None, _FLOAT32, _FLOAT64, _INT64) or (wanted is _INT64 and float in classes):
        return None
    return shape, (usual if float in classes or not classes else _INT64 if int in classes else _BOOL)


def _nested(data: Any, classes: set[type], room: list[int]) -> _Shape | None:
    """The shape of numbers in lists; None if they have none, or are not such as fit everywhere."""
    room[0] -= 1
    cls = data.__class__
    if room[0] < 0:
        return None
    if cls is float or cls is bool or (cls is int and -(1 << 63) <= data < 1 << 63):
        classes.add(cls)
        return ()
    if cls is not list and cls is not tuple:
        return None
    inner: _Shape | None = ()
    for place, item in enumerate(data):
        shape = _nested(item, classes, room)
        if shape is None or (place and shape != inner):
            return None
        inner = shape
    return None if inner is None else (len(data), *inner)
