"""Private names of torch that libraries call for its own bookkeeping, which the client has none of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _always(value: Any) -> Callable[..., Any]:
    def answer(*args: Any, **kwargs: Any) -> Any:
        return value

    return answer


def _same(value: Any) -> Any:
    return value


class Inert:
    """Stands for what libraries hand back to torch's dispatcher: it may be named, called, joined and entered."""

    def __getattr__(self, name: str) -> Inert:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __or__(self, other: Any) -> Inert:
        return self

    def __enter__(self) -> Inert:
        return self

    def __exit__(self, *exc: object) -> None: ...


_NOTED = (
    "_log_api_usage_once",
    "_jit_set_profiling_executor",
    "_jit_set_profiling_mode",
    "_jit_set_nvfuser_enabled",
    "_jit_set_nvfuser_guard_mode",
    "_jit_set_texpr_fuser_enabled",
    "_jit_override_can_fuse_on_cpu",
    "_jit_override_can_fuse_on_gpu",
)
MADE: dict[str, Any] = {
    **{f"_C.{name}": _always(None) for name in _NOTED},
    "_C._get_tracing_state": _always(None),
    "_C._are_functorch_transforms_active": _always(False),
    **dict.fromkeys(("_C.DispatchKey", "_C.DispatchKeySet", "_C._ExcludeDispatchKeyGuard"), Inert()),
    "onnx.symbolic_helper.parse_args": _always(_same),
    "onnx.register_custom_op_symbolic": _always(None),
    **dict.fromkeys(("jit._script_if_tracing", "jit._overload", "jit._overload_method"), _same),
    **dict.fromkeys(("_dynamo.is_compiling", "_dynamo.utils.is_compile_supported"), _always(False)),
}
