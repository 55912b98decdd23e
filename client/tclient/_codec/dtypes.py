"""dtypes, memory formats, layouts, finfo and iinfo: torch's constants, and their numbers on the wire and in numpy.

They print as torch's do, so that texts are equal. Knows numpy, and the contract's enums and table of dtypes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorcompute.tables import dtypes as table
from tensorcompute.v1 import tensor_pb2 as pb


class dtype:
    """The type of the elements of a tensor."""

    __slots__ = ("_name", "code", "is_complex", "is_floating_point", "is_signed", "itemsize", "numpy")

    code: int
    itemsize: int
    is_floating_point: bool
    is_complex: bool
    is_signed: bool
    # The numpy dtype that holds the same bytes as the same numbers; None where numpy has none.
    numpy: np.dtype[Any] | None

    def __new__(cls, *args: Any, **kwargs: Any) -> dtype:
        raise TypeError("cannot create 'torch.dtype' instances")

    @property
    def value(self) -> bytes:
        """Value.dtype of the contract."""
        return bytes((0x48, self.code))

    def to_complex(self) -> dtype:
        """The complex dtype of the same precision. Raises: RuntimeError where torch has none."""
        row = _ROWS[self._name]
        if not row.complex:
            raise RuntimeError(f"Unknown Complex ScalarType for {row.scalar}")
        return DTYPES[row.complex]

    def to_real(self) -> dtype:
        """The real dtype of the same precision."""
        return _TO_REAL.get(self._name, self)

    def __repr__(self) -> str:
        return f"torch.{self._name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self._name,)

    def __copy__(self) -> dtype:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> dtype:
        return self

    _name: str


def _by_name(name: str) -> dtype:
    return DTYPES[name]


def _make(row: table.DType) -> dtype:
    made = object.__new__(dtype)
    made._name, made.code, made.itemsize = row.name, row.code, row.size
    made.is_floating_point = row.kind == "f"
    made.is_complex = row.kind == "c"
    made.is_signed = row.kind in "fci"
    made.numpy = np.dtype(row.numpy) if row.numpy else None
    return made


_ROWS = {row.name: row for row in table.DTYPES}
DTYPES: dict[str, dtype] = {row.name: _make(row) for row in table.DTYPES}

# torch's other names for the same dtypes.
ALIASES = {row.alias: row.name for row in table.DTYPES if row.alias}
# What torch's TypeErrors call them, and the first part of the names of its typed classes.
SCALAR_TYPES = {row.name: row.scalar for row in table.DTYPES}

BY_CODE: dict[int, dtype] = {each.code: each for each in DTYPES.values()}
BY_NUMPY: dict[np.dtype[Any], dtype] = {each.numpy: each for each in DTYPES.values() if each.numpy is not None}

# A complex number is two real ones. (bfloat16 becomes complex64, which does not become bfloat16.)
_TO_REAL = {row.complex: DTYPES[row.name] for row in table.DTYPES if 2 * row.size == _ROWS.get(row.complex, row).size}


class _Constant:
    """A named constant of torch with a number on the wire."""

    __slots__ = ("_name", "value")

    def __init__(self, name: str, value: bytes) -> None:
        self._name = name
        self.value = value

    def __repr__(self) -> str:
        return f"torch.{self._name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _constant_named, (type(self).__name__, self._name)

    def __copy__(self) -> _Constant:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Constant:
        return self


class memory_format(_Constant):
    """How the dimensions of a tensor are laid out in memory."""

    __slots__ = ()


class layout(_Constant):
    """How the elements of a tensor are stored."""

    __slots__ = ()


MEMORY_FORMATS: dict[int, memory_format] = {
    code: memory_format(name, bytes((0x88, 0x01, code)))
    for code, name in (
        (int(pb.MEMORY_FORMAT_CONTIGUOUS), "contiguous_format"),
        (int(pb.MEMORY_FORMAT_PRESERVE), "preserve_format"),
        (int(pb.MEMORY_FORMAT_CHANNELS_LAST), "channels_last"),
        (int(pb.MEMORY_FORMAT_CHANNELS_LAST_3D), "channels_last_3d"),
    )
}
LAYOUTS: dict[int, layout] = {
    code: layout(name, bytes((0x90, 0x01, code)))
    for code, name in (
        (int(pb.LAYOUT_STRIDED), "strided"),
        (int(pb.LAYOUT_SPARSE_COO), "sparse_coo"),
        (int(pb.LAYOUT_SPARSE_CSR), "sparse_csr"),
        (int(pb.LAYOUT_SPARSE_CSC), "sparse_csc"),
        (int(pb.LAYOUT_SPARSE_BSR), "sparse_bsr"),
        (int(pb.LAYOUT_SPARSE_BSC), "sparse_bsc"),
    )
}


def _constant_named(kind: str, name: str) -> _Constant:
    among: list[_Constant] = [*(LAYOUTS if kind == "layout" else MEMORY_FORMATS).values()]
    return next(each for each in among if each._name == name)


LAYOUTS[int(pb.LAYOUT_UNSPECIFIED)] = LAYOUTS[int(pb.LAYOUT_STRIDED)]


class finfo:
    """The limits of a floating point dtype: bits, eps, max, min, tiny, smallest_normal, resolution, dtype."""

    def __init__(self, type: dtype = DTYPES["float32"]) -> None:
        if not isinstance(type, dtype):
            raise TypeError(f"finfo(): argument 'type' (position 1) must be torch.dtype, not {type.__class__.__name__}")
        real = type.to_real()
        if not real.is_floating_point:
            raise TypeError(
                "torch.finfo() requires a floating point input type. Use torch.iinfo to handle 'torch.finfo'"
            )
        self.dtype = real._name
        self.bits = real.itemsize * 8
        limits = _ROWS[real._name].limits
        if limits is not None:
            self.eps, self.max, self.smallest_normal, self.resolution = limits
        else:
            assert real.numpy is not None
            info = np.finfo(real.numpy)
            self.eps, self.max = float(info.eps), float(info.max)
            self.smallest_normal = float(info.smallest_normal)
            self.resolution = 10.0 ** -{2: 3, 4: 6, 8: 15}[real.itemsize]
        self.min, self.tiny = -self.max, self.smallest_normal

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
            f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """The limits of an integer dtype: bits, min, max, dtype."""

    def __init__(self, type: dtype) -> None:
        if not isinstance(type, dtype):
            raise TypeError(f"iinfo(): argument 'type' (position 1) must be torch.dtype, not {type.__class__.__name__}")
        if type._name == "bool":
            raise TypeError("torch.bool is not supported by torch.iinfo")
        if type.is_floating_point or type.is_complex:
            raise TypeError("torch.iinfo() requires an integer input type. Use torch.finfo to handle 'torch.iinfo'")
        self.dtype = type._name
        self.bits = type.itemsize * 8
        self.min = -(1 << self.bits - 1) if type.is_signed else 0
        self.max = (1 << self.bits - type.is_signed) - 1

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
