"""torch.autograd, run by the server, and the gradient modes of the calling thread."""

from __future__ import annotations

from typing import Any

from tclient._namespace import functions, missing
from tclient._session.modes import enable_grad, inference_mode, no_grad, set_grad_enabled

globals().update(functions("autograd."))

__all__ = ["enable_grad", "inference_mode", "no_grad", "set_grad_enabled"]


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
