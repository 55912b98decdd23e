"""What a front answers itself of TensorService: it opens sessions, where there is room, and says what there is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tensorcompute.v1 import tensor_service_pb2 as ts
from tserver import __version__
from tserver.config import MAX_PROTOCOL, MIN_PROTOCOL, Config
from tserver.engines.disk_use import DiskUse
from tserver.engines.placement import fits
from tserver.errors import Exhausted, SessionLost, Unreachable
from tserver.front.limits import infos, limits_of
from tserver.front.rpc import Rpc
from tserver.models.owners import Owned, is_of, owner_of
from tserver.session.listing import check_one, oldest_first

if TYPE_CHECKING:
    from tserver.engines.directory import Directory, Entry
    from tserver.engines.plan import Plan
    from tserver.front.engine_channels import EngineChannels
    from tserver.front.house_limits import HouseLimits
    from tserver.front.placing import Placing
    from tserver.front.router import Router
    from tserver.identity import Identity

log = logging.getLogger("tserver.front")

_OPEN = "/tensorcompute.v1.TensorService/OpenSession"
_ATTACH = "/tensorcompute.v1.TensorService/AttachSession"
_TRANSFER = "/tensorcompute.v1.TensorService/OpenTransfer"
_SESSIONS = "/tensorcompute.v1.TensorService/ListSessions"
_TENSORS = "/tensorcompute.v1.TensorService/ListSessionTensors"
_CLOSE = "/tensorcompute.v1.TensorService/CloseSession"
# How many engines are tried, where they end just when a session is to be opened.
_TRIES = 3
# How long the next run of an engine is waited for: whoever was told that a session is lost may well open another.
_SUCCESSOR_S = 10.0


class HouseTensors:
    """The RPCs of TensorService that are the front's own."""

    OWN = (
        "OpenSession",
        "AttachSession",
        "CloseSession",
        "OpenTransfer",
        "ListSessions",
        "ListSessionTensors",
        "GetServerInfo",
    )

    def __init__(
        self,
        config: Config,
        directory: Directory,
        plan: Plan,
        placing: Placing,
        channels: EngineChannels,
        router: Router,
        limits: HouseLimits,
        models: Callable[[], Iterable[Owned]],
    ) -> None:
        """`models` are those that this front keeps."""
        self._config = config
        self._directory = directory
        self._plan = plan
        self._placing = placing
        self._channels = channels
        self._router = router
        self._limits, self._models = limits, models
        self._disk_use = DiskUse(Path(config.data_dir), limits.accounts) if config.data_dir else None
        self._started_at = time.monotonic()

    async def OpenSession(self, request: ts.OpenSessionRequest, rpc: Rpc) -> ts.OpenSessionResponse:
        """See the proto."""
        device, request.device = request.device, ""
        for _ in range(_TRIES):
            await self._successor(device, rpc)
            async with self._placing.session(rpc.principal, device) as entry:
                answer = await self._open(entry, request, rpc)
                if answer is not None:
                    return answer
                # The engine has just ended.
                entry.load.placed -= 1
        raise Exhausted("engines end as soon as they start; retry later", retry_after_s="1")

    async def _successor(self, device: str, rpc: Rpc) -> None:
        """Where no engine on the device serves, and one that has ended is to come again: wait a while for that."""
        left_s = _SUCCESSOR_S if rpc.deadline is None else min(_SUCCESSOR_S, rpc.deadline - time.monotonic())
        directory = self._directory
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                while directory.waiting and not any(
                    fits(entry.info.device, device) for entry in directory.engines.values()
                ):
                    await directory.changed()

    async def _open(self, entry: Entry, request: ts.OpenSessionRequest, rpc: Rpc) -> ts.OpenSessionResponse | None:
        """The engine's answer, with what clients are told of it; None if the engine is gone."""
        try:
            data = await self._channels.target(entry).unary_unary(_OPEN, request.SerializeToString(), rpc)
        except (SessionLost, Unreachable):
            if self._directory.of_boot(entry.info.boot_id) is not None:
                raise
            return None
        answer = ts.OpenSessionResponse.FromString(data)
        self._tell_endpoint(entry, answer)
        return answer

    async def AttachSession(self, request: ts.AttachSessionRequest, rpc: Rpc) -> ts.AttachSessionResponse:
        """See the proto."""
        entry = await self._router.of_session(request.session, rpc)
        data = await self._channels.target(entry).unary_unary(_ATTACH, request.SerializeToString(), rpc)
        answer = ts.AttachSessionResponse.FromString(data)
        self._tell_endpoint(entry, answer.opened)
        return answer

    def _tell_endpoint(self, entry: Entry, answer: ts.OpenSessionResponse | ts.OpenTransferResponse) -> None:
        answer.endpoint = self._plan.endpoint(entry.info.endpoint)
        if not answer.endpoint:
            answer.data_endpoint = ""

    async def OpenTransfer(self, request: ts.OpenTransferRequest, rpc: Rpc) -> ts.OpenTransferResponse:
        """See the proto."""
        data = request.SerializeToString()
        entry = await self._router.entry(_TRANSFER, data, rpc)
        data = await self._channels.target(entry).unary_unary(_TRANSFER, data, rpc)
        answer = ts.OpenTransferResponse.FromString(data)
        if request.WhichOneof("transfer") != "receive":
            self._tell_endpoint(entry, answer)
        return answer

    async def CloseSession(self, request: ts.CloseSessionRequest, rpc: Rpc) -> bytes:
        """See the proto. A session whose engine has ended is closed."""
        try:
            target = self._channels.target(await self._router.of_session(request.session, rpc))
            return await target.unary_unary(_CLOSE, request.SerializeToString(), rpc)
        except SessionLost:
            return b""

    async def ListSessions(self, request: ts.ListSessionsRequest, rpc: Rpc) -> ts.ListSessionsResponse:
        """See the proto. An engine that ends meanwhile has none."""
        told = await self._sessions(rpc)
        return ts.ListSessionsResponse(sessions=oldest_first(each for _, each in told))

    async def _sessions(self, rpc: Rpc) -> list[tuple[Entry, ts.SessionInfo]]:
        entries = list(self._directory.engines.values())
        return [
            each
            for found in await asyncio.gather(*(self._sessions_of(entry, rpc) for entry in entries))
            for each in found
        ]

    async def _sessions_of(self, entry: Entry, rpc: Rpc) -> list[tuple[Entry, ts.SessionInfo]]:
        try:
            data = await self._channels.target(entry).unary_unary(_SESSIONS, b"", rpc)
        except (SessionLost, Unreachable):
            return []
        told = ts.ListSessionsResponse.FromString(data)
        for each in told.sessions:
            each.engine = entry.info.engine
        return [(entry, each) for each in told.sessions]

    async def ListSessionTensors(self, request: ts.ListSessionTensorsRequest, rpc: Rpc) -> bytes:
        """See the proto."""
        found = [(entry, each.id) for entry, each in await self._sessions(rpc) if each.id.startswith(request.id)]
        check_one([each for _, each in found], request.id)
        return await self._channels.target(found[0][0]).unary_unary(_TENSORS, request.SerializeToString(), rpc)

    async def GetServerInfo(self, request: ts.GetServerInfoRequest, rpc: Rpc) -> ts.GetServerInfoResponse:
        """See the proto. Told from what engines have said last: none is waited for."""
        entries = sorted(self._directory.engines.values(), key=lambda entry: entry.info.engine)
        told = [entry.told for entry in entries if entry.told is not None]
        return ts.GetServerInfoResponse(
            version=__version__,
            boot_id=self._plan.name,
            torch_version=told[0]["torch"] if told else "",
            devices=_devices(entries),
            limits=limits_of(self._config),
            min_protocol=MIN_PROTOCOL,
            max_protocol=MAX_PROTOCOL,
            sessions=self._placing.sessions,
            operations_digest=told[0]["operations"] if told else "",
            uptime_s=time.monotonic() - self._started_at,
            engines=[*map(_engine, entries), *self._waiting()],
            principal=rpc.principal,
            own_limits=await self._own_limits(rpc.identity),
        )

    async def _own_limits(self, identity: Identity) -> list[ts.LimitInfo]:
        principal, owner, disk_use = identity.principal, owner_of(identity), self._disk_use
        used = {
            **self._limits.used(principal),
            "models": sum(is_of(each, owner) for each in self._models()),
            "disk_bytes": 0 if disk_use is None else await asyncio.to_thread(disk_use.used, principal),
        }
        return infos(self._limits.accounts.of(principal), used)

    def _waiting(self) -> list[ts.EngineInfo]:
        return [
            ts.EngineInfo(id=engine, state="STARTING", reason=cause)
            for engine, cause in sorted(self._directory.waiting.items())
        ]


def _engine(entry: Entry) -> ts.EngineInfo:
    info, load = entry.info, entry.load
    return ts.EngineInfo(
        id=info.engine,
        device=info.device,
        boot_id=info.boot_id,
        sessions=load.sessions + load.placed,
        state="SERVING" if load.takes_sessions else "DRAINING",
        node=info.node,
    )


def _as_the_house_counts(device: str, first: str) -> str:
    """The name of an engine's device, which counts its GPUs from 0; `first` is the name of its first one."""
    kind, _, number = device.partition(":")
    if kind != "cuda" or not first.startswith("cuda:"):
        return device
    return f"cuda:{int(first.partition(':')[2]) + int(number)}"


def _devices(entries: list[Entry]) -> list[ts.DeviceInfo]:
    """All devices of all engines, as the house counts them. What several engines have is told once."""
    found: dict[tuple[str, str], ts.DeviceInfo] = {}
    for entry in entries:
        for each in (entry.told or {}).get("devices", ()):
            name = _as_the_house_counts(each["name"], entry.info.device)
            known = found.get((entry.info.node, name))
            if known is None:
                known = found[entry.info.node, name] = ts.DeviceInfo(
                    name=name, description=each["description"], total_bytes=each["total"], engine=entry.info.engine
                )
            elif known.engine != entry.info.engine:
                known.engine = ""
            known.free_bytes = each["free"]
            known.allocated_bytes += each["allocated"]
    return sorted(found.values(), key=lambda device: (device.name == "cpu", device.name))
