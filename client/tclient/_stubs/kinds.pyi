# The types in the generated stubs. The aliases with an underscore keep their meaning where torch hides the name:
# Tensor has methods called int and float, and properties called dtype and device.

from types import EllipsisType
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from tclient._codec.device import device
from tclient._codec.dtypes import dtype, layout, memory_format
from tclient._codec.size import Size
from tclient._tensor import Tensor

_bool: TypeAlias = bool
_complex: TypeAlias = complex
_device: TypeAlias = device
_dtype: TypeAlias = dtype
_float: TypeAlias = float
_int: TypeAlias = int
_layout: TypeAlias = layout
_memory_format: TypeAlias = memory_format
_Size: TypeAlias = Size
_str: TypeAlias = str

# What an operation takes as a number.
Number: TypeAlias = int | float | np.number[Any] | np.bool_

# What an operation gives as a number: which kind, only the dtype knows. A bool fits wherever a number does.
Plain: TypeAlias = bool | Any

# Nothing before the first backward. Whoever asks has usually called it, so a checker does not insist on a test.
Gradient: TypeAlias = Tensor | Any

Index: TypeAlias = SupportsIndex | slice | EllipsisType | Tensor | np.ndarray[Any, Any] | list[Any] | None
