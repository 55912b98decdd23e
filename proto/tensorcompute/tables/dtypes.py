"""Every dtype: its number on the wire, and its names elsewhere."""

from __future__ import annotations

from typing import NamedTuple


class DType(NamedTuple):
    """A dtype."""

    # Value of the contract's DType; never used again for another.
    code: int
    # Its number in files of ONNX; 0 where they do not have it.
    onnx: int
    # torch's name.
    name: str
    # f floating, c complex, i signed, u unsigned, b bool.
    kind: str
    # The bytes of an element.
    size: int
    # torch's name of the C++ type: tensors have types such as torch.FloatTensor.
    scalar: str
    # The dtype of numpy that holds the same bytes as the same numbers; empty where there is none.
    numpy: str = ""
    # The name in safetensors files; empty where they cannot hold it.
    safetensors: str = ""
    # The datatype of the Open Inference Protocol; empty where it has none.
    oip: str = ""
    # torch's other name for it.
    alias: str = ""
    # The complex dtype of the same precision; empty where torch has none.
    complex: str = ""
    # eps, max, smallest_normal and resolution of a format that numpy does not have.
    limits: tuple[float, float, float, float] | None = None


DTYPES: tuple[DType, ...] = (
    #     code  onnx  name   kind size  scalar    numpy  safetensors  oip  alias  complex  limits
    DType(1, 1, "float32", "f", 4, "Float", "<f4", "F32", "FP32", "float", "complex64"),
    DType(2, 11, "float64", "f", 8, "Double", "<f8", "F64", "FP64", "double", "complex128"),
    DType(3, 10, "float16", "f", 2, "Half", "<f2", "F16", "FP16", "half", "complex32"),
    DType(
        *(4, 16, "bfloat16", "f", 2, "BFloat16", "", "BF16", "BF16", "", "complex64"),
        (2**-7, 255 * 2.0**120, 2**-126, 0.01),
    ),
    DType(5, 2, "uint8", "u", 1, "Byte", "u1", "U8", "UINT8"),
    DType(6, 3, "int8", "i", 1, "Char", "i1", "I8", "INT8"),
    DType(7, 5, "int16", "i", 2, "Short", "<i2", "I16", "INT16", "short"),
    DType(8, 6, "int32", "i", 4, "Int", "<i4", "I32", "INT32", "int"),
    DType(9, 7, "int64", "i", 8, "Long", "<i8", "I64", "INT64", "long"),
    DType(10, 9, "bool", "b", 1, "Bool", "?", "BOOL", "BOOL"),
    DType(11, 14, "complex64", "c", 8, "ComplexFloat", "<c8", "C64", "", "cfloat", "complex64"),
    DType(12, 15, "complex128", "c", 16, "ComplexDouble", "<c16", "", "", "cdouble", "complex128"),
    DType(13, 0, "complex32", "c", 4, "ComplexHalf", "", "", "", "chalf", "complex32"),
    DType(14, 4, "uint16", "u", 2, "UInt16", "<u2", "U16", "UINT16"),
    DType(15, 12, "uint32", "u", 4, "UInt32", "<u4", "U32", "UINT32"),
    DType(16, 13, "uint64", "u", 8, "UInt64", "<u8", "U64", "UINT64"),
    DType(17, 17, "float8_e4m3fn", "f", 1, "Float8_e4m3fn", "", "F8_E4M3", "", "", "", (2**-3, 448.0, 2**-6, 1.0)),
    DType(18, 19, "float8_e5m2", "f", 1, "Float8_e5m2", "", "F8_E5M2", "", "", "", (2**-2, 57344.0, 2**-14, 1.0)),
)
