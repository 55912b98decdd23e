"""Libraries that work with arrays of many kinds, and have to be told of tensors: when a program imports them.

einops        a backend, and `einops.layers.tclient` beside the layers of other frameworks
matplotlib    tensors are read whole, and not element by element
opt_einsum    the functions of a backend

Others ask for `Tensor.__array_namespace__`, `__array__` or `__dlpack__`, and need nothing of this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tclient._when_imported import when_imported

_LAYERS = Path(__file__).with_name("einops_layers")


def tell() -> None:
    """From here on, in this process, the libraries know tensors. Imports none of them."""
    when_imported("einops._backends", _tell_einops)
    when_imported("einops.layers", _add_layers)
    when_imported("matplotlib.cbook", _tell_matplotlib)
    when_imported("opt_einsum.backends.dispatch", _tell_opt_einsum)


def _tell_einops(backends: Any) -> None:
    from tclient._libraries.einops import define

    define(backends)


def _add_layers(layers: Any) -> None:
    layers.__path__.append(str(_LAYERS))


def _tell_matplotlib(cbook: Any) -> None:
    plain = getattr(cbook, "_is_torch_array", None)
    if plain is None:
        return  # a version that asks in another way: it reads what it is given, if slowly
    from tclient._issue import TensorBase

    cbook._is_torch_array = lambda value: isinstance(value, TensorBase) or plain(value)


def _tell_opt_einsum(dispatch: Any) -> None:
    dispatch._aliases["tclient"] = "tclient._libraries.opt_einsum"
