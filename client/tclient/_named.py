"""Tensors by name: what a session keeps whoever holds it, and what was left in it by somebody else.

`x.name = …` gives a name; `session.tensors()` and `session.name(module, …)` are here. Knows tensors and sessions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tclient._codec.dtypes import BY_CODE, dtype
from tclient._codec.size import Size
from tclient._codec.values import Scope, register
from tclient._exceptions import TensorTypeError, TensorValueError
from tclient._issue import call_builtin, dispatch, operation_named
from tclient._session.modes import MODES
from tclient._session.session import Session
from tclient._tensor import Tensor
from tclient._transport.channel import TENSOR_SERVICE
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as rpc

_PAGE = 1000


class _Left:
    """What somebody else has left in the session, by its name there."""

    def __init__(self, number: int, path: tuple[int, ...]) -> None:
        self.number, self.path = number, path


def _encode(value: _Left, scope: Scope) -> bytes:
    return pb.Value(ref=pb.Ref(id=value.number, path=value.path)).SerializeToString()


@dataclass(frozen=True)
class HeldTensor:
    """A tensor without a name that is in a session, and that nobody here holds."""

    id: int
    path: tuple[int, ...]
    shape: Size
    dtype: dtype
    device: str
    requires_grad: bool
    size_bytes: int
    _session: Session = field(repr=False)

    def take(self) -> Tensor:
        """The tensor; from then on it is there for as long as it is held here. Raises when it is read: KeyError for one
        that was taken or freed meanwhile.
        """
        with self._session.use():
            taken: Tensor = call_builtin("tc.same", _Left(self.id, self.path))
        self.free()
        return taken

    def free(self) -> None:
        """Let it go."""
        self._session.queue.drops.append((self.id, self.path) if self.path else self.id)
        if self._session.queue.dozing:
            self._session.queue.rouse()


class Tensors(dict[str, Tensor]):
    """The tensors of a session that have names, and in `others` what else was left in it."""

    others: tuple[HeldTensor, ...] = ()


def tensors(session: Session) -> Tensors:
    """See Session.tensors."""
    with session.use():
        found = Tensors({name: call_builtin("tc.named", name) for name in call_builtin("tc.names")})
    session.catch_up()
    found.others = tuple(_others(session))
    return found


def _others(session: Session) -> list[HeldTensor]:
    others: list[HeldTensor] = []
    token = ""
    while True:
        request = rpc.ListTensorsRequest(
            context=rpc.SessionContext(session=session.secret), page_size=_PAGE, page_token=token
        )
        page: rpc.ListTensorsResponse = session.channel.call(
            TENSOR_SERVICE + "ListTensors", request, rpc.ListTensorsResponse
        )
        named = {each.tensor.id for each in page.names}
        for told in page.tensors:
            number = told.id.id
            if number in named or told.HasField("same_as") or not session.is_of_others(number):
                continue
            kind = BY_CODE[told.dtype]
            shape = Size(told.shape)
            others.append(
                HeldTensor(
                    number,
                    tuple(told.id.path),
                    shape,
                    kind,
                    told.device,
                    told.requires_grad,
                    shape.numel() * kind.itemsize,
                    session,
                )
            )
        token = page.next_page_token
        if not token:
            return others


def name(session: Session, module: Any, prefix: str = "") -> None:
    """See Session.name."""
    if isinstance(module, Tensor):
        parts = {prefix: module}
    else:
        state = module.state_dict(keep_vars=True) if hasattr(module, "state_dict") else module
        parts = {f"{prefix}.{key}" if prefix else str(key): each for key, each in state.items()}
    for key, each in parts.items():
        if isinstance(each, Tensor):
            if each._ref.session is not session:
                raise TensorValueError(f"name: {key!r} is a tensor of another session, which has names of its own")
            set_name(each, key)


def set_name(tensor: Tensor, wanted: Any) -> None:
    """Give a tensor a name, or take it away with None."""
    if MODES.recorder is not None:
        raise MODES.recorder.refused("name", "names a tensor of the session")
    if wanted is not None and not isinstance(wanted, str):
        raise TensorTypeError(f"the name of a tensor must be a str or None, not {type(wanted).__name__}")
    if wanted == "":
        raise TensorValueError("the name of a tensor has at least one character; None takes it away")
    tensor._ref.session.has_names = True
    dispatch(_NAME, (tensor, wanted), None)


def name_of(tensor: Tensor) -> str | None:
    """The name that a tensor has. Waits, where names were given in its session; as in torch it is None without."""
    if not tensor._ref.session.has_names or MODES.recorder is not None:
        return None
    found: str | None = call_builtin("tc.name_of", tensor)
    return found


register(_Left, _encode)
_NAME = operation_named("tc.name")
