"""Secrets stay where they belong: in no log, error, metric or audit line, nor where `ps` and /proc show them.

All that is secret is used on a server that logs what it can, and used wrongly too; then it is looked for, in each form
in which a program is likely to write it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import ssl
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_encoding
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import tclient
from tensorcompute.v1 import tensor_pb2 as pb
from tensorcompute.v1 import tensor_service_pb2 as ts
from tests.support.authority import Authority
from tests.support.callers import TENSORS, Caller, bearer, token_of
from tests.support.listeners import listener
from tests.support.raw import METHODS, path_of
from tests.support.serving import ServerProcess, children_of, serving
from tserver.credentials import tokens

UNKNOWN = "tcs_UnknownTokenUnknownTokenUnknownTokenUnknown"
CONTENTS = b"contents of a tensor, which are nobody's business "
PORTS = ("oip", "http", "metrics")
_SECRET_FIELDS = ("session", "ticket", "key")


class Used:
    """A server on which all of them have been used, what it answered, and what they were."""

    def __init__(self, server: ServerProcess, folder: Path, authority: Authority) -> None:
        self.server, self.folder, self.authority = server, folder, authority
        self.secrets: dict[str, bytes] = {}
        self.errors: list[str] = []
        file = folder / tokens.NAME
        self.admin, self.ada, self.eve = (token_of(file, *who) for who in (("root", "admin"), ("ada",), ("eve",)))
        for name, token in (("admin", self.admin), ("ada", self.ada), ("eve", self.eve), ("unknown", UNKNOWN)):
            self.secrets[f"the token of {name}"] = token.encode()
        for known in tokens.listed(file):
            self.secrets[f"what is kept of the token of {known.principal}"] = known.sha256.encode()
        self.trusted = grpc.ssl_channel_credentials(authority.pem.read_bytes())

    def https(self, port: str, path: str, authorization: str = "", body: bytes | None = None) -> str:
        """What is answered, also where it is a refusal."""
        context = ssl.create_default_context(cafile=str(self.authority.pem))
        headers = {"Authorization": authorization} if authorization else {}
        asked = urllib.request.Request(f"https://{listener(self.server, port)}{path}", body, headers)
        try:
            with urllib.request.urlopen(asked, timeout=10.0, context=context) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return f"{error.headers}{error.read().decode()}"

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What is done in here fails."""
        with pytest.raises((tclient.TensorError, ValueError, OSError)) as error:
            yield
        self.errors.append("".join(traceback.format_exception(error.value)))


@pytest.fixture(scope="module", params=["one server", "a house"])
def used(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Used]:
    folder = tmp_path_factory.mktemp("secrets")
    token_of(folder / tokens.NAME, "nobody")
    authority = Authority(folder)
    pair = authority.issue()
    options = [part for name in PORTS for part in (f"--{name}-listen", "127.0.0.1:0")]
    options += ["--data-dir", str(folder), "--audit-log", str(folder / "audit.jsonl"), "--log-level", "debug"]
    options += ["--engines", "2"] if request.param == "a house" else []
    with serving(*pair.options, *options) as server:
        used = Used(server, folder, authority)
        used.secrets["the key of TLS"] = pair.key.read_bytes().splitlines()[1]
        _use_the_client(used)
        _use_what_is_wrong(used)
        _use_http(used)
        yield used


def _use_the_client(used: Used) -> None:
    """All that a client does with secrets, and what it fails at."""
    known: dict[str, Any] = {"tls": used.authority.pem, "timeout_s": 10.0}
    with used.told():
        tclient.connect(used.server.address, token=UNKNOWN, **known)
    session = tclient.connect(used.server.address, token=used.ada, **known)
    with session:
        numbers = np.frombuffer(CONTENTS * 40_000, np.uint8)
        x = tclient.from_numpy(numbers.copy())
        assert (x + 0).numpy().tobytes() == numbers.tobytes()
        used.secrets["what is in a tensor"] = CONTENTS
        grant = tclient.share(x, with_="eve")
        used.secrets["a grant"], used.secrets["its name"] = grant.text().encode(), grant._name.encode()
        credentials = session.credentials()
        used.secrets["credentials"] = credentials.text().encode()
        used.secrets["the secret of a session"] = session.opened.session
        used.errors += [repr(session), repr(credentials), repr(grant), repr(x)]
        with used.told():
            x.reshape(7, 7).tolist()
        with tclient.connect(used.server.address, token=used.eve, **known), used.told():
            tclient.borrow(grant.text()[:-6])
        with used.told():
            tclient.attach(credentials, token=used.eve)
        with tclient.attach(credentials, token=used.ada) as taken:
            used.secrets["the next secret of a session"] = taken.opened.session
        with used.told():
            (x + 1).sum().item()
    with used.told():
        tclient.attach(credentials, token=used.ada)


def _name(message: Message, secret: bytes, depth: int = 0) -> None:
    """Put the secret wherever a request has one."""
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            continue
        if field.name in _SECRET_FIELDS and field.type == FieldDescriptor.TYPE_BYTES:
            setattr(message, field.name, secret)
        elif field.message_type is not None and depth < 3 and field.message_type.file.package == "tensorcompute.v1":
            below = getattr(message, field.name)
            _name(below, secret, depth + 1)
            if below.ByteSize():
                below.SetInParent()


def _use_what_is_wrong(used: Used) -> None:
    """Every RPC with secrets that there are and that there are not, by who has them and who has not."""
    with Caller(used.server.address, used.trusted) as caller:
        theirs = caller.open(used.ada)
        used.secrets["the secret of another session"] = theirs.session
        unknown = bytes(reversed(theirs.session))
        beside = theirs.session[:-4] + b"nope"
        used.secrets |= {"a secret of no session": unknown, "a secret of nearly a session": beside}
        at = used.server.address if not theirs.endpoint else f"127.0.0.1{theirs.endpoint}"
        with Caller(at, used.trusted) as engine:
            _use_a_ticket(used, engine, theirs)
            for asked in (caller, engine):
                for name, method in METHODS.items():
                    if name == "CloseSession":
                        continue
                    for secret, token in (
                        (theirs.session, used.eve),
                        (theirs.session, UNKNOWN),
                        (unknown, used.ada),
                        (beside, used.ada),
                        (theirs.session, used.ada),
                    ):
                        request = GetMessageClass(method.input_type)()
                        _name(request, secret)
                        used.errors.append(_outcome(asked, path_of(name), request, token))


def _use_a_ticket(used: Used, engine: Caller, session: ts.OpenSessionResponse) -> None:
    """One that is used wrongly."""
    context = ts.SessionContext(session=session.session)
    header = ts.UploadHeader(context=context, id=5, dtype=pb.D_TYPE_UINT8, shape=[4 << 20])
    request = ts.OpenTransferRequest(upload=header).SerializeToString()
    ticket = ts.OpenTransferResponse.FromString(engine.ask(f"{TENSORS}/OpenTransfer", request, used.ada))
    used.secrets |= {"a ticket": ticket.ticket, "the key of a ticket": ticket.key}
    context_of_tls = ssl.create_default_context(cafile=str(used.authority.pem))
    port = int(session.data_endpoint.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10.0) as plain,
        context_of_tls.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"tdt2" + ticket.ticket + bytes(16))
        assert connection.recv(1)
        connection.sendall(ticket.key)  # in the place of a proof that one has it
        with contextlib.suppress(OSError):
            connection.recv(100)


def _outcome(caller: Caller, path: str, request: Message, token: str) -> str:
    call: Any = caller.channel.stream_stream(path)
    try:
        list(call(iter([request.SerializeToString()]), timeout=10.0, metadata=bearer(token)))
    except grpc.RpcError as error:
        told: Any = error
        return f"{path} {told.code()} {told.details()} {told.trailing_metadata()!r}"
    return ""


def _use_http(used: Used) -> None:
    for port in PORTS[1:]:
        for path in ("/v2", "/metrics", "/v2/models/x/infer"):
            for said in (f"Bearer {UNKNOWN}", f"Basic {used.ada}", used.ada, f"Bearer {used.ada}"):
                used.errors.append(used.https(port, path, said))
            used.errors.append(used.https(port, f"{path}?token={used.ada}"))
            used.errors.append(used.https(port, path, f"Bearer {used.admin}", b"{"))


def forms(secret: bytes) -> set[str]:
    """How a program may have written it, or most of it; the beginning of a session's is no secret."""
    found = {each(secret).decode().rstrip("=")[:40] for each in (base64.b64encode, base64.urlsafe_b64encode)}
    for part in (secret[:40], secret[4:24], secret[-16:]):
        found |= {part.hex(), part.hex().upper(), repr(part)[2:-1], part.decode("latin-1")}
        found.add(text_encoding.CEscape(part, as_utf8=False))
    return {each for each in found if len(each) >= 12}


def found_in(text: str, secrets: dict[str, bytes]) -> list[str]:
    return [name for name, secret in secrets.items() for each in forms(secret) if each in text]


def test_the_secrets_are_ones_that_would_be_found(used: Used) -> None:
    assert len(used.secrets) > 15
    for name, secret in used.secrets.items():
        assert len(secret) >= 16, name
        assert found_in(f"a line with {secret!r}", {name: secret})
        assert found_in(f"a line with {secret.hex()}", {name: secret})


def test_no_secret_is_logged(used: Used) -> None:
    assert '"level": "debug"' in used.server.log()
    assert found_in(used.server.log(), used.secrets) == []


def test_no_secret_is_in_the_audit_log(used: Used) -> None:
    text = (used.folder / "audit.jsonl").read_text()
    assert len(text.splitlines()) > 50
    assert found_in(text, used.secrets) == []


def test_no_secret_is_in_an_error_or_in_what_is_printed(used: Used) -> None:
    told = [each for each in used.errors if each]
    assert len(told) > 100
    assert [(each, found) for each in told if (found := found_in(each, used.secrets))] == []


def test_no_secret_is_in_what_the_server_tells_of_itself(used: Used) -> None:
    metrics = used.https("metrics", "/metrics", f"Bearer {used.admin}")
    assert "tensorcompute_build" in metrics
    with Caller(used.server.address, used.trusted) as caller:
        info = caller.ask(f"{TENSORS}/GetServerInfo", b"", used.admin).decode("latin-1")
    assert found_in(metrics + info + used.https("http", "/v2/models/x", f"Bearer {used.admin}"), used.secrets) == []


def _with_children(pid: int) -> list[int]:
    return [pid, *(each for child in children_of(pid) for each in _with_children(child))]


def test_no_secret_is_shown_by_the_processes(used: Used) -> None:
    processes = _with_children(used.server.pid)
    assert len(processes) > 1
    mine = set(re.findall(r"[0-9a-f]{64}", str(os.environ)))
    for pid in processes:
        for said in ("cmdline", "environ", "comm"):
            seen = Path(f"/proc/{pid}/{said}").read_bytes().decode("latin-1")
            assert found_in(seen, used.secrets) == []
            # The key by which processes of a house know each other is 256 bits.
            assert set(re.findall(r"[0-9a-f]{64}", seen)) <= mine
