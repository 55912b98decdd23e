"""What a worker process takes items of. A worker that is started anew imports this, and nothing that takes long."""

from __future__ import annotations

from typing import Any

import numpy as np


class Squares:
    """Arrays, numbers and texts, from Python and numpy."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        array = np.array([index, 1], dtype=np.int16)
        return {"a": array, "n": (index, index / 2), "t": str(index), "g": np.float32(index)}
