"""torch.sparse, run by the server: products, sums and softmax of sparse tensors of coordinates (torch.sparse_coo)."""

from __future__ import annotations

from typing import Any

from tclient._namespace import functions, missing
from tclient._sparse import (
    BFloat16Tensor,
    ByteTensor,
    CharTensor,
    DoubleTensor,
    FloatTensor,
    HalfTensor,
    IntTensor,
    LongTensor,
    ShortTensor,
    check_sparse_tensor_invariants,
)

globals().update(functions("sparse."))

__all__ = [
    "BFloat16Tensor",
    "ByteTensor",
    "CharTensor",
    "DoubleTensor",
    "FloatTensor",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "ShortTensor",
    "check_sparse_tensor_invariants",
]


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
