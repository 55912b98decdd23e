"""What there is to tell of the engines of a house: each is asked by the front, and their answers are put together.

An engine that does not answer in time is left out, and said to be so. Knows no torch, and no engine but by its RPCs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from tserver.errors import NotFound, Unreachable
from tserver.front import status
from tserver.front.house_service import SERVICE
from tserver.front.page import paging
from tserver.identity import Identity

if TYPE_CHECKING:
    from tserver.engines.directory import Directory, Entry
    from tserver.front.engine_channels import EngineChannels
    from tserver.front.rpc_counts import RpcCounts

Asked = Mapping[str, str]
Answer = dict[str, Any]

_TIMEOUT_S = 4.0
_FRONT = "front"
# The lists, and the columns that they are in the order of.
_LISTS = {"sessions": "opened_unix_s", "models": "name", "requests": "method", "errors": "unix_s"}


class HousePage:
    """All engines, as they are shown to those who look."""

    def __init__(self, directory: Directory, channels: EngineChannels, rpcs: RpcCounts) -> None:
        self._directory, self._channels, self._rpcs = directory, channels, rpcs

    async def answer(self, what: str, asked: Asked, identity: Identity) -> Answer:
        """See the page of an engine."""
        if what == "overview":
            return self._overview(await self._ask_all(what, asked, identity))
        if what in _LISTS:
            return await self._list(what, asked, identity)
        # What is asked for is on one of them.
        for told in (await self._ask_all(what, asked, identity)).values():
            if not isinstance(told, Exception):
                return told
            if not isinstance(told, NotFound):
                error = told
                break
        else:
            error = NotFound("no engine has this; it may have ended")
        raise error

    async def _list(self, what: str, asked: Asked, identity: Identity) -> Answer:
        rows = paging.window(asked)
        answers = await self._ask_all(what, paging.of_first(asked), identity)
        told = [answer for answer in answers.values() if not isinstance(answer, Exception)]
        found = [row for answer in told for row in answer["rows"]]
        total = sum(answer["total"] for answer in told)
        if what == "errors":
            asked = {"descending": "1", **asked}
            noted = [{**each._asdict(), "engine": _FRONT} for each in self._rpcs.recent.visible(identity)]
            own = paging.ordered(noted, {"search": asked.get("search", "")}, _LISTS[what])
            found += own
            total += len(own)
        # Each engine has searched its own.
        ordered = paging.ordered(found, {**asked, "search": ""}, _LISTS[what])
        rest = told[0] if told else {}
        return {**rest, "total": total, "rows": ordered[rows]}

    def _overview(self, answers: Mapping[str, Answer | Exception]) -> Answer:
        told = [answer for answer in answers.values() if not isinstance(answer, Exception)]
        engines: list[Answer] = [engine for answer in told for engine in answer["engines"]]
        for name, answer in answers.items():
            if isinstance(answer, Exception):
                engines.append(_not_there(name, "silent", str(answer)))
        engines += [_not_there(name, "starting again", cause) for name, cause in self._directory.waiting.items()]
        found: Answer = {"engines": engines, "totals": {}, "failures": {}}
        for answer in told:
            for key in ("version", "bounds_s"):
                found[key] = answer[key]
            for key in ("totals", "failures"):
                for name, number in answer.get(key, {}).items():
                    found[key][name] = found[key].get(name, 0) + number
            for key in ("latency", "queued", "rpc_latency"):
                if key in answer:
                    found[key] = _sum(found.get(key), answer[key])
        return found

    async def _ask_all(self, what: str, asked: Asked, identity: Identity) -> dict[str, Answer | Exception]:
        """What each engine says, by its name."""
        request = json.dumps({"what": what, "asked": dict(asked)}).encode()
        entries = list(self._directory.engines.values())
        answers = await asyncio.gather(*(self._ask(entry, request, identity) for entry in entries))
        return {entry.info.engine: answer for entry, answer in zip(entries, answers, strict=True)}

    async def _ask(self, entry: Entry, request: bytes, identity: Identity) -> Answer | Exception:
        try:
            data = await self._channels.ask(entry, f"/{SERVICE}/Page", request, timeout_s=_TIMEOUT_S, identity=identity)
        except grpc.aio.AioRpcError as told:
            return status.error_of(told)
        except Unreachable as error:
            return error
        answer: Answer = json.loads(data)
        return _named(answer, entry.info.engine)


def _named(answer: Answer, engine: str) -> Answer:
    """The answer of an engine, which does not know what it is called here."""
    rows = [*answer.get("rows", ()), *answer.get("engines", ())]
    for row in rows:
        row["name" if "devices" in row else "engine"] = engine
    if "engine" in answer:
        answer["engine"] = engine
    return answer


def _not_there(name: str, state: str, cause: str) -> Answer:
    return {"name": name, "state": state, "reason": cause[:300], "devices": [], "gpus": [], "sessions": 0}


def _sum(one: Sequence[int] | None, other: Sequence[int]) -> list[int]:
    return list(other) if one is None else [a + b for a, b in zip(one, other, strict=True)]
