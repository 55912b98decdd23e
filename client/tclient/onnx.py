"""torch.onnx: the operations of a module are the server's, and are not written to files of ONNX."""

from __future__ import annotations

from typing import Any, NoReturn


def export(*args: Any, **kwargs: Any) -> NoReturn:
    """Always raises, and says what to do instead."""
    raise RuntimeError(
        "torch.onnx.export needs torch itself: save the weights with torch.save(model.state_dict(), path), load them "
        "into the same module where torch is installed, and export it there"
    )


def is_in_onnx_export() -> bool:
    """False: nothing is exported."""
    return False
