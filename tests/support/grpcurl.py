"""What the documents call of grpcurl, for machines without it: neither PyPI nor npm has that program, which is in Go.

As the program does, it asks the server what its methods are, with the headers that it was given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

_TIMEOUT_S = 20.0
_FAILED = 64  # and the number of the status, as grpcurl has it


class _Headers(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Sends them with every RPC."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self._headers = headers

    def _with_them(self, details: Any) -> Any:
        return details._replace(metadata=self._headers)

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(self._with_them(details), request)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Iterator[Any]) -> Any:
        return continuation(self._with_them(details), requests)


def main() -> int:
    """Call a method, and print what it answers."""
    parser = argparse.ArgumentParser("grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true")
    parser.add_argument("-cacert", type=Path)
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data", default="{}")
    parser.add_argument("address")
    parser.add_argument("method")
    given = parser.parse_args()
    channel = (
        grpc.insecure_channel(given.address)
        if given.plaintext
        else grpc.secure_channel(
            given.address, grpc.ssl_channel_credentials(given.cacert and given.cacert.read_bytes())
        )
    )
    headers = [(name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in given.headers)]
    asked = grpc.intercept_channel(channel, _Headers(headers))
    service, _, name = given.method.rpartition("/")
    try:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(asked))
        method = pool.FindServiceByName(service).FindMethodByName(name)
        answer = GetMessageClass(method.output_type)
        call: Any = asked.unary_unary(f"/{given.method}", lambda each: each.SerializeToString(), answer.FromString)
        request = json_format.Parse(given.data, GetMessageClass(method.input_type)(), descriptor_pool=pool)
        print(json_format.MessageToJson(call(request, timeout=_TIMEOUT_S), descriptor_pool=pool))
    except grpc.RpcError as error:
        told: Any = error
        print(f"ERROR:\n  Code: {told.code().name}\n  Message: {told.details()}", file=sys.stderr)
        return _FAILED + int(told.code().value[0])
    return 0


def path_with_it(folder: Path) -> str:
    """A PATH that has the program, if it must be as this one, which is put into the folder."""
    if shutil.which("grpcurl") is None:
        program = folder / "grpcurl"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n')
        program.chmod(0o755)
    return os.pathsep.join((str(folder), os.environ["PATH"]))


if __name__ == "__main__":
    sys.exit(main())
