"""torch's objects for the contract's enums, both ways. Dtypes come from the contract's table."""

from __future__ import annotations

from typing import cast

import torch

from tensorcompute.tables import dtypes
from tensorcompute.v1 import tensor_pb2 as pb

DTYPES: dict[int, torch.dtype] = {row.code: torch.__dict__[row.name] for row in dtypes.DTYPES}
DTYPE_CODES: dict[torch.dtype, pb.DType] = {dtype: cast(pb.DType, code) for code, dtype in DTYPES.items()}

MEMORY_FORMATS: dict[pb.MemoryFormat, torch.memory_format] = {
    pb.MEMORY_FORMAT_CONTIGUOUS: torch.contiguous_format,
    pb.MEMORY_FORMAT_PRESERVE: torch.preserve_format,
    pb.MEMORY_FORMAT_CHANNELS_LAST: torch.channels_last,
    pb.MEMORY_FORMAT_CHANNELS_LAST_3D: torch.channels_last_3d,
}
LAYOUTS: dict[pb.Layout, torch.layout] = {
    pb.LAYOUT_STRIDED: torch.strided,
    pb.LAYOUT_SPARSE_COO: torch.sparse_coo,
    pb.LAYOUT_SPARSE_CSR: torch.sparse_csr,
    pb.LAYOUT_SPARSE_CSC: torch.sparse_csc,
    pb.LAYOUT_SPARSE_BSR: torch.sparse_bsr,
    pb.LAYOUT_SPARSE_BSC: torch.sparse_bsc,
}
MEMORY_FORMAT_CODES: dict[torch.memory_format, pb.MemoryFormat] = {f: code for code, f in MEMORY_FORMATS.items()}
LAYOUT_CODES: dict[torch.layout, pb.Layout] = {layout: code for code, layout in LAYOUTS.items()}
