"""The caller's line: the nearest frame outside this package. Knows Python's frames; knows nothing else."""

from __future__ import annotations

import os
import sys
from types import FrameType

HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def caller(depth: int = 1) -> FrameType:
    """The frame in which a name of this package was called; those below that depth are known to be the package's."""
    frame = sys._getframe(depth)
    while frame.f_code.co_filename.startswith(HERE) and frame.f_back is not None:
        frame = frame.f_back
    return frame
