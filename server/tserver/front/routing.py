"""Whom a request names in its first message: a session, or a model. Nothing else of the message is looked at.

Where these stand is read from the contract: each request has a pruned message, which is like it but for the fields that
do not lead there. protobuf steps over those, and parses the others as it does in an engine. Knows no engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from tensorcompute.oip import inference_pb2
from tserver.front import binding

SERVICES = (*binding.SERVICES, inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"])
_PACKAGE = "tserver.routing"
_SECRET = "session"
# What a model and its version are called; a name beside no version may be that of anything.
_MODEL_NAMES = (("model_name", "model_version"), ("name", "version"), ("model_name", ""))

# Fields, each in the message of the one before.
Path = tuple[FieldDescriptor, ...]


class Named(NamedTuple):
    """Whom a request names; what it does not name is empty."""

    secret: bytes = b""
    model: str = ""
    # 0 leaves it to who serves the model, and stands for what is no number, which an engine refuses.
    version: int = 0


class Routing:
    """What is read of the first messages of one RPC."""

    def __init__(self, request: Descriptor) -> None:
        secrets = list(_secrets(request))
        many, name, version = _model(request)
        self._parse = _parser(request, [*secrets, *(path for path in (name, version) if path)])
        self._secrets = [_getter(path) for path in secrets]
        # Where the models are of a message that has many, and what each is called.
        self._many = _getter(many) if many else None
        self._name, self._version = (_getter(path[len(many) :]) if path else None for path in (name, version))

    def read(self, message: bytes) -> Named:
        """Whom it names. What is not a message of the RPC names nobody: an engine says what is wrong with it."""
        try:
            found = self._parse(message)
        except DecodeError:
            return Named()
        secret = next(filter(None, (find(found) for find in self._secrets)), b"")
        if self._many is not None:
            found = next(iter(self._many(found)), None)
        if self._name is None or found is None:
            return Named(secret)
        return Named(secret, self._name(found), 0 if self._version is None else _number(self._version(found)))

    def secret(self, message: bytes) -> bytes | None:
        """The secret of the session that it names."""
        return self.read(message).secret or None

    def model(self, message: bytes) -> tuple[str, int] | None:
        """The model that it names, and the version; the first one of those that have many."""
        named = self.read(message)
        return (named.model, named.version) if named.model else None


def _secrets(message: Descriptor, above: Path = ()) -> Iterator[Path]:
    """Where secrets are in a message."""
    for field in message.fields:
        path = (*above, field)
        if field.is_repeated:
            continue
        if field.name == _SECRET and field.type == FieldDescriptor.TYPE_BYTES:
            yield path
        elif field.message_type is not None and all(field.message_type is not one.containing_type for one in path):
            yield from _secrets(field.message_type, path)


def _model(request: Descriptor) -> tuple[Path, Path, Path]:
    """Where the models are if there are many, the name of one, and its version; empty for what there is not."""
    places: list[tuple[Path, Descriptor]] = [((), request)]
    places += [((one,), one.message_type) for one in request.fields if one.is_repeated and one.message_type is not None]
    for many, message in places:
        fields = message.fields_by_name
        for name, version in _MODEL_NAMES:
            if name in fields and (not version or version in fields):
                return many, (*many, fields[name]), (*many, fields[version]) if version else ()
    return (), (), ()


def _parser(request: Descriptor, paths: Sequence[Path]) -> Callable[[bytes], Any]:
    """What parses the pruned message that has these paths."""
    file = descriptor_pb2.FileDescriptorProto(name="pruned", package=_PACKAGE, syntax="proto3")
    name = _add_pruned(file, request, paths)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    parse: Callable[[bytes], Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName(name)).FromString
    return parse


def _add_pruned(file: descriptor_pb2.FileDescriptorProto, message: Descriptor, paths: Sequence[Path]) -> str:
    """Put the pruned form of a message into a file; its name."""
    pruned = file.message_type.add(name=f"M{len(file.message_type)}")
    kept: dict[str, list[Path]] = {}
    for path in paths:
        kept.setdefault(path[0].name, []).append(path[1:])
    # The last one of a oneof counts, so that none of it may be left out.
    oneofs = [oneof for oneof in message.oneofs if any(field.name in kept for field in oneof.fields)]
    pruned.oneof_decl.extend(descriptor_pb2.OneofDescriptorProto(name=oneof.name) for oneof in oneofs)
    for field in message.fields:
        oneof = field.containing_oneof
        if field.name not in kept and oneof not in oneofs:
            continue
        added = pruned.field.add(name=field.name, number=field.number, type=field.type)
        added.label = added.LABEL_REPEATED if field.is_repeated else added.LABEL_OPTIONAL
        if oneof is not None and oneof in oneofs:
            added.oneof_index = oneofs.index(oneof)
        if field.message_type is not None:
            if below := [path for path in kept.get(field.name, ()) if path]:
                added.type_name = f".{_add_pruned(file, field.message_type, below)}"
            else:
                # To protobuf a message within a message is bytes.
                added.type = added.TYPE_BYTES
        elif field.enum_type is not None:
            added.type = added.TYPE_INT32
    return f"{_PACKAGE}.{pruned.name}"


def _getter(path: Path) -> Callable[[Any], Any]:
    return attrgetter(".".join(field.name for field in path))


def _number(version: int | str) -> int:
    if isinstance(version, int):
        return version
    return int(version) if version.isascii() and version.isdecimal() and len(version) < 19 else 0


ROUTINGS: Mapping[str, Routing] = {
    f"/{service.full_name}/{method.name}": Routing(method.input_type)
    for service in SERVICES
    for method in service.methods
}
"""By the path of the RPC."""
