"""The HTTP listener: what callers may do who send little, much, slowly, wrongly, or not at all. By raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import resource
import ssl
import threading
import time
import zlib
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.http import Caller, chunked, request
from tests.support.serving import wait_until
from tserver.config import Config
from tserver.errors import Exhausted, NotFound
from tserver.front.http.encodings import wanted
from tserver.front.http.listener import HttpListener, Limits
from tserver.front.http.messages import HttpRequest, HttpResponse, Route, Routes
from tserver.front.interceptor import Interceptor
from tserver.front.rpc_counts import RpcCounts

LIMIT = 100_000
BIG = 64 << 20


class Served:
    """A listener on a loop of its own, with something behind every kind of path."""

    def __init__(self, limits: Limits, config: Config) -> None:
        self.rpcs = RpcCounts()
        self.began = threading.Event()
        self.cancelled = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._go_on = asyncio.Event()
        routes = [
            Route("GET", "/hello", "Hello", self._hello),
            Route("POST", "/size", "Size", self._size),
            Route("GET", "/things/{thing}[/parts/{part}]", "Thing", self._thing),
            Route("POST", "/things/{thing}[/parts/{part}]", "Thing", self._thing),
            Route("POST", "/wait", "Wait", self._wait),
            Route("GET", "/big", "Big", self._big),
            Route("GET", "/{kind}/fail", "Fail", self._fail),
        ]
        answer = Interceptor(self.rpcs).http(Routes(routes))
        self._listener = HttpListener("--http-listen", "127.0.0.1:0", config, answer, limits)
        self.address = self._run(self._listener.start())

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def go_on(self) -> None:
        """Let those that wait be answered."""
        self._loop.call_soon_threadsafe(self._go_on.set)

    def close(self) -> None:
        """End, and see that nothing is left."""
        self._run(self._listener.stop(0.1))
        assert self._listener._held_bytes == 0
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    async def _hello(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of({"hello": request.query})

    async def _size(self, request: HttpRequest) -> HttpResponse:
        body = await request.body(LIMIT)
        return HttpResponse.of({"bytes": len(body), "crc": zlib.crc32(body)})

    async def _thing(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse.of(dict(request.names))

    async def _wait(self, request: HttpRequest) -> HttpResponse:
        await request.body(LIMIT)
        self.began.set()
        try:
            await self._go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return HttpResponse.of({})

    async def _big(self, _: HttpRequest) -> HttpResponse:
        return HttpResponse(body=(bytes(BIG),), content_type="application/octet-stream")

    async def _fail(self, request: HttpRequest) -> HttpResponse:
        raise {
            "known": NotFound("there is no such thing"),
            "later": Exhausted("too many", retry_after_s="0.1"),
            "defect": ZeroDivisionError("by zero"),
        }[request.names["kind"]]


@contextlib.contextmanager
def served(**limits: float) -> Iterator[Served]:
    """A listener with limits of its own."""
    made = Served(Limits(**limits), Config())  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.go_on()
        made.close()


@pytest.fixture(scope="module")
def usual() -> Iterator[Served]:
    """One with the limits of a server."""
    with served() as made:
        yield made


@pytest.fixture
def caller(usual: Served) -> Iterator[Caller]:
    with Caller(usual.address) as caller:
        yield caller


# --- paths and methods ---


def test_a_path_leads_to_what_serves_it_with_what_stands_in_it(caller: Caller) -> None:
    assert caller.ask("GET", "/hello?a=b").json == {"hello": "a=b"}
    assert caller.ask("GET", "/things/a%20b").json == {"thing": "a b", "part": ""}
    assert caller.ask("GET", "/things/a/parts/2").json == {"thing": "a", "part": "2"}


@pytest.mark.parametrize(
    "path", ["/", "/things", "/things/", "/things/a/parts", "/hello/", "//hello", "/../etc/passwd"]
)
def test_a_path_that_leads_nowhere_is_not_found(caller: Caller, path: str) -> None:
    reply = caller.ask("GET", path)
    assert reply.status == 404
    assert path in reply.error
    assert reply.headers["content-type"].startswith("application/json")


def test_a_method_that_a_path_does_not_take_is_told_which_it_does(caller: Caller) -> None:
    reply = caller.ask("DELETE", "/things/a")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")
    assert "DELETE" in reply.error
    assert caller.ask("GET", "/size").headers["allow"] == "POST"


def test_head_is_get_without_the_body(caller: Caller) -> None:
    reply = caller.ask("HEAD", "/hello")
    assert (reply.status, reply.headers["content-length"]) == (200, str(len('{"hello":""}')))
    assert caller.ask("GET", "/hello").status == 200


def test_a_page_in_a_browser_is_refused(caller: Caller) -> None:
    reply = caller.ask("POST", "/size", b"abc", Origin="https://example.org")
    assert reply.status == 403
    assert "Origin" in reply.error


# --- errors ---


def test_errors_are_told_in_json_and_a_defect_is_logged(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    known = caller.ask("GET", "/known/fail")
    assert (known.status, known.error) == (404, "there is no such thing")
    later = caller.ask("GET", "/later/fail")
    assert (later.status, later.headers["retry-after"]) == (429, "1")
    with caplog.at_level(logging.ERROR):
        assert not caplog.records
        defect = caller.ask("GET", "/defect/fail")
    assert defect.status == 500
    assert [record.name for record in caplog.records] == ["tserver.front"]


def test_requests_are_counted_as_rpcs_are() -> None:
    with served() as listener, Caller(listener.address) as caller:
        caller.ask("POST", "/size", b"abc")
        caller.ask("GET", "/later/fail")
        caller.ask("GET", "/nothing")
        caller.ask("DELETE", "/size")
        counted = listener.rpcs.by_method
        assert set(counted) == {("http", "Size"), ("http", "Fail")}
        size, fail = counted["http", "Size"], counted["http", "Fail"]
        assert (size.by_code, size.bytes_in, size.started) == ({"OK": 1}, 3, 1)
        assert size.bytes_out > 10
        assert (fail.by_code, fail.by_reason) == ({"RESOURCE_EXHAUSTED": 1}, {"RESOURCE_EXHAUSTED": 1})


NO_HTTP = {
    "no words": b"\x00\xff\x00\r\n\r\n",
    "one word": b"HELLO\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "a length that is none": b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
    "a negative length": b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "a length and chunks": b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a long line": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a long header": b"GET /hello HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    "many headers": b"GET /hello HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(400)) + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("data", NO_HTTP.values(), ids=NO_HTTP.keys())
def test_what_is_no_http_is_refused_and_others_are_served(
    usual: Served, caller: Caller, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Caller(usual.address) as wrong:
        wrong.send(data)
        reply = wrong.reply()
        assert reply.status == 400
        assert reply.error
        assert wrong.is_closed()
    assert caller.ask("GET", "/hello").status == 200
    assert not caplog.records


# --- bodies ---


def test_pipelined_requests_are_answered_in_their_order(caller: Caller) -> None:
    caller.send(b"".join(request("POST", "/size", b"a" * count) for count in range(200)))
    assert [caller.reply().json["bytes"] for _ in range(200)] == list(range(200))


def test_a_connection_is_kept_unless_the_caller_wants_it_closed(caller: Caller) -> None:
    for _ in range(3):
        assert caller.ask("POST", "/size", b"abc").json["bytes"] == 3
    assert caller.ask("GET", "/hello", Connection="close").status == 200
    assert caller.is_closed()


def test_a_body_in_chunks_is_taken(caller: Caller) -> None:
    pieces = (b"abc", b"d" * 5000, b"e")
    reply = caller.ask("POST", "/size", chunked(*pieces), Content_Length="", Transfer_Encoding="chunked")
    assert reply.json == {"bytes": 5004, "crc": zlib.crc32(b"".join(pieces))}


def test_chunks_that_are_none_are_refused(caller: Caller) -> None:
    caller.send(request("POST", "/size", b"3\r\nabc\r\nzz\r\n", Content_Length="", Transfer_Encoding="chunked"))
    assert caller.reply().status == 400


def test_a_length_that_is_too_large_is_refused_before_the_body_comes(caller: Caller) -> None:
    caller.send(request("POST", "/size", Content_Length=str(1 << 62), Expect="100-continue"))
    reply = caller.reply()
    assert reply.status == 413
    assert "--max-message-bytes" in reply.error


def test_who_asks_whether_to_go_on_is_told_to(caller: Caller) -> None:
    caller.send(request("POST", "/size", Content_Length="3", Expect="100-continue"))
    assert caller.reply().status == 100
    caller.send(b"abc")
    assert caller.reply().json["bytes"] == 3


def test_chunks_that_become_too_many_are_refused(caller: Caller) -> None:
    body = chunked(*[b"a" * 10_000] * 11)
    assert caller.ask("POST", "/size", body, Content_Length="", Transfer_Encoding="chunked").status == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bodies_are_taken_and_given_in_encodings(caller: Caller, encoding: str) -> None:
    data = b"one two three " * 100
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    reply = caller.ask("POST", "/size", compress(data), Content_Encoding=encoding)
    assert reply.json == {"bytes": len(data), "crc": zlib.crc32(data)}
    query = "x" * 3000
    reply = caller.ask("GET", f"/hello?{query}", Accept_Encoding=f"br, {encoding}")
    assert reply.headers["content-encoding"] == encoding
    assert query.encode() in zlib.decompress(reply.body, 47)
    assert "content-encoding" not in caller.ask("GET", f"/hello?{query}").headers


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_little_that_becomes_much_is_refused_while_it_does(usual: Served, caller: Caller, encoding: str) -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    # Fits as it is, and is a thousand times as much.
    bomb = b"".join([*(stream.compress(bytes(1 << 20)) for _ in range(64)), stream.flush()])
    assert len(bomb) < LIMIT
    reply = caller.ask("POST", "/size", bomb, Content_Encoding=encoding)
    assert reply.status == 413
    assert usual.rpcs.by_method["http", "Size"].bytes_in < 1 << 20


WRONG_ENCODINGS = {
    "not of it": (b"plain text", "gzip", 400),
    "ends in the middle": (gzip.compress(b"a" * 1000)[:-10], "gzip", 400),
    "more behind the end": (gzip.compress(b"a") + b"more", "gzip", 400),
    "one that is not served": (b"abc", "br", 415),
    "two of them": (gzip.compress(gzip.compress(b"a")), "gzip, gzip", 415),
}


@pytest.mark.parametrize("case", WRONG_ENCODINGS.values(), ids=WRONG_ENCODINGS.keys())
def test_a_body_that_is_not_in_its_encoding_is_refused(caller: Caller, case: tuple[bytes, str, int]) -> None:
    data, encoding, status = case
    reply = caller.ask("POST", "/size", data, Content_Encoding=encoding)
    assert (reply.status, bool(reply.error)) == (status, True)


ACCEPTED = {
    "": "",
    "identity": "",
    "gzip": "gzip",
    "deflate, gzip": "gzip",
    "deflate": "deflate",
    "gzip;q=0": "",
    "gzip;q=0.1, deflate;q=0.5": "deflate",
    "gzip;q=x": "",
    "br;q=1.0, GZIP": "gzip",
}


@pytest.mark.parametrize("accept", ACCEPTED)
def test_the_encoding_of_a_response_is_one_that_the_caller_wants(accept: str) -> None:
    assert wanted(accept) == ACCEPTED[accept]


# --- time ---


@pytest.mark.parametrize(
    "data", [b"", b"GET /hello HTTP/1.1\r\nHost: a\r\nX-Slow: 1"], ids=["silence", "half a header"]
)
def test_a_connection_that_asks_for_nothing_is_closed(data: bytes) -> None:
    with served(idle_s=0.2) as listener, Caller(listener.address) as caller:
        caller.send(data)
        assert caller.is_closed()


def test_headers_that_come_a_byte_at_a_time_must_come_in_time() -> None:
    def trickle(caller: Caller) -> None:
        for byte in request("GET", "/hello", X="a" * 10_000):
            caller.send(bytes((byte,)))
            time.sleep(0.02)

    with served(idle_s=0.3) as listener, Caller(listener.address) as caller, pytest.raises(ConnectionError):
        trickle(caller)


def test_a_connection_that_was_served_is_closed_later() -> None:
    with served(idle_s=0.2) as listener, Caller(listener.address) as caller:
        assert caller.ask("GET", "/hello").status == 200
        assert caller.is_closed()


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    with served(stall_s=0.2) as listener, Caller(listener.address) as caller:
        caller.send(request("POST", "/size", b"abc", Content_Length="10"))
        reply = caller.reply()
        assert reply.status == 408
        assert caller.is_closed()


def test_a_body_that_comes_a_byte_at_a_time_is_not_waited_for() -> None:
    with served(stall_s=0.3, slowest_bytes_per_s=10_000) as listener, Caller(listener.address) as caller:
        caller.send(request("POST", "/size", Content_Length="10000"))
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                caller.send(b"a")
                time.sleep(0.01)
        counted = listener.rpcs.by_method["http", "Size"]
        wait_until(lambda: counted.by_code == {"DEADLINE_EXCEEDED": 1}, 10.0, "the request to be given up")
        assert counted.by_reason == {"BODY_TOO_SLOW": 1}


def test_an_answer_that_is_not_taken_is_given_up() -> None:
    with served(stall_s=0.3) as listener, Caller(listener.address) as caller:
        caller.send(request("GET", "/big"))
        server = listener._listener._server
        wait_until(lambda: bool(server.requests_count), 10.0, "the request to be seen")
        wait_until(lambda: not server.connections, 10.0, "the connection to be given up")
        received = 0
        with contextlib.suppress(ConnectionError):
            while data := caller.socket.recv(1 << 20):
                received += len(data)
        assert received < BIG


def test_who_leaves_is_not_worked_for_any_more(usual: Served) -> None:
    usual.began.clear()
    usual.cancelled.clear()
    with Caller(usual.address) as caller:
        caller.send(request("POST", "/wait", b"abc"))
        assert usual.began.wait(10.0)
    assert usual.cancelled.wait(10.0)


def test_who_leaves_within_a_body_is_no_defect(usual: Served, caplog: pytest.LogCaptureFixture) -> None:
    counted = usual.rpcs.method("http", "Size")
    before = counted.by_code.get("CANCELLED", 0)
    with Caller(usual.address) as caller:
        caller.send(request("POST", "/size", b"abc", Content_Length="10"))
        wait_until(lambda: counted.started > sum(counted.by_code.values()), 10.0, "the request to begin")
    wait_until(lambda: counted.by_code.get("CANCELLED", 0) > before, 10.0, "the request to end")
    assert not caplog.records


# --- numbers ---


def test_among_too_many_connections_the_one_that_asks_for_nothing_the_longest_goes() -> None:
    with served(connections=3) as listener, contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Caller(listener.address)) for _ in range(3)]
        for caller in callers:
            assert caller.ask("GET", "/hello").status == 200
        # The first has asked last.
        assert callers[0].ask("GET", "/hello").status == 200
        late = stack.enter_context(Caller(listener.address))
        assert late.ask("GET", "/hello").status == 200
        assert callers[1].is_closed()
        assert callers[0].ask("GET", "/hello").status == 200
        assert callers[2].ask("GET", "/hello").status == 200


def test_where_all_connections_are_at_work_another_is_refused() -> None:
    with served(connections=2) as listener, contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Caller(listener.address)) for _ in range(2)]
        for caller in callers:
            listener.began.clear()
            caller.send(request("POST", "/wait"))
            assert listener.began.wait(10.0)
        with Caller(listener.address) as late:
            assert late.reply().status == 503
            assert late.is_closed()
        listener.go_on()
        assert [caller.reply().status for caller in callers] == [200, 200]


def test_bodies_that_are_too_many_at_once_are_refused() -> None:
    with served(held_bytes=100) as listener, Caller(listener.address) as one, Caller(listener.address) as other:
        one.send(request("POST", "/wait", b"a" * 60))
        assert listener.began.wait(10.0)
        reply = other.ask("POST", "/size", b"a" * 60)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        listener.go_on()
        assert one.reply().status == 200
        assert other.ask("POST", "/size", b"a" * 60).json["bytes"] == 60


def test_connections_take_no_threads(usual: Served) -> None:
    with contextlib.ExitStack() as stack:
        before = threading.active_count()
        for _ in range(300):
            stack.enter_context(Caller(usual.address))
        caller = stack.enter_context(Caller(usual.address))
        assert caller.ask("GET", "/hello").status == 200
        assert threading.active_count() == before


FILES = {1024: 102, 1 << 20: 4096, resource.RLIM_INFINITY: 4096, 1: 1}


@pytest.mark.parametrize("files", FILES)
def test_connections_leave_files_for_others(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    with served() as listener, Caller(listener.address) as caller:
        assert caller.ask("GET", "/hello").status == 200
        assert listener._listener._server._max_connections == FILES[files]


# --- TLS and addresses ---


def test_a_listener_with_a_certificate_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for part in certificate.cert_chain_pems:
        part.write_to_path(tmp_path / "cert.pem", append=True)
    listener = Served(Limits(), Config(tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    try:
        with Caller(listener.address, trusting) as caller:
            assert caller.ask("GET", "/hello").status == 200
        with Caller(listener.address) as plain:
            plain.send(request("GET", "/hello"))
            assert plain.is_closed() or plain.is_closed()
    finally:
        listener.close()


def test_an_address_that_is_taken_is_told(usual: Served) -> None:
    async def nobody(_: HttpRequest) -> HttpResponse:
        raise NotImplementedError

    async def start() -> None:
        await HttpListener("--http-listen", usual.address, Config(), nobody).start()

    with pytest.raises(OSError, match="--http-listen"):
        asyncio.run(start())
