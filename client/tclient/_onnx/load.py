"""From a file to its module; importing this fills the table of operators."""

from __future__ import annotations

import os

from tclient._onnx import attention, elementwise, layers, learned, quantized, recurrent, reductions, resizing, shaping
from tclient._onnx.module import GraphModule
from tclient._onnx.operators import TABLE
from tclient._onnx.plan import SIZES, plan_of
from tclient._onnx.reading import read

# What each file defines; named so that the imports are seen to be for that.
ROOMS = (attention, elementwise, layers, learned, quantized, recurrent, reductions, resizing, shaping)
KNOWN = frozenset({*TABLE, *SIZES, ("", "Constant")})


def load(source: str | os.PathLike[str] | bytes) -> GraphModule:
    """The module of a file, or of its bytes. Raises: as `tclient.onnx.load` says."""
    return GraphModule(plan_of(read(source, KNOWN)))
