"""torch.autograd, run by the server, and the gradient modes of the calling thread.

variable       Variable, as programs before torch 0.4 name tensors
anomaly_mode   looking for NaN in backward passes, which is the server's to decide
graph          the nodes that a backward pass goes through
function       Function, to derive operations from whose gradient is the program's own
gradcheck      whether gradients are the slopes that small differences show
functional     jacobians, hessians and products with them, of functions of the caller
"""

from __future__ import annotations

from typing import Any

from tclient._namespace import functions, missing
from tclient._session.modes import enable_grad, inference_mode, no_grad, set_grad_enabled

globals().update(functions("autograd."))

# They are built of what is above.
from tclient.autograd import anomaly_mode as anomaly_mode  # noqa: E402
from tclient.autograd import function as function  # noqa: E402
from tclient.autograd import functional as functional  # noqa: E402
from tclient.autograd import graph as graph  # noqa: E402
from tclient.autograd import variable as variable  # noqa: E402
from tclient.autograd.anomaly_mode import detect_anomaly, set_detect_anomaly  # noqa: E402
from tclient.autograd.function import Function  # noqa: E402
from tclient.autograd.gradcheck import gradcheck, gradgradcheck  # noqa: E402
from tclient.autograd.variable import Variable  # noqa: E402

__all__ = [
    "Function",
    "Variable",
    "detect_anomaly",
    "enable_grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]


def __getattr__(name: str) -> Any:
    missing(__name__, name, globals())
