"""What torch.sparse has besides functions: the old typed classes, and the switch of the look at indices."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from tclient._codec.dtypes import LAYOUTS
from tclient._tensor import Tensor, constructed
from tclient._types import tensortype, typed_classes
from tensorcompute.v1 import tensor_pb2 as pb

_COO = LAYOUTS[int(pb.LAYOUT_SPARSE_COO)]


class _sparsetype(tensortype):
    """The class of torch.sparse.FloatTensor and its kin."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, Tensor) and value.dtype is cls.dtype and value.layout is _COO and value.is_cpu

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return constructed(f"sparse.{cls.__name__}", args, kwargs)

    def torch_name(cls) -> str:
        """What `x.type()` gives for such a tensor."""
        return f"torch.sparse.{cls.__name__}"


def _typed() -> dict[str, _sparsetype]:
    dense = typed_classes("cpu")
    return {name: _sparsetype(name, (), {"dtype": kind.dtype, "_place": "cpu"}) for name, kind in dense.items()}


_classes = _typed()
BFloat16Tensor = _classes["BFloat16Tensor"]
ByteTensor = _classes["ByteTensor"]
CharTensor = _classes["CharTensor"]
DoubleTensor = _classes["DoubleTensor"]
FloatTensor = _classes["FloatTensor"]
HalfTensor = _classes["HalfTensor"]
IntTensor = _classes["IntTensor"]
LongTensor = _classes["LongTensor"]
ShortTensor = _classes["ShortTensor"]


class check_sparse_tensor_invariants:
    """Whether the indices of new sparse tensors are looked at, as torch has it: a server always looks at them.

    What is set here is kept for programs that ask for it, and has no other effect.
    """

    _enabled = False

    def __init__(self, enable: bool = True) -> None:
        self._wanted = enable
        self._before: bool | None = None

    @staticmethod
    def is_enabled() -> bool:
        """What was set."""
        return check_sparse_tensor_invariants._enabled

    @staticmethod
    def enable() -> None:
        """Set it."""
        check_sparse_tensor_invariants._enabled = True

    @staticmethod
    def disable() -> None:
        """Take it back."""
        check_sparse_tensor_invariants._enabled = False

    def __enter__(self) -> None:
        if self._before is not None:
            raise RuntimeError(
                "This context manager instance is already activated. Use a different context manager instance for "
                "context nesting."
            )
        self._before = check_sparse_tensor_invariants._enabled
        check_sparse_tensor_invariants._enabled = self._wanted

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._before is not None
        check_sparse_tensor_invariants._enabled, self._before = self._before, None

    def __call__(self, function: Any) -> Any:
        def checked(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self._wanted):
                return function(*args, **kwargs)

        return checked
