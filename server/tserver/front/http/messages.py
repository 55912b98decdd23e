"""Requests and responses of HTTP, as those that serve them see them; and which path leads where.

Knows neither aiohttp nor what is served.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tserver.errors import InvalidArgument, NotFound, PermissionDenied, TooLarge, Unimplemented
from tserver.front.http.encodings import Inflater
from tserver.identity import Identity, Role

JSON = "application/json"
_NOBODY = Identity("", how="anonymous")


class MethodNotAllowed(Unimplemented):
    """A path that is there, but not for this method."""

    reason = "METHOD_NOT_ALLOWED"


@dataclass(slots=True)
class HttpRequest:
    """One request. Its body comes when it is asked for."""

    method: str
    # As it was sent, without the query.
    path: str
    query: str
    # By names in any case.
    headers: Mapping[str, str]
    # As gRPC names who calls.
    peer: str
    # The next piece of the body, empty at its end; and what is told of memory before it is taken for the body. Both
    # raise what becomes of a body that cannot be had.
    read: Callable[[], Awaitable[bytes]]
    hold: Callable[[int], None]
    # What stands in the path, by the names that its route has for it.
    names: Mapping[str, str] = field(default_factory=dict)
    # What the connection tells of the caller's certificate, as gRPC has it.
    certificate: Mapping[str, list[bytes]] = field(default_factory=dict)
    # Who calls; the interceptor says so.
    identity: Identity = _NOBODY
    # Of the body, out of its encoding, as far as it has come.
    body_bytes: int = 0

    @property
    def is_local(self) -> bool:
        """Whether the caller is on this machine."""
        return self.identity.is_local

    async def body(self, max_bytes: int, max_inflated_bytes: int | None = None) -> bytearray:
        """The body, out of its encoding; of one that has an encoding, the second limit holds for what comes out.

        Raises: TooLarge before it takes more memory than that, InvalidArgument, UnsupportedEncoding.
        """
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        inflater = None if encoding in ("", "identity") else Inflater(encoding)
        limit = max_bytes
        if inflater is not None and max_inflated_bytes is not None:
            limit = min(limit, max_inflated_bytes)
        declared = self.headers.get("Content-Length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
            raise _too_large(declared, limit, is_inflated=False)
        found = bytearray()
        is_empty = True
        while piece := await self.read():
            is_empty = False
            for plain in (piece,) if inflater is None else inflater.feed(piece):
                if len(found) + len(plain) > limit:
                    raise _too_large("more", limit, is_inflated=inflater is not None)
                self.hold(len(plain))
                self.body_bytes += len(plain)
                found += plain
                if inflater is not None:
                    # A little may become much: others are served in between.
                    await asyncio.sleep(0)
        if inflater is not None and not is_empty:
            inflater.end()
        return found

    async def json(self, max_bytes: int) -> dict[str, Any]:
        """The body as an object of JSON; an empty one if there is no body. Raises: as `body`."""
        return parse_object(await self.body(max_bytes))


def parse_object(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """An object of JSON; of no bytes, an empty one. Raises: InvalidArgument."""
    if not data:
        return {}
    try:
        found = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the {len(data)} bytes of the request are not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise InvalidArgument(f"the JSON of a request is an object, {{…}}, not {type(found).__name__}")
    return found


def _too_large(size: str, limit: int, *, is_inflated: bool) -> TooLarge:
    what = "once it is out of its Content-Encoding, " if is_inflated else ""
    return TooLarge(
        f"the body has {size[:20]} bytes; {what}it may have {limit} here. Send less at once, tensors as binary data "
        "without a Content-Encoding, or start the server with a larger --max-message-bytes"
    )


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One response."""

    status: int = 200
    body: Sequence[bytes | memoryview] = ()
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of the body."""
        return sum(map(len, self.body))

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> HttpResponse:
        """A response in JSON; names of headers with _ for -."""
        text = json.dumps(value, separators=(",", ":")).encode()
        return cls(status, (text,), headers={name.replace("_", "-"): text for name, text in headers.items()})


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class Route:
    """A kind of path, what serves it, and the name that its requests are counted under."""

    def __init__(self, method: str, path: str, name: str, handler: Handler, *, needs: Role | None = Role.USER) -> None:
        """In the path, {model} is whatever stands there, under that name, and what is in […] may be missing. `needs` is
        the role that a caller must have; None is that nobody is asked who it is.
        """
        self.method, self.path, self.name, self.handler, self.needs = method, path, name, handler, needs
        pattern = re.escape(path).replace(r"\[", "(?:").replace(r"\]", ")?")
        self._pattern = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", pattern))

    def match(self, path: str) -> dict[str, str] | None:
        """What stands in a path of this kind; None if it is of another."""
        found = self._pattern.fullmatch(path)
        return None if found is None else {name: unquote(text) for name, text in found.groupdict(default="").items()}


class Routes:
    """All paths of a listener; of those that fit, the first counts."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)

    def find(self, request: HttpRequest) -> Route:
        """What serves a request, which gets the names in its path.

        Raises: NotFound, MethodNotAllowed, PermissionDenied for a page in somebody's browser.
        """
        method = "GET" if request.method == "HEAD" else request.method
        allowed = []
        for route in self._routes:
            names = route.match(request.path)
            if names is None:
                continue
            if route.method == method:
                if route.needs is not None:
                    _check_origin(request)
                request.names = names
                return route
            allowed.append(route.method)
        _check_origin(request)
        if allowed:
            methods = ", ".join(sorted({*allowed, *(["HEAD"] if "GET" in allowed else [])}))
            raise MethodNotAllowed(
                f"{request.path[:200]} does not take {request.method[:20]}; it takes {methods}", allow=methods
            )
        raise NotFound(f"nothing is served under the path {request.path[:200]!r}")


def _check_origin(request: HttpRequest) -> None:
    """Raises: PermissionDenied for a page in somebody's browser, which is given what is open to everybody alone."""
    if "Origin" in request.headers:
        # A browser sends it for what a page of anyone's asks: that page may reach a port that others cannot. Our own
        # page sends none where it reads, but for its modules.
        raise PermissionDenied("requests by pages in browsers, with the header Origin, are not served")
