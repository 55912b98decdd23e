"""torch.backends.cuda: products and attention on a GPU. What is set here is noted; the server keeps its own.

matmul   how exact products are
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tclient._settings import has_gpu, not_changed
from tclient.backends.cuda import matmul as matmul

_attention = dict.fromkeys(("flash", "memory efficient", "math", "cuDNN"), True)


def is_built() -> bool:
    """Whether the server's torch can work on a GPU; where it has one, it can."""
    return has_gpu()


def _enable(kind: str, wanted: bool) -> None:
    _attention[kind] = wanted
    if not wanted and has_gpu():
        not_changed(f"the use of {kind} attention", stacklevel=4)


def flash_sdp_enabled() -> bool:
    """Whether flash attention may be used."""
    return _attention["flash"]


def enable_flash_sdp(enabled: bool) -> None:
    """Note whether flash attention may be used."""
    _enable("flash", enabled)


def mem_efficient_sdp_enabled() -> bool:
    """Whether memory efficient attention may be used."""
    return _attention["memory efficient"]


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Note whether memory efficient attention may be used."""
    _enable("memory efficient", enabled)


def math_sdp_enabled() -> bool:
    """Whether attention may be computed step by step."""
    return _attention["math"]


def enable_math_sdp(enabled: bool) -> None:
    """Note whether attention may be computed step by step."""
    _enable("math", enabled)


def cudnn_sdp_enabled() -> bool:
    """Whether attention of cuDNN may be used."""
    return _attention["cuDNN"]


def enable_cudnn_sdp(enabled: bool) -> None:
    """Note whether attention of cuDNN may be used."""
    _enable("cuDNN", enabled)


@contextlib.contextmanager
def sdp_kernel(
    enable_flash: bool = True, enable_math: bool = True, enable_mem_efficient: bool = True, enable_cudnn: bool = True
) -> Iterator[None]:
    """Within it torch would compute attention in one of these ways; the server chooses by itself."""
    yield
