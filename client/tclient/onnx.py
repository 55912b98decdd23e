"""torch.onnx: modules are not written to files of ONNX; the graphs of such files are read as modules.

`load` is ours: torch itself has nothing that reads them. It needs the package onnx: pip install 'tclient[onnx]'.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tclient._onnx.module import GraphModule

__all__ = ["export", "is_in_onnx_export", "load"]


def export(*args: Any, **kwargs: Any) -> NoReturn:
    """Always raises, and says what to do instead."""
    raise RuntimeError(
        "torch.onnx.export needs torch itself: save the weights with torch.save(model.state_dict(), path), load them "
        "into the same module where torch is installed, and export it there"
    )


def is_in_onnx_export() -> bool:
    """False: nothing is exported."""
    return False


def load(source: str | os.PathLike[str] | bytes) -> GraphModule:
    """The graph of an ONNX file, or of its bytes, as a module whose weights are on the server.

    Initializers are its parameters and buffers, by the names that they have in the graph; `inputs` and `outputs` give
    the names, dtypes and shapes of what it takes and gives, where a size that varies is a string. Called, it returns
    one tensor, or a dict where the graph has several outputs. It is as the file is, mostly for inference. An operator
    is run by the functions of tclient; nothing of the graph is run as code of its own.

    Raises: ImportError without the package onnx; ValueError for a file that is none or is damaged; NotImplementedError,
    a RuntimeError, that names all operators, attributes and types that are not supported.
    """
    from tclient._onnx.load import load

    return load(source)
