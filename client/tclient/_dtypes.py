"""dtypes, memory formats, layouts, finfo and iinfo: torch's constants, and their numbers on the wire and in numpy.

They print as torch's do, so that texts are equal. Knows numpy and the contract's enums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
        """The complex dtype of the same precision."""
        return _TO_COMPLEX[self._name]

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


def _make(name: str, code: int, kind: str, itemsize: int, numpy: str | None) -> dtype:
    made = object.__new__(dtype)
    made._name, made.code, made.itemsize = name, code, itemsize
    made.is_floating_point = kind == "f"
    made.is_complex = kind == "c"
    made.is_signed = kind in "fci"
    made.numpy = np.dtype(numpy) if numpy else None
    return made


DTYPES: dict[str, dtype] = {
    row[0]: _make(*row)
    for row in (
        ("float32", pb.D_TYPE_FLOAT32, "f", 4, "<f4"),
        ("float64", pb.D_TYPE_FLOAT64, "f", 8, "<f8"),
        ("float16", pb.D_TYPE_FLOAT16, "f", 2, "<f2"),
        ("bfloat16", pb.D_TYPE_BFLOAT16, "f", 2, None),
        ("uint8", pb.D_TYPE_UINT8, "u", 1, "u1"),
        ("int8", pb.D_TYPE_INT8, "i", 1, "i1"),
        ("int16", pb.D_TYPE_INT16, "i", 2, "<i2"),
        ("int32", pb.D_TYPE_INT32, "i", 4, "<i4"),
        ("int64", pb.D_TYPE_INT64, "i", 8, "<i8"),
        ("bool", pb.D_TYPE_BOOL, "b", 1, "?"),
        ("complex64", pb.D_TYPE_COMPLEX64, "c", 8, "<c8"),
        ("complex128", pb.D_TYPE_COMPLEX128, "c", 16, "<c16"),
        ("complex32", pb.D_TYPE_COMPLEX32, "c", 4, None),
        ("uint16", pb.D_TYPE_UINT16, "u", 2, "<u2"),
        ("uint32", pb.D_TYPE_UINT32, "u", 4, "<u4"),
        ("uint64", pb.D_TYPE_UINT64, "u", 8, "<u8"),
        ("float8_e4m3fn", pb.D_TYPE_FLOAT8_E4M3FN, "f", 1, None),
        ("float8_e5m2", pb.D_TYPE_FLOAT8_E5M2, "f", 1, None),
    )
}

# torch's other names for the same dtypes.
ALIASES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "cfloat": "complex64",
    "cdouble": "complex128",
    "chalf": "complex32",
}

# What torch's TypeErrors call them.
SCALAR_TYPES = {
    "bfloat16": "BFloat16",
    "complex32": "ComplexHalf",
    "float8_e4m3fn": "Float8_e4m3fn",
    "float8_e5m2": "Float8_e5m2",
}

BY_CODE: dict[int, dtype] = {each.code: each for each in DTYPES.values()}
BY_NUMPY: dict[np.dtype[Any], dtype] = {each.numpy: each for each in DTYPES.values() if each.numpy is not None}

_TO_COMPLEX = {
    name: DTYPES[to]
    for name, to in (
        ("float16", "complex32"),
        ("bfloat16", "complex64"),
        ("float32", "complex64"),
        ("float64", "complex128"),
        ("complex32", "complex32"),
        ("complex64", "complex64"),
        ("complex128", "complex128"),
        *((name, "complex64") for name in ("uint8", "int8", "int16", "int32", "int64", "bool")),
    )
}
_TO_REAL = {"complex32": DTYPES["float16"], "complex64": DTYPES["float32"], "complex128": DTYPES["float64"]}


class _Constant:
    """A named constant of torch with a number on the wire."""

    __slots__ = ("_name", "value")

    def __init__(self, name: str, value: bytes) -> None:
        self._name = name
        self.value = value

    def __repr__(self) -> str:
        return f"torch.{self._name}"

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
LAYOUTS[int(pb.LAYOUT_UNSPECIFIED)] = LAYOUTS[int(pb.LAYOUT_STRIDED)]

# eps, max, smallest_normal, resolution of the formats that numpy does not have.
_FORMATS = {
    "bfloat16": (2.0**-7, (2 - 2.0**-7) * 2.0**127, 2.0**-126, 0.01),
    "float8_e4m3fn": (2.0**-3, 448.0, 2.0**-6, 1.0),
    "float8_e5m2": (2.0**-2, 57344.0, 2.0**-14, 1.0),
}


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
        if real._name in _FORMATS:
            self.eps, self.max, self.smallest_normal, self.resolution = _FORMATS[real._name]
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
