"""The paths of the page: its files, which hold nothing of anybody, and what it reads, which needs a valid identity.

Browsers are told to run and load only what comes from here, and to show the page in no frame.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Mapping
from importlib import resources
from typing import Any, Protocol
from urllib.parse import parse_qsl

from tserver.errors import InvalidArgument, NotFound, PermissionDenied
from tserver.front.http.messages import HttpRequest, HttpResponse, Route
from tserver.front.page.engine_page import OWN_NAME
from tserver.identity import LOCAL, Identity

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PRIVATE = {**_HEADERS, "Cache-Control": "no-store"}
_FILE = {**_HEADERS, "Cache-Control": "no-cache"}
_API = "/api/v1"
_MOST_QUERY = 2000


class Page(Protocol):
    """What the page shows."""

    async def answer(self, what: str, asked: Mapping[str, str], identity: Identity) -> dict[str, Any]:
        """What a caller is shown. Raises: NotFound for what there is not, or is another's; InvalidArgument."""


class PageRoutes:
    """The page on one listener."""

    def __init__(self, page: Page) -> None:
        self._page = page
        folder = resources.files(__package__) / "assets"
        self._files = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}

    def routes(self) -> list[Route]:
        """Them."""
        found = [
            Route("GET", "/", OWN_NAME, self._index, needs=None),
            Route("GET", "/page/{file}", OWN_NAME, self._file, needs=None),
        ]
        for path, what in (
            ("/overview", "overview"),
            ("/sessions", "sessions"),
            ("/sessions/{session}", "session"),
            ("/sessions/{session}/tensors", "tensors"),
            ("/sessions/{session}/tensors/{tensor}", "tensor"),
            ("/models", "models"),
            ("/models/{model}/versions/{version}", "model"),
            ("/requests", "requests"),
            ("/errors", "errors"),
        ):
            found.append(self._reading(path, what))
        return found

    def _reading(self, path: str, what: str) -> Route:
        async def answered(request: HttpRequest) -> HttpResponse:
            _check_host(request)
            asked = {**_query(request), **request.names}
            told = await self._page.answer(what, asked, request.identity)
            you = {"principal": request.identity.principal, "role": request.identity.role.name.lower()}
            response = HttpResponse.of({**told, "unix_s": time.time(), "you": you})
            return HttpResponse(body=response.body, headers=_PRIVATE)

        return Route("GET", f"{_API}{path}", OWN_NAME, answered)

    async def _index(self, request: HttpRequest) -> HttpResponse:
        return self._sent("index.html")

    async def _file(self, request: HttpRequest) -> HttpResponse:
        return self._sent(request.names["file"])

    def _sent(self, name: str) -> HttpResponse:
        data = self._files.get(name)
        kind = _KINDS.get(name.rpartition(".")[2])
        if data is None or kind is None:
            raise NotFound(f"the page has no file {name[:100]!r}")
        return HttpResponse(body=(data,), content_type=kind, headers=_FILE)


def _query(request: HttpRequest) -> dict[str, str]:
    if len(request.query) > _MOST_QUERY:
        raise InvalidArgument(f"the query has {len(request.query)} letters; at most {_MOST_QUERY} are read")
    return dict(parse_qsl(request.query))


def _check_host(request: HttpRequest) -> None:
    """Refuse what came by a foreign name to this machine. Raises: PermissionDenied.

    Where nobody must show anything, a name that a stranger has pointed at this machine would make a page of the
    stranger's, in the browser of somebody here, one of this server's.
    """
    if request.identity.how != LOCAL:
        return
    host = request.headers.get("Host", "").strip().lower()
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise PermissionDenied(
            f"without credentials the page is served under an address or localhost, not under {name[:100]!r}: "
            "start the server with --tokens, or open the page by its address"
        ) from None
