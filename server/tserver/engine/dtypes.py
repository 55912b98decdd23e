"""torch's names for the contract's enums, both ways. One table for each; nothing else knows the pairs."""

from __future__ import annotations

import torch

from tensorcompute.v1 import tensor_pb2 as pb

DTYPES: dict[pb.DType, torch.dtype] = {
    pb.D_TYPE_FLOAT32: torch.float32,
    pb.D_TYPE_FLOAT64: torch.float64,
    pb.D_TYPE_FLOAT16: torch.float16,
    pb.D_TYPE_BFLOAT16: torch.bfloat16,
    pb.D_TYPE_UINT8: torch.uint8,
    pb.D_TYPE_INT8: torch.int8,
    pb.D_TYPE_INT16: torch.int16,
    pb.D_TYPE_INT32: torch.int32,
    pb.D_TYPE_INT64: torch.int64,
    pb.D_TYPE_BOOL: torch.bool,
    pb.D_TYPE_COMPLEX64: torch.complex64,
    pb.D_TYPE_COMPLEX128: torch.complex128,
    pb.D_TYPE_COMPLEX32: torch.complex32,
    pb.D_TYPE_UINT16: torch.uint16,
    pb.D_TYPE_UINT32: torch.uint32,
    pb.D_TYPE_UINT64: torch.uint64,
    pb.D_TYPE_FLOAT8_E4M3FN: torch.float8_e4m3fn,
    pb.D_TYPE_FLOAT8_E5M2: torch.float8_e5m2,
}
DTYPE_CODES: dict[torch.dtype, pb.DType] = {dtype: code for code, dtype in DTYPES.items()}

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
