"""The network that is to be served: what is called, with which parameters, and what its modules and weights are named.

Knows modules and functions of the caller; calls them only where it is asked to.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tclient._compile import Compiled
from tclient._exceptions import TensorError, make_error
from tclient._recording import Name, name_of
from tclient.nn import Module
from tclient.nn._compiled import OptimizedModule
from tclient.nn.parameter import is_lazy

# Why a network is refused; other errors of a recording may be those of the sizes that it was tried at.
NOT_SERVABLE = "NOT_SERVABLE"
# Of the text of a network, so much is kept.
_MOST_TEXT = 200_000
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def not_servable(message: str, operation: str = "", site: tuple[str, int] | None = None) -> TensorError:
    """The error for what cannot be served."""
    return make_error("TypeError", message, reason=NOT_SERVABLE, operation=operation, site=site)


def is_refusal(error: BaseException) -> bool:
    """Whether it is an error of `not_servable`."""
    return isinstance(error, TensorError) and error.reason == NOT_SERVABLE


class Network:
    """A module or a function."""

    def __init__(self, network: Any) -> None:
        if isinstance(network, OptimizedModule):
            network = network._orig_mod
        if isinstance(network, Compiled):
            network = network._function
        self.given = network
        self.module: Module | None = network if isinstance(network, Module) else None
        # Modules that are called, each with what stands before its names.
        self.roots: list[tuple[str, Module]] = (
            list(_modules_around(network)) if self.module is None else [("", self.module)]
        )
        # Their parts: the layer that a call was made in is found by them, and what to say of it.
        self.layers: dict[int, str] = {}
        for prefix, root in self.roots:
            for path, module in root.named_modules():
                kind = type(module).__name__
                self.layers.setdefault(id(module), f"{prefix}{path} ({kind})" if prefix + path else kind)
        self.weights: dict[Name, str] = {}
        for name, tensor in self.tensors():
            if is_lazy(tensor):
                raise not_servable(f"{self.label}: {name} has no shape yet; call the network once with an input")
            self.weights.setdefault(name_of(tensor._ref), name)

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """The parameters and buffers of all modules that are called, as they are now, with their names."""
        for prefix, root in self.roots:
            for name, tensor in (*root.named_parameters(), *root.named_buffers()):
                yield prefix + name, tensor

    @property
    def label(self) -> str:
        """What it is called in messages."""
        if self.module is not None:
            return type(self.given).__name__
        return str(getattr(self.given, "__qualname__", None) or type(self.given).__name__)

    @property
    def text(self) -> str:
        """The network as its author reads it."""
        if self.module is not None:
            return str(self.given)[:_MOST_TEXT]
        signature = self.signature
        return self.label + ("(...)" if signature is None else str(signature))

    def described(self, which: str) -> Sequence[Any]:
        """The inputs or outputs that a network describes itself, which was read from a file; none of others."""
        told = getattr(self.given, which, None)
        if isinstance(told, (tuple, list)) and all(hasattr(each, "_fields") for each in told):
            return told
        return ()

    @functools.cached_property
    def signature(self) -> inspect.Signature | None:
        """The parameters that it is called with; None where Python does not know."""
        called = self.given if self.module is None else self.module.forward
        try:
            return inspect.signature(called)
        except (TypeError, ValueError):
            return None

    def named(self, inputs: Any) -> tuple[list[tuple[str, Any]], Mapping[str, int] | None]:
        """The inputs, each with the name of its parameter; and their positions by keyword, if they are given by name.

        Raises: TypeError where the network takes others.
        """
        if isinstance(inputs, Mapping):
            given = [(str(name), value) for name, value in inputs.items()]
            self._bind((), dict(given))
            return given, {name: position for position, (name, _) in enumerate(given)}
        several = isinstance(inputs, (tuple, list)) and not hasattr(inputs, "_fields")
        values: Sequence[Any] = inputs if several else [inputs]
        self._bind(tuple(values), {})
        return list(zip(self._names(len(values)), values, strict=True)), None

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not args and not kwargs:
            raise not_servable(f"{self.label} cannot be served without an input; {self.remedy()}")
        if self.signature is None:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise not_servable(f"{self.label}{self.signature} does not take these inputs: {error}") from None

    def _names(self, count: int) -> list[str]:
        names: list[str] = []
        for name, parameter in self.signature.parameters.items() if self.signature is not None else ():
            if parameter.kind in _POSITIONAL:
                names.append(name)
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                names += [f"{name}_{index}" for index in range(count - len(names))]
        names = names[:count]
        return names + [f"input_{position}" for position in range(len(names), count)]

    def remedy(self) -> str:
        """What to give besides the network."""
        names: list[str] = []
        for name, parameter in self.signature.parameters.items() if self.signature is not None else ():
            if parameter.kind in _POSITIONAL and parameter.default is inspect.Parameter.empty:
                names.append(name)
        shown = ", ".join('models.Input(("batch", …))' for _ in names) or 'models.Input(("batch", …))'
        told = f" for {', '.join(names)}" if names else ""
        return (
            f"give inputs=({shown}{',' if len(names) < 2 else ''}){told}, with the sizes that are fixed as numbers and "
            "names for those that vary, or example tensors"
        )

    def call(self, tensors: Sequence[Any], keywords: Mapping[str, int] | None) -> Any:
        """What it returns for these inputs."""
        if keywords is None:
            return self.given(*tensors)
        return self.given(**{name: tensors[position] for name, position in keywords.items()})

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within it all modules are in evaluation mode; at its end each is as it was."""
        before = [(module, module.training) for _, root in self.roots for module in root.modules()]
        try:
            for _, root in self.roots:
                root.eval()
            yield
        finally:
            for module, mode in before:
                module.training = mode


def _modules_around(function: Any) -> Iterator[tuple[str, Module]]:
    """The modules that a function sees, each with its name and a dot: that of its method, and those around it."""
    if not callable(function):
        raise make_error("TypeError", f"a {type(function).__name__} cannot be served: it is no module and no function")
    while isinstance(function, functools.partial):
        function = function.func
    owner = getattr(function, "__self__", None)
    function = inspect.unwrap(getattr(function, "__func__", function))
    if isinstance(owner, Module):
        yield "", owner
    code = getattr(function, "__code__", None)
    if code is None:
        return
    seen: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not filled yet
            seen[name] = cell.cell_contents
    seen |= {name: function.__globals__[name] for name in code.co_names if name in function.__globals__}
    for name, value in seen.items():
        if isinstance(value, Module):
            yield f"{name}.", value
