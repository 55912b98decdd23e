"""The reference of the RPCs, made of the protos and the comments in them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb
from grpc_tools import protoc

_SERVICE, _MESSAGE, _ENUM, _METHOD, _FIELD, _VALUE, _NESTED = 6, 4, 5, 2, 2, 2, 3
"""Numbers of fields in google/protobuf/descriptor.proto, of which the paths to comments are made."""

_SCALARS = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in pb.FieldDescriptorProto.Type.items()
    if name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


def reference(protos: Path) -> str:
    """A page of all services of the contract, and of the messages that they take and give."""
    files = _parsed(protos)
    parts = [
        "# RPCs\n\nMade of the files in `proto/tensorcompute/v1` and the comments in them. "
        "[The contract](../contract.md) tells how they go together.\n"
    ]
    for file in files:
        comments = _comments(file)
        for at, service in enumerate(file.service):
            parts += _service(file, service, (_SERVICE, at), comments)
    parts.append("\n# Messages\n")
    for file in files:
        comments = _comments(file)
        for at, message in enumerate(file.message_type):
            parts += _message(message, (_MESSAGE, at), comments)
        for at, enum in enumerate(file.enum_type):
            parts += _enum(enum, (_ENUM, at), comments)
    return "\n".join(parts) + "\n"


def _parsed(protos: Path) -> list[pb.FileDescriptorProto]:
    """The files of the contract, with their comments."""
    names = sorted(each.relative_to(protos).as_posix() for each in protos.glob("tensorcompute/v1/*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        known = resources.files("grpc_tools") / "_proto"
        status = protoc.main(
            ["protoc", f"-I{protos}", f"-I{known}", f"--descriptor_set_out={out}", "--include_source_info", *names]
        )
        if status:
            raise RuntimeError(f"protoc ended with {status}")
        return list(pb.FileDescriptorSet.FromString(out.read_bytes()).file)


def _comments(file: pb.FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(place.path): (place.leading_comments or place.trailing_comments)
        for place in file.source_code_info.location
        if place.leading_comments or place.trailing_comments
    }


def _text(comment: str) -> str:
    """A comment as a page has it: indented lines, such as those of errors, are a block."""
    paragraphs = re.sub(r"^ ", "", comment, flags=re.MULTILINE).rstrip().split("\n\n")
    return "\n\n".join(_paragraph(each) for each in paragraphs)


def _paragraph(text: str) -> str:
    first, _, rest = text.partition("\n")
    if first.endswith(":") and rest.startswith(" "):
        return f"{first}\n\n```text\n{_dedented(rest)}\n```"
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("[", "\\[")


def _dedented(text: str) -> str:
    return re.sub(r"^  ", "", text, flags=re.MULTILINE).rstrip()


def _service(
    file: pb.FileDescriptorProto,
    service: pb.ServiceDescriptorProto,
    path: tuple[int, ...],
    comments: dict[tuple[int, ...], str],
) -> Iterator[str]:
    yield f"\n## {file.package}.{service.name}\n\n{_text(comments.get(path, ''))}\n"
    for at, method in enumerate(service.method):
        takes = ("stream " if method.client_streaming else "") + _link(method.input_type)
        gives = ("stream " if method.server_streaming else "") + _link(method.output_type)
        yield f"### {method.name}\n\n{takes} → {gives}\n\n{_text(comments.get((*path, _METHOD, at), ''))}\n"


def _message(
    message: pb.DescriptorProto, path: tuple[int, ...], comments: dict[tuple[int, ...], str], within: str = ""
) -> Iterator[str]:
    if message.options.map_entry:
        return
    name = within + message.name
    yield f"\n## {name}\n\n{_text(comments.get(path, ''))}\n"
    if message.field:
        yield "| field | type | |\n|---|---|---|"
    entries = {each.name: each for each in message.nested_type if each.options.map_entry}
    for at, field in enumerate(message.field):
        comment = " ".join(_text(comments.get((*path, _FIELD, at), "")).split()).replace("|", "\\|")
        yield f"| `{field.name}` = {field.number} | {_type(field, entries)} | {comment} |"
    for at, nested in enumerate(message.nested_type):
        yield from _message(nested, (*path, _NESTED, at), comments, f"{name}.")
    for at, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*path, 4, at), comments, f"{name}.")


def _enum(
    enum: pb.EnumDescriptorProto, path: tuple[int, ...], comments: dict[tuple[int, ...], str], within: str = ""
) -> Iterator[str]:
    yield f"\n## {within}{enum.name}\n\n{_text(comments.get(path, ''))}\n\n| value | |\n|---|---|"
    for at, value in enumerate(enum.value):
        comment = " ".join(_text(comments.get((*path, _VALUE, at), "")).split()).replace("|", "\\|")
        yield f"| `{value.name}` = {value.number} | {comment} |"


def _type(field: pb.FieldDescriptorProto, entries: dict[str, pb.DescriptorProto]) -> str:
    entry = entries.get(field.type_name.rsplit(".", 1)[-1])
    if entry is not None:
        return f"map of {_type(entry.field[0], {})} to {_type(entry.field[1], {})}"
    name = _SCALARS.get(field.type) or _link(field.type_name)
    return f"repeated {name}" if field.label == field.LABEL_REPEATED else name


def _link(full_name: str) -> str:
    name = full_name.removeprefix(".")
    if not name.startswith("tensorcompute.v1."):
        return f"`{name}`"
    short = name.removeprefix("tensorcompute.v1.")
    return f"[{short}](#{short.lower().replace('.', '')})"
