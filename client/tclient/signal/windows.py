"""torch.signal.windows, computed by operations of the server. M is the number of points; sym=False makes them periodic.

All raise ValueError for a negative M, for a layout other than strided, and for a dtype that is no real float; sums of
cosines raise it in the name of general_cosine, as torch's do.
Source: Harris (1978), On the use of windows for harmonic analysis with the discrete Fourier transform.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import tclient


def _options(function: str, M: Any, dtype: Any, layout: Any, device: Any, requires_grad: bool) -> dict[str, Any]:
    """How the window is made."""
    dtype = tclient.get_default_dtype() if dtype is None else dtype
    if M < 0:
        raise ValueError(f"{function} requires non-negative window length, got M={M}")
    if layout is not tclient.strided:
        raise ValueError(f"{function} is implemented for strided tensors only, got: {layout}")
    if dtype not in (tclient.float32, tclient.float64):
        raise ValueError(f"{function} expects float32 or float64 dtypes, got: {dtype}")
    return {"dtype": dtype, "layout": layout, "device": device, "requires_grad": requires_grad}


def _period(M: int, sym: bool) -> int:
    """The distance of the points at which a window begins again; of a symmetric one, of the first and the last."""
    return M - 1 if sym or M == 1 else M


def exponential(
    M: int,
    *,
    center: float | None = None,
    tau: float = 1.0,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """exp(-|n - center| / tau). Without a center it is in the middle, and only then a window may be symmetric."""
    options = _options("exponential", M, dtype, layout, device, requires_grad)
    if M == 0:
        return tclient.empty((0,), **options)
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    middle = _period(M, sym) / 2 if center is None else center
    return tclient.exp(-abs(tclient.linspace(-middle / tau, (M - 1 - middle) / tau, M, **options)))


def cosine(
    M: int,
    *,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """sin(pi (n + 1/2) / M), half a wave."""
    options = _options("cosine", M, dtype, layout, device, requires_grad)
    if M == 0:
        return tclient.empty((0,), **options)
    step = math.pi / (_period(M, sym) + 1)
    return tclient.sin(tclient.linspace(0.5 * step, (M - 0.5) * step, M, **options))


def gaussian(
    M: int,
    *,
    std: float = 1.0,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """exp(-(n / std)^2 / 2), with n counted from the middle."""
    options = _options("gaussian", M, dtype, layout, device, requires_grad)
    if M == 0:
        return tclient.empty((0,), **options)
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    start, scale = -_period(M, sym) / 2, 1 / (std * math.sqrt(2))
    return tclient.exp(-(tclient.linspace(start * scale, (start + M - 1) * scale, M, **options) ** 2))


def kaiser(
    M: int,
    *,
    beta: float = 12.0,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """I0(beta sqrt(1 - x^2)) / I0(beta), with x from -1 to 1."""
    options = _options("kaiser", M, dtype, layout, device, requires_grad)
    if M == 0:
        return tclient.empty((0,), **options)
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")
    if M == 1:
        return tclient.ones((1,), **options)
    across = tclient.linspace(-beta, min(beta, -beta + (M - 1) * 2 * beta / _period(M, sym)), M, **options)
    whole = tclient.tensor(beta, dtype=options["dtype"], device=device)
    return tclient.i0(tclient.sqrt(beta * beta - across**2)) / tclient.i0(whole)


def hamming(
    M: int,
    *,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """0.54 - 0.46 cos x: a raised wave that does not reach 0."""
    options = {"dtype": dtype, "layout": layout, "device": device, "requires_grad": requires_grad}
    return general_cosine(M, a=[0.54, 1.0 - 0.54], sym=sym, **options)


def hann(
    M: int,
    *,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """(1 - cos x) / 2: a raised wave."""
    options = {"dtype": dtype, "layout": layout, "device": device, "requires_grad": requires_grad}
    return general_cosine(M, a=[0.5, 0.5], sym=sym, **options)


def blackman(
    M: int,
    *,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """0.42 - 0.5 cos x + 0.08 cos 2x."""
    options = _options("blackman", M, dtype, layout, device, requires_grad)
    return general_cosine(M, a=[0.42, 0.5, 0.08], sym=sym, **options)


def bartlett(
    M: int,
    *,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """A triangle: 1 - |x|, with x from -1 to 1."""
    options = _options("bartlett", M, dtype, layout, device, requires_grad)
    if M == 0:
        return tclient.empty((0,), **options)
    if M == 1:
        return tclient.ones((1,), **options)
    return 1 - abs(tclient.linspace(-1, -1 + (M - 1) * 2 / _period(M, sym), M, **options))


def general_cosine(
    M: int,
    *,
    a: Iterable[float],
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """The sum of (-1)^i a[i] cos(i x), with x over one turn."""
    options = _options("general_cosine", M, dtype, layout, device, requires_grad)
    if M == 0:
        return tclient.empty((0,), **options)
    if M == 1:
        return tclient.ones((1,), **options)
    if not isinstance(a, Iterable):
        raise TypeError("Coefficients must be a list/tuple")
    weights = list(a)
    if not weights:
        raise ValueError("Coefficients cannot be empty")
    turn = tclient.linspace(0, (M - 1) * 2 * math.pi / _period(M, sym), M, **options)
    signed = tclient.tensor(
        [(-1) ** i * weight for i, weight in enumerate(weights)],
        dtype=options["dtype"],
        device=device,
        requires_grad=requires_grad,
    )
    order = tclient.arange(len(weights), dtype=options["dtype"], device=device)
    return (signed.unsqueeze(-1) * tclient.cos(order.unsqueeze(-1) * turn)).sum(0)


def general_hamming(
    M: int,
    *,
    alpha: float = 0.54,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """alpha - (1 - alpha) cos x."""
    options = {"dtype": dtype, "layout": layout, "device": device, "requires_grad": requires_grad}
    return general_cosine(M, a=[alpha, 1.0 - alpha], sym=sym, **options)


def nuttall(
    M: int,
    *,
    sym: bool = True,
    dtype: Any = None,
    layout: Any = tclient.strided,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Four cosines, after Nuttall."""
    options = {"dtype": dtype, "layout": layout, "device": device, "requires_grad": requires_grad}
    return general_cosine(M, a=[0.3635819, 0.4891775, 0.1365995, 0.0106411], sym=sym, **options)
