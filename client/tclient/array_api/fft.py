"""The standard's extension for Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import tclient as tc
from tclient import Tensor
from tclient import device as Device
from tclient import dtype as DType

__all__ = [
    "fft",
    "fftfreq",
    "fftn",
    "fftshift",
    "hfft",
    "ifft",
    "ifftn",
    "ifftshift",
    "ihfft",
    "irfft",
    "irfftn",
    "rfft",
    "rfftfreq",
    "rfftn",
]

Norm = Literal["backward", "ortho", "forward"]


def _of_one(name: str, of: Callable[..., Any]) -> Any:
    def function(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: Norm = "backward") -> Tensor:
        made: Tensor = of(x, n=n, dim=axis, norm=norm)
        return made.resolve_conj()

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The standard's {name}, along one axis."
    return function


def _of_several(name: str, of: Callable[..., Any]) -> Any:
    def function(
        x: Tensor, /, *, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: Norm = "backward"
    ) -> Tensor:
        made: Tensor = of(x, s=s, dim=axes, norm=norm)
        return made

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The standard's {name}, along several axes."
    return function


def _shifted(name: str, of: Callable[..., Any]) -> Any:
    def function(x: Tensor, /, *, axes: int | Sequence[int] | None = None) -> Tensor:
        made: Tensor = of(x, dim=axes)
        return made

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The standard's {name}."
    return function


def _frequencies(name: str, of: Callable[..., Any]) -> Any:
    def function(
        n: int, /, *, d: float = 1.0, dtype: DType | None = None, device: Device | str | None = None
    ) -> Tensor:
        made: Tensor = of(n, d=d, dtype=dtype, device=device)
        return made

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The standard's {name}."
    return function


fft = _of_one("fft", tc.fft.fft)
ifft = _of_one("ifft", tc.fft.ifft)
rfft = _of_one("rfft", tc.fft.rfft)
irfft = _of_one("irfft", tc.fft.irfft)
hfft = _of_one("hfft", tc.fft.hfft)
ihfft = _of_one("ihfft", tc.fft.ihfft)
fftn = _of_several("fftn", tc.fft.fftn)
ifftn = _of_several("ifftn", tc.fft.ifftn)
rfftn = _of_several("rfftn", tc.fft.rfftn)
irfftn = _of_several("irfftn", tc.fft.irfftn)
fftshift = _shifted("fftshift", tc.fft.fftshift)
ifftshift = _shifted("ifftshift", tc.fft.ifftshift)
fftfreq = _frequencies("fftfreq", tc.fft.fftfreq)
rfftfreq = _frequencies("rfftfreq", tc.fft.rfftfreq)
