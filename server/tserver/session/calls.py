"""Typed RPCs as calls: builds the one call that a typed request is, and reads its result.

The values are built here so that a servicer method says only which operation it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_pb2 as pb
from tserver.errors import CallFailed, InvalidArgument

if TYPE_CHECKING:
    from tserver.engine.operations import Operation
    from tserver.session.session import Session


Operand = pb.Ref | pb.TensorData | None


class Calls:
    """Calls of one typed request, in order."""

    def __init__(self, session: Session, seq: int = 0, deadline: float | None = None) -> None:
        """They are not begun behind the deadline (time.monotonic), but with a seq."""
        self._session = session
        self._deadline = deadline
        self._batch = pb.Batch(seq=seq)
        self._operations: list[Operation | str] = []

    def add(self, operation: Operation | str, *args: Any, keep: bool = True, **kwargs: Any) -> Calls:
        """Append a call; a result that is a tensor is kept under an id that the server makes."""
        call = self._batch.calls.add(id=1 if keep else 0, operation=len(self._operations))
        self._operations.append(operation)
        for argument in args:
            fill(call.args.add(), argument)
        for name, argument in kwargs.items():
            entry = call.kwargs.add(name=name)
            fill(entry.value, argument)
        return self

    async def run(self) -> pb.BatchReply:
        """Run them. Raises CallFailed with the first error."""
        reply = await self._session.call(self._batch, self._operations, self._deadline)
        for result in reply.results:
            if result.WhichOneof("outcome") == "error":
                raise CallFailed(result.error)
        return reply

    async def tensor(self) -> pb.TensorMeta:
        """Run them, and return the description of the one tensor that was made."""
        reply = await self.run()
        return reply.results[0].value.tensor


def fill(value: pb.Value, argument: Any) -> None:
    """Set a value from a message of the contract or a plain Python value."""
    if isinstance(argument, pb.Ref):
        check_named(argument)
        value.ref.CopyFrom(argument)
    elif isinstance(argument, pb.Value):
        value.CopyFrom(argument)
    elif isinstance(argument, pb.TensorData):
        value.array.kind = pb.HostArray.KIND_TENSOR
        value.array.data.CopyFrom(argument)
    elif isinstance(argument, Dims):
        value.size.dims.extend(argument.dims)
        value.size.SetInParent()
    elif isinstance(argument, DTypeCode):
        value.dtype = argument.code
    elif isinstance(argument, DeviceName):
        value.device = argument.name
    elif argument is None:
        value.none.SetInParent()
    elif isinstance(argument, bool):
        value.boolean = argument
    elif isinstance(argument, int):
        value.integer = argument
    elif isinstance(argument, float):
        value.number = argument
    elif isinstance(argument, str):
        value.text = argument
    else:
        raise TypeError(f"{type(argument).__name__} is not a value of the contract")


class Dims:
    """Sizes or dimensions, as a typed request gives them."""

    def __init__(self, dims: Iterable[int]) -> None:
        self.dims = dims


class DTypeCode:
    """A dtype, by its code in the contract."""

    def __init__(self, code: pb.DType) -> None:
        self.code = code


class DeviceName:
    """A device, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name


def creation_kwargs(dtype: pb.DType, device: str, requires_grad: bool = False) -> dict[str, Any]:
    """The keyword arguments that factories share; those that were not given are left out."""
    kwargs: dict[str, Any] = {}
    if dtype:
        kwargs["dtype"] = DTypeCode(dtype)
    if device:
        kwargs["device"] = DeviceName(device)
    if requires_grad:
        kwargs["requires_grad"] = True
    return kwargs


def require(message: Any, field: str) -> Any:
    """A field that must be set. Raises: InvalidArgument."""
    if not message.HasField(field):
        raise InvalidArgument(f"{message.DESCRIPTOR.name}.{field} is not set")
    return getattr(message, field)


def scalar(message: Any, field: str) -> pb.Value:
    """A field that must be a number, a bool or a complex. Raises: InvalidArgument."""
    value: pb.Value = require(message, field)
    kind = value.WhichOneof("kind")
    if kind not in ("integer", "unsigned", "number", "boolean", "complex"):
        raise InvalidArgument(
            f"{message.DESCRIPTOR.name}.{field} is {kind or 'empty'}; it must be a number, bool or complex"
        )
    return value


def operand(message: Any, field: str, *, optional: bool = False) -> Operand:
    """A tensor of the session or one by value; None if it may be, and is, left out. Raises: InvalidArgument."""
    if optional and not message.HasField(field):
        return None
    return operand_of(require(message, field), f"{message.DESCRIPTOR.name}.{field}")


def operand_of(given: ms.Operand, what: str = "an Operand") -> pb.Ref | pb.TensorData:
    """What an operand is. Raises: InvalidArgument."""
    source = given.WhichOneof("source")
    if source is None:
        raise InvalidArgument(f"{what} is empty; set tensor or data")
    return given.tensor if source == "tensor" else given.data


def check_named(ref: pb.Ref) -> None:
    """Refuse a reference to nothing. Raises: InvalidArgument."""
    if not ref.id:
        raise InvalidArgument("a tensor is not named: its id is 0 or the field is not set")
