"""What the audit log is told of requests: made of what passes the interceptor, once for each RPC.

A stream has two lines, at its first message and at its end; messages between them are only counted. What one process
of a house has forwarded to another is told of by the first alone. Knows no servicer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from tserver import audit
from tserver.front import status
from tserver.front.authentication import Authenticator, host_of
from tserver.front.routing import ROUTINGS, SERVICES
from tserver.front.rpc import Behaviour, Context, Rpc, identified
from tserver.front.rpc_counts import size_of
from tserver.identity import Identity
from tserver.session.secret import id_of

# Of a larger request only the session and the model are looked for.
_MAX_PARSED_BYTES = 64 << 10


def audited(
    log: audit.Audit,
    path: str,
    behaviour: Behaviour,
    seen: Callable[[Context], Any],
    authenticator: Authenticator,
    codes: status.Codes,
) -> Behaviour:
    """The behaviour of an RPC, given what `seen` makes of gRPC's context; what comes of it is told to the log."""

    async def asked(argument: Any, context: Context) -> Any:
        line = _Line(log, path)
        is_told, identity, code, reason = True, None, "OK", ""
        try:
            rpc = seen(context)
            if isinstance(rpc, Rpc):
                identity, is_told = rpc.identity, not rpc.is_of_house
                if not isinstance(argument, bytes) and is_told:
                    line.follow(rpc, identity)
            else:
                identity = identified(context, authenticator)
            if isinstance(argument, bytes | Message):
                line.take(argument)
            response = await behaviour(argument, rpc)
            if response is not None:
                line.bytes_out += size_of(response)
            return response
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            code, reason, _ = status.told_of(error, codes)
            raise
        finally:
            if is_told:
                line.end(identity, host_of(str(context.peer())), code, reason)

    return asked


class _Line:
    """What is known of one RPC so far."""

    __slots__ = ("_began", "_log", "_named", "_path", "bytes_in", "bytes_out")

    def __init__(self, log: audit.Audit, path: str) -> None:
        self._log, self._path = log, path
        self._began = time.perf_counter()
        self._named: dict[str, str] = {}
        self.bytes_in = self.bytes_out = 0

    def take(self, message: bytes | Message) -> None:
        """The only request, or the first one: whom it names."""
        self.bytes_in += size_of(message)
        data = message if isinstance(message, bytes) else message.SerializeToString()
        if (routing := ROUTINGS.get(self._path)) is not None:
            found = routing.read(data)
            self._named = {"session": id_of(found.secret) if found.secret else "", "model": found.model}
            if not found.model and len(data) <= _MAX_PARSED_BYTES and (kind := _NAMED.get(self._path)) is not None:
                with contextlib.suppress(DecodeError):
                    self._named["name"] = kind.FromString(data).name  # type: ignore[attr-defined]

    def follow(self, rpc: Rpc, identity: Identity) -> None:
        """Count the messages of a stream, and tell of it as soon as the first one says whose it is."""
        read, write = rpc.read, rpc.write
        is_first = True

        async def reading() -> Any:
            nonlocal is_first
            message = await read()
            if message is grpc.aio.EOF:
                return message
            if is_first:
                is_first = False
                self.take(message)
                self._log.add(f"{self._path} begins", identity, "", **self._named)
            else:
                self.bytes_in += len(message)
            return message

        async def writing(message: bytes) -> None:
            self.bytes_out += len(message)
            await write(message)

        rpc.read, rpc.write = reading, writing

    def end(self, identity: Identity | None, host: str, code: str, reason: str) -> None:
        """The RPC has ended."""
        self._log.add(
            self._path,
            identity,
            host,
            **self._named,
            outcome=code,
            reason=reason,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            seconds=round(time.perf_counter() - self._began, 6),
        )


# The requests that name something beside a session or a model: what is kept, a region, a program.
_NAMED: Mapping[str, type[Message]] = {
    f"/{service.full_name}/{method.name}": message_factory.GetMessageClass(method.input_type)
    for service in SERVICES
    for method in service.methods
    if (field := method.input_type.fields_by_name.get("name")) is not None
    and field.type == FieldDescriptor.TYPE_STRING
    and not field.is_repeated
}
