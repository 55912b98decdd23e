"""torch's typed classes: FloatTensor, LongTensor and their kin. They make tensors, and name a dtype and a place.

No tensor is an instance of them in Python's sense: `isinstance` asks for dtype and device, as torch does.
"""

from __future__ import annotations

from typing import Any

from tclient._codec import wire
from tclient._codec.dtypes import DTYPES, SCALAR_TYPES, dtype
from tclient._codec.values import register
from tclient._tensor import Tensor, constructed

# Dtypes that came to torch later have no such classes.
OLD_SCALARS = ("Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long", "Bool")


class tensortype(type):
    """The class of FloatTensor and its kin."""

    dtype: dtype
    _place: str

    def __instancecheck__(cls, value: Any) -> bool:
        return (
            isinstance(value, Tensor)
            and value.dtype is cls.dtype
            and value.device.type == cls._place
            and not value.is_sparse
        )

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = constructed(cls.__name__, args, kwargs)
        return made if cls._place == "cpu" else made.to(cls._place)

    def __repr__(cls) -> str:
        return f"<class '{cls.torch_name()}'>"

    def torch_name(cls) -> str:
        """What `x.type()` gives for such a tensor."""
        return f"torch.{'cuda.' if cls._place == 'cuda' else ''}{cls.__name__}"


def typed_classes(place: str) -> dict[str, tensortype]:
    """The classes for a kind of device, by name."""
    return {
        f"{name}Tensor": tensortype(f"{name}Tensor", (), {"dtype": DTYPES[element], "_place": place})
        for element, name in SCALAR_TYPES.items()
        if name in OLD_SCALARS
    }


register(tensortype, lambda kind, scope: wire.text_value(kind.torch_name()))
