"""The functions, methods and properties that the table of operations gives: torch's names, made at import.

One closure for each entry; what a hand-written module defines already is left as it is. Knows no sessions.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tclient import _left_out
from tclient._codec.device import DEFAULT
from tclient._codec.dtypes import BY_NUMPY
from tclient._codec.operations import TABLE, Operation
from tclient._help import Declaration, documentation
from tclient._issue import dispatch, dispatch_any, issue_backward
from tclient._native import quick_operator
from tclient._session.handles import WRAPPERS, RemoteObject
from tclient._tensor import Tensor

# What torch's binary operators take on the right, beside tensors. To anything else they answer NotImplemented, and
# Python asks the other side: that is how `x + ndarray` becomes numpy's, and `x == "a"` False.
_NUMBERS = (np.number, np.bool_)
# Of numpy's scalars torch's operators see a float in these.
_AS_FLOAT = (np.bool_, np.complex64)
_ARITHMETIC = ["add", "sub", "mul", "truediv", "div", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift"]
_NUMERIC_DUNDERS = frozenset(f"__{prefix}{name}__" for name in _ARITHMETIC for prefix in ("", "r", "i")) | frozenset(
    f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge")
)
_TENSOR_DUNDERS = frozenset({"__matmul__", "__rmatmul__", "__imatmul__"})
# What makes a tensor of nothing that has a place already; `with device(...)` says where.
_FACTORIES = frozenset(
    (
        *("arange", "as_tensor", "asarray", "bartlett_window", "blackman_window", "empty", "empty_permuted"),
        *("empty_strided", "eye", "fft.fftfreq", "fft.rfftfreq", "full", "hamming_window", "hann_window"),
        *("kaiser_window", "linspace", "logspace", "ones", "rand", "randint", "randn", "randperm", "range"),
        *("scalar_tensor", "sparse_coo_tensor", "tensor", "tril_indices", "triu_indices", "zeros"),
    )
)
_BACKWARD = frozenset({"Tensor.backward", "autograd.backward", "autograd.grad"})
_DIVIDED_BY = frozenset({"__rtruediv__", "__rdiv__"})


def _name(function: Any, operation: Operation, owner: str) -> Any:
    room, _, short = operation.name.rpartition(".")
    function.__name__ = short
    function.__qualname__ = f"{owner}.{short}" if owner else short
    function.__doc__ = documentation(operation)
    function.__wrapped__ = Declaration(operation)
    function.__module__ = f"tclient.{room}" if room and not owner else "tclient"
    return function


def make_function(operation: Operation) -> Callable[..., Any]:
    """A function of a module."""

    if operation.name in _BACKWARD:

        def function(*args: Any, **kwargs: Any) -> Any:
            return issue_backward(operation, args, kwargs)

    elif operation.name in _FACTORIES:

        def function(*args: Any, **kwargs: Any) -> Any:
            if DEFAULT.place is not None and kwargs.get("device") is None:
                kwargs["device"] = DEFAULT.place
            return dispatch(operation, args, kwargs)

    else:

        def function(*args: Any, **kwargs: Any) -> Any:
            return dispatch(operation, args, kwargs)

    return _name(function, operation, "")  # type: ignore[no-any-return]


def make_method(operation: Operation, owner: str = "Tensor") -> Callable[..., Any]:
    """A method, or one of Python's operators."""
    short = operation.name.rpartition(".")[2]
    if short in _NUMERIC_DUNDERS:
        return _name(_numeric(operation, short), operation, owner)  # type: ignore[no-any-return]
    if short in _TENSOR_DUNDERS:
        return _name(_between_tensors(operation), operation, owner)  # type: ignore[no-any-return]

    issue = issue_backward if operation.name in _BACKWARD else dispatch

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return issue(operation, (self, *args), kwargs)

    if operation.name == "Tensor.to":
        method = _to(operation)
    return _name(method, operation, owner)  # type: ignore[no-any-return]


def _to(operation: Operation) -> Callable[..., Any]:
    """torch's own, and with `session` the tensor of another session."""

    def to(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "session" in kwargs:
            from tclient._moving import moved_to  # here, as few programs have two sessions

            return moved_to(self, *args, **kwargs)
        return dispatch(operation, (self, *args), kwargs)

    return to


def _is_torch_tensor(value: Any) -> bool:
    kind = type(value)
    return kind.__module__ == "torch" and kind.__name__ in ("Tensor", "Parameter")


def _numeric(operation: Operation, short: str) -> Callable[[Any, Any], Any]:
    tensor_class = Tensor
    takes_arrays = short == "__eq__"
    divides = short in _DIVIDED_BY

    def operator(self: Any, other: Any) -> Any:
        kind = other.__class__
        if (
            kind is tensor_class
            or kind is float
            or kind is int
            or isinstance(other, (tensor_class, int, float, complex))
        ):
            return dispatch_any(operation, (self, other), None)
        if divides and isinstance(other, (np.ndarray, np.generic)):
            # As torch has it, in Python.
            try:
                return self.reciprocal() * other
            except TypeError:
                return NotImplemented
        if isinstance(other, np.generic):
            if not isinstance(other, _NUMBERS) or _is_no_number(other):
                return NotImplemented
            return dispatch(operation, (self, float(other.real) if isinstance(other, _AS_FLOAT) else other), None)
        if (
            takes_arrays and isinstance(other, np.ndarray) and other.dtype.newbyteorder("=") in BY_NUMPY
        ) or _is_torch_tensor(other):
            return dispatch_any(operation, (self, other), None)
        return NotImplemented

    return quick_operator(operation, operator, True)


def _is_no_number(value: np.generic) -> bool:
    """Whether it is a number to numpy, and to torch none, or one that is too large."""
    return isinstance(value, np.timedelta64) or (isinstance(value, np.uint64) and int(value) >= 1 << 63)


def _between_tensors(operation: Operation) -> Callable[[Any, Any], Any]:
    tensor_class = Tensor

    def operator(self: Any, other: Any) -> Any:
        if isinstance(other, tensor_class) or _is_torch_tensor(other):
            return dispatch_any(operation, (self, other), None)
        return NotImplemented

    return quick_operator(operation, operator, False)


def make_property(getter: Operation | None, setter: Operation | None, name: str) -> property:
    """A property, of its two operations."""

    known = getter or setter
    assert known is not None

    def get(self: Any) -> Any:
        if getter is None:
            raise AttributeError(f"attribute '{name}' cannot be read")
        return dispatch(getter, (self,), None)

    def put(self: Any, value: Any) -> None:
        assert setter is not None
        dispatch(setter, (self, value), None)

    return property(get, put if setter is not None else None, doc=documentation(known))


def functions(prefix: str = "") -> dict[str, Callable[..., Any]]:
    """The functions right under a dotted path: "" for torch's own, "linalg." for torch.linalg."""
    found = {}
    for name, operation in TABLE.items():
        if operation.entry["kind"] == "function" and name.startswith(prefix):
            short = name[len(prefix) :]
            if "." not in short:
                found[short] = make_function(operation)
    return found


def fill(owner: type[Any], prefix: str) -> None:
    """Give a class the methods and properties of the table that it does not define itself."""
    defined = vars(owner)
    accessors: dict[str, dict[str, Operation]] = {}
    for name, operation in list(TABLE.items()):
        if not name.startswith(prefix):
            continue
        short, _, accessor = name[len(prefix) :].partition(".")
        if accessor:
            accessors.setdefault(short, {})[accessor] = operation
        elif operation.entry["kind"] == "method" and short not in defined:
            setattr(owner, short, make_method(operation, owner.__name__))
    for short, pair in accessors.items():
        if short not in defined:
            setattr(owner, short, make_property(pair.get("__get__"), pair.get("__set__"), short))


def _public(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]


def missing(module: str, name: str, names: Iterable[str]) -> NoReturn:
    """The error for a name that a module does not have, with the nearest that it has."""
    why = _left_out.reason(f"{module}.{name}".removeprefix("tclient."))
    near = [] if name.startswith("_") or why else difflib.get_close_matches(name, _public(names), 3)
    hint = f": {why}" if why else f"; nearest: {', '.join(near)}" if near else ""
    raise AttributeError(f"module '{module}' has no attribute '{name}'{hint}", name=name)


if TYPE_CHECKING:
    from tclient._stubs.methods import GeneratorMethods as _GeneratorBase
else:
    _GeneratorBase = RemoteObject


class Generator(_GeneratorBase):
    """A source of random numbers on the server: `Generator()`, `Generator(device="cuda")`."""

    __slots__ = ()

    def __new__(cls, device: Any = None) -> Any:
        return dispatch(TABLE["Generator"], (), None if device is None else {"device": device})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = memo[id(self)] = self.clone_state()
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _generator_of, (str(self.device), self.get_state())

    def __repr__(self) -> str:
        return f"<tclient.Generator on {self._ref.session.address}>"


def _generator_of(place: str, state: Tensor) -> Generator:
    made: Generator = Generator(place)
    made.set_state(state)
    return made


fill(Tensor, "Tensor.")
fill(Generator, "Generator.")
WRAPPERS["Generator"] = Generator
