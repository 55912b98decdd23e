"""A network as it runs once: the calls that it makes, where it makes them, and what it must not do to be served.

Knows how calls are recorded; does not know which sizes may vary.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from tclient._caller import HERE
from tclient._codec.dtypes import dtype
from tclient._codec.operations import TABLE, Operation
from tclient._codec.overloads import written
from tclient._exceptions import TensorError
from tclient._issue import dispatch, operation_named
from tclient._recording import Recorder, handles_in
from tclient._session.handles import Handle
from tclient._session.modes import MODES, _Mode
from tclient._session.session import Session
from tclient._tensor import Tensor
from tclient.models._network import Network, not_servable
from tensorcompute.v1 import tensor_pb2 as pb

# What tells of a tensor what its elements do not decide.
_OF_TENSORS = """size stride dim ndimension numel nelement element_size is_contiguous is_floating_point is_complex
    is_signed is_conj is_neg get_device is_same_size storage_offset dim_order is_inference __len__ is_leaf.__get__
    is_quantized.__get__ is_meta.__get__ is_sparse.__get__ requires_grad.__get__ itemsize.__get__ nbytes.__get__
    ndim.__get__ shape.__get__ dtype.__get__ device.__get__ layout.__get__ is_cuda.__get__ is_cpu.__get__"""
_OF_FUNCTIONS = """broadcast_shapes can_cast get_default_dtype is_complex is_conj is_floating_point is_neg is_same_size
    is_signed numel promote_types result_type get_device nn.init.calculate_gain"""
_OF_METADATA = frozenset([f"Tensor.{name}" for name in _OF_TENSORS.split()]) | frozenset(_OF_FUNCTIONS.split())
_OF_GRADIENTS = frozenset({"autograd.grad", "Tensor.grad.__get__", "Tensor.grad.__set__", "Tensor.retain_grad"})
_OF_AUTOGRAD = frozenset({"Tensor.requires_grad_", "Tensor.requires_grad.__set__"})
# Our own operations that compute as torch's do.
_OF_OURS = frozenset({"tc.constructed"})
# Data of the caller's that stands in a call, and so in every run.
_MOST_BYTES = 1 << 16
_GET_STATE, _SET_STATE = TABLE["get_rng_state"], TABLE["set_rng_state"]
_STORAGES = operation_named("tc.storages")


class Site(NamedTuple):
    """Where a call was made: the caller's line, and the layer."""

    filename: str
    lineno: int
    layer: str

    def __str__(self) -> str:
        return f"{self.filename}:{self.lineno}" + (f", in {self.layer}" if self.layer else "")


class WritesToInput(BaseException):
    """The network writes to inputs: it is to be recorded on copies. No code of the caller's shall catch this."""


class plain_modes(_Mode):
    """Within it neither gradients nor autocasts of the caller's are on."""

    def _apply(self) -> None:
        MODES.grad, MODES.inference, MODES.autocasts = False, False, {}


@dataclass(frozen=True)
class Output:
    """An output as it was recorded."""

    name: str
    shape: tuple[int, ...]
    dtype: dtype
    tensor: Tensor


@dataclass(frozen=True)
class Sample:
    """A network as it ran at some sizes."""

    sizes: Mapping[str, int]
    program: pb.Program
    sites: list[Site]
    # What it reads besides its inputs.
    weights: list[Tensor]
    outputs: list[Output]


class ModelRecorder(Recorder):
    """The operations of a network that is to be served."""

    allowed_reads: ClassVar[frozenset[str]] = _OF_METADATA
    has_gradients: ClassVar[bool] = False
    has_networks: ClassVar[bool] = False

    def __init__(self, session: Session, inputs: Sequence[Tensor], network: Network) -> None:
        super().__init__(session, list(inputs))
        self.sites: list[Site] = []
        self._network = network
        self._given = len(inputs)
        # Memory that the network must not write to, and whose it is; so many of the inputs are in it.
        self._others: dict[int, str] = {}
        self._known = 0

    def check(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> None:
        """See Recorder."""
        super().check(operation, args, kwargs)
        name, entry = operation.name, operation.entry
        if name in _OF_GRADIENTS:
            raise self.refused(name, "is about gradients")
        if entry.get("state") or operation.returns == "object":
            raise self.refused(name, "changes the session")
        if entry.get("kind") == "builtin" and name not in _OF_OURS:
            raise self.refused(name, "is more than an operation on tensors")
        for handle in handles_in([args, kwargs or {}]):
            if not isinstance(handle, Tensor):
                raise self.refused(name, f"takes a {type(handle).__name__}")
        targets = [*written(entry, args, kwargs or {}), (kwargs or {}).get("out")]
        tensors = [each for each in handles_in(targets) if isinstance(each, Tensor)]
        if tensors:
            self._check_targets(name, tensors)

    def dispatch(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
        """See Recorder."""
        if operation.name in _OF_AUTOGRAD:
            # There are no gradients that this could be about.
            return self._apart(operation, args, kwargs)
        is_random = bool(operation.entry.get("random"))
        before = self._random_state() if is_random else None
        count = len(self._calls)
        result = super().dispatch(operation, args, kwargs)
        if before is not None and self._random_state()[1] != before[1]:
            self._apart(_SET_STATE, (before[0],))
            raise self.refused(operation.name, "draws random numbers")
        if len(self._calls) > count:
            self.sites.append(self._site())
            if (size := self._calls[-1][0].ByteSize()) > _MOST_BYTES:
                raise self.refused(
                    operation.name, f"takes {size} bytes of this process's data; make a buffer of the module of it"
                )
        return result

    def refused(self, name: str, what: str) -> TensorError:
        """See Recorder."""
        site = self._site()
        return not_servable(
            f"{self._network.label} cannot be served: `{name}` {what}, at {site}", name, (site.filename, site.lineno)
        )

    def forget_failures(self) -> None:
        """What failed besides is not told of later: the network is known not to run."""
        for _ in range(len(self._alive) + 1):
            try:
                self.session.synchronize()
                break
            except TensorError:
                if self.session.dead is not None:
                    return
        for _, _, result in self._alive:
            for handle in handles_in(result):
                if handle._ref.call is not None:
                    with contextlib.suppress(TensorError):
                        self.session.waiters.outcome(handle._ref.call)

    def _apart(self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """A call that is not recorded."""
        MODES.recorder = None
        try:
            return dispatch(operation, args, kwargs)
        finally:
            MODES.recorder = self

    def _random_state(self) -> tuple[Tensor, bytes]:
        state = self._apart(_GET_STATE, ())
        MODES.recorder = None
        try:
            return state, state.numpy().tobytes()
        finally:
            MODES.recorder = self

    def _check_targets(self, name: str, targets: list[Tensor]) -> None:
        """Raises: an error, or WritesToInput, where a call writes to memory that is not the network's own."""
        for target in targets:
            self.input_number(target)
        new = self.inputs[self._known :]
        first = not self._known
        named = {**(self._weights() if first else {}), **self._labels(new)}
        self._known = len(self.inputs)
        told = self._apart(_STORAGES, ([*targets, *(tensor for tensor, _ in named.values())],))
        for (_, label), (address, *_) in zip(named.values(), told[len(targets) :], strict=True):
            if address:
                self._others.setdefault(address, label)
        for address, *_ in told[: len(targets)]:
            if address not in self._others:
                continue
            if not self._others[address]:
                raise WritesToInput
            raise self.refused(name, f"writes to {self._others[address]}")

    def _weights(self) -> dict[int, tuple[Any, str]]:
        return {id(tensor): (tensor, name) for name, tensor in self._network.tensors()}

    def _labels(self, inputs: Sequence[Handle]) -> dict[int, tuple[Any, str]]:
        """Things from the outside, and what to call them; an input of the network has no name here."""
        found = {}
        for number, handle in enumerate(inputs, self._known):
            ref = handle._ref
            label = self._network.weights.get((ref.id, ref.path), "a tensor that was made outside")
            found[id(handle)] = (handle, "" if number < self._given else label)
        return found

    def _site(self) -> Site:
        """The caller's line, and the innermost module of the network that runs."""
        frame = sys._getframe(1)
        where: tuple[str, int] | None = None
        layer = ""
        while frame.f_code is not _RECORD:
            code = frame.f_code
            if where is None and not code.co_filename.startswith(HERE):
                where = code.co_filename, frame.f_lineno
            if not layer and code.co_argcount:
                layer = self._network.layers.get(id(frame.f_locals.get(code.co_varnames[0])), "")
            if where is not None and layer:
                break
            assert frame.f_back is not None
            frame = frame.f_back
        while where is None:
            # Layers of our own alone: the line is that which asks for the model.
            if not frame.f_code.co_filename.startswith(HERE) or frame.f_back is None:
                where = frame.f_code.co_filename, frame.f_lineno
            else:
                frame = frame.f_back
        return Site(*where, layer)


def record(
    network: Network,
    session: Session,
    sizes: Mapping[str, int],
    inputs: Sequence[Tensor],
    keywords: Mapping[str, int] | None,
    copied: bool = False,
) -> Sample:
    """The calls of the network on these inputs; with `copied`, on copies of them, which are calls too.

    Raises: an error of `not_servable` for what cannot be served; whatever the network itself raises.
    """
    recorder = ModelRecorder(session, inputs, network)

    def run() -> list[tuple[str, Tensor]]:
        given = [tensor.clone() for tensor in inputs] if copied else inputs
        named = outputs_of(network.call(given, keywords), network)
        # Who gets an output may write to it.
        return [(name, each if recorder.input_number(each) is None else each.clone()) for name, each in named]

    try:
        named = recorder.run(run)
    except WritesToInput:
        return record(network, session, sizes, inputs, keywords, copied=True)
    except BaseException:
        recorder.forget_failures()
        raise
    tensors = [tensor for _, tensor in named]
    recorder.finish(list(tensors))
    try:
        outputs = [Output(name, tuple(tensor.shape), tensor.dtype, tensor) for name, tensor in named]
    except TensorError:
        recorder.forget_failures()
        raise
    weights = [handle for handle in recorder.inputs[len(inputs) :] if isinstance(handle, Tensor)]
    return Sample(dict(sizes), recorder.program, recorder.sites, weights, outputs)


_RECORD = record.__code__


def outputs_of(result: Any, network: Network) -> list[tuple[str, Tensor]]:
    """The tensors of a result, with their names. Raises: an error of `not_servable`.

    They are the keys of a dict and the fields of a named tuple; for one tensor the name that the network says, or
    "output"; else output_0, output_1 and so on, in order. What is within is numbered behind the name that it is within.
    None is no output.
    """
    found: list[tuple[str, Tensor]] = []
    if isinstance(result, (tuple, list)) and not hasattr(result, "_fields") and not hasattr(result, "_field_names"):
        tensors: list[tuple[str, Tensor]] = []
        _collect("", result, tensors, network)
        found = [(f"output_{number}", tensor) for number, (_, tensor) in enumerate(tensors)]
        if len(found) == 1:
            found = [("output", found[0][1])]
    else:
        _collect("", result, found, network)
        told = network.described("outputs")
        if isinstance(result, Tensor) and len(told) == 1:
            found = [(told[0].name, result)]
    if not found:
        raise not_servable(f"{network.label} cannot be served: it returns no tensor, but {_shown(result)}")
    names = [name for name, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise not_servable(f"{network.label} cannot be served: two outputs have the name {name!r}")
    return found


def _collect(name: str, value: Any, found: list[tuple[str, Tensor]], network: Network) -> None:
    fields = getattr(value, "_fields", None) or getattr(value, "_field_names", None)
    if fields is None and hasattr(value, "__dataclass_fields__"):
        fields = tuple(value.__dataclass_fields__)
        value = tuple(getattr(value, field) for field in fields)
    before = f"{name}_" if name else ""
    if value is None:
        return
    if isinstance(value, Tensor):
        found.append((name or "output", value))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect(f"{before}{key}", item, found, network)
    elif isinstance(value, (tuple, list)):
        for key, item in zip(fields or map(str, range(len(value))), value, strict=True):
            _collect(f"{before}{key}", item, found, network)
    else:
        raise not_servable(
            f"{network.label} cannot be served: it returns {_shown(value)}{f' as {name}' if name else ''}, which is no "
            "tensor; make it one, or leave it out"
        )


def _shown(value: Any) -> str:
    return f"the {type(value).__name__} {value!r}"[:80]
