"""torch's typed classes: FloatTensor, LongTensor and their kin. They make tensors, and name a dtype and a place.

No tensor is an instance of them in Python's sense: `isinstance` asks for dtype and device, as torch does.
"""

from __future__ import annotations

from typing import Any

from tclient import _wire
from tclient._dtypes import DTYPES, dtype
from tclient._issue import dispatch
from tclient._operations import TABLE
from tclient._size import Size
from tclient._tensor import Tensor, checked
from tclient._values import register

_NAMES = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Byte": "uint8",
    "Char": "int8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Bool": "bool",
}


class tensortype(type):
    """The class of FloatTensor and its kin."""

    dtype: dtype
    _place: str

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dtype is cls.dtype and value.device.type == cls._place

    def __call__(cls, *args: Any) -> Any:
        options = {"dtype": cls.dtype, "device": cls._place}
        if len(args) == 1 and isinstance(args[0], Tensor):
            return args[0].detach()
        if len(args) == 1 and not isinstance(args[0], (int, Size)):
            return dispatch(TABLE["tensor"], checked(args), options)
        return dispatch(TABLE["empty"], args or (0,), options)

    def __repr__(cls) -> str:
        return f"<class '{cls.torch_name()}'>"

    def torch_name(cls) -> str:
        """What `x.type()` gives for such a tensor."""
        return f"torch.{'cuda.' if cls._place == 'cuda' else ''}{cls.__name__}"


def typed_classes(place: str) -> dict[str, tensortype]:
    """The classes for a kind of device, by name."""
    return {
        f"{name}Tensor": tensortype(f"{name}Tensor", (), {"dtype": DTYPES[element], "_place": place})
        for name, element in _NAMES.items()
    }


register(tensortype, lambda kind, session: _wire.text_value(kind.torch_name()))
