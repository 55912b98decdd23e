"""`tclient ping`, `info`, `sessions`, `tensors` and `models`: what a server is, has and does."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any

import tclient
from tclient._codec.dtypes import BY_CODE
from tclient._commands.asking import Server, address_of, asking, trust_of
from tclient._commands.showing import duration, print_json, print_table
from tclient._notebook import size
from tclient._transport.channel import TENSOR_SERVICE
from tensorcompute.v1 import model_service_pb2 as ms
from tensorcompute.v1 import tensor_service_pb2 as ts

_STATE = "MLP_STATE_"
_PAGE = 1000


def ping(options: argparse.Namespace) -> None:
    """Measure round trips of gRPC, which the server answers whatever its engine does."""
    times = []
    with tclient.connect(address_of(options), timeout_s=options.timeout_s, **trust_of(options)) as session:
        request = ts.GetSessionProgressRequest(session=session.secret)
        for _ in range(options.count + 1):
            began = time.perf_counter()
            session.channel.call(TENSOR_SERVICE + "GetSessionProgress", request, ts.GetSessionProgressResponse)
            times.append((time.perf_counter() - began) * 1e3)
        del times[0]  # it may have made the connection
    times.sort()
    found = {
        "count": len(times),
        "min_ms": times[0],
        **{f"p{part}_ms": times[min(len(times) - 1, len(times) * part // 100)] for part in (50, 90, 99)},
        "max_ms": times[-1],
        "mean_ms": statistics.fmean(times),
    }
    if options.json:
        print_json({"address": session.address, **found})
    else:
        row = {name.removesuffix("_ms"): value if name == "count" else f"{value:.3f}" for name, value in found.items()}
        print_table(f"round trips to {session.address}, in milliseconds", [row])


def info(options: argparse.Namespace) -> None:
    """Print what the server is and has, and the limits of the caller."""
    with asking(options) as server:
        told = server.tensors("GetServerInfo", ts.GetServerInfoRequest(), ts.GetServerInfoResponse)
    found: dict[str, Any] = {
        "version": told.version,
        "torch_version": told.torch_version,
        "boot_id": told.boot_id,
        "protocols": [told.min_protocol, told.max_protocol],
        "uptime_s": told.uptime_s,
        "sessions": told.sessions,
        "used_memory_bytes": told.used_memory_bytes,
        "max_memory_bytes": told.max_memory_bytes,
        "max_message_bytes": told.limits.max_message_bytes,
        "max_session_bytes": told.limits.max_session_bytes,
        "max_sessions": told.limits.max_sessions,
        "devices": device_facts(told),
        "engines": [
            {"id": each.id, "device": each.device, "state": each.state, "sessions": each.sessions, "node": each.node}
            for each in told.engines
        ],
        "limits": [{"name": each.name, "limit": each.limit, "used": each.used} for each in told.own_limits],
    }
    if options.json:
        print_json({"address": address_of(options), **found})
        return
    print(f"{address_of(options)}: server {told.version}, torch {told.torch_version}, up {duration(told.uptime_s)}")
    print(f"{told.sessions} of {told.limits.max_sessions} sessions, boot id {told.boot_id}")
    if told.max_memory_bytes:
        print(f"{size(told.used_memory_bytes)} of {size(told.max_memory_bytes)} of memory are in use")
    print_table("\ndevices", device_rows(found["devices"]))
    print_table("\nengines", found["engines"])
    print_table(
        "\nyour limits",
        [
            {"name": each.name, "limit": f"{each.limit:g}" if each.limit else "none", "used": f"{each.used:g}"}
            for each in told.own_limits
        ],
    )


def device_facts(told: ts.GetServerInfoResponse) -> list[dict[str, Any]]:
    """The devices of a server."""
    names = ("name", "description", "total_bytes", "free_bytes", "allocated_bytes")
    return [{name: getattr(each, name) for name in names} for each in told.devices]


def device_rows(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same for people."""
    return [
        {
            "device": each["name"],
            "what": each["description"],
            "memory": size(each["total_bytes"]),
            "free": size(each["free_bytes"]),
            "tensors": size(each["allocated_bytes"]),
        }
        for each in facts
    ]


def sessions(options: argparse.Namespace) -> None:
    """Print the caller's sessions, or all for an administrator."""
    with asking(options) as server:
        told = server.tensors("ListSessions", ts.ListSessionsRequest(), ts.ListSessionsResponse)
    facts = session_facts(told)
    if options.json:
        print_json(facts)
    elif not facts:
        print("there are no sessions that you may know of")
    else:
        print_table("", session_rows(facts))


def session_facts(told: ts.ListSessionsResponse) -> list[dict[str, Any]]:
    """Sessions, as the contract describes them."""
    names = [field.name for field in ts.SessionInfo.DESCRIPTOR.fields]
    return [{name: getattr(each, name) for name in names} for each in told.sessions]


def session_rows(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same for people."""
    has_engines = any(each["engine"] for each in facts)
    return [
        {
            "id": each["id"],
            "principal": each["principal"],
            "from": each["peer"],
            **({"engine": each["engine"]} if has_engines else {}),
            "age": duration(each["age_s"]),
            "state": "attached" if each["is_attached"] else f"{duration(each['lease_left_s'])} left",
            "tensors": each["tensors"],
            "bytes": size(each["tensor_bytes"]),
            "queue": each["batches"],
        }
        for each in facts
    ]


def tensors(options: argparse.Namespace) -> None:
    """Print the tensors of a session, which is named by its id or the beginning of that."""
    rows: list[dict[str, Any]] = []
    with asking(options) as server:
        pages = _pages(server, options.session)
    names = {each.tensor.id: each.name for page in pages for each in page.names}
    for page in pages:
        for each in page.tensors:
            numbers = [each.id.id, *each.id.path]
            rows.append(
                {
                    "id": ".".join(map(str, numbers)),
                    "name": names.get(each.id.id, "") if not each.id.path else "",
                    "shape": list(each.shape),
                    "dtype": str(BY_CODE[each.dtype]).removeprefix("torch."),
                    "device": each.device,
                    "elements": math.prod(each.shape),
                    "requires_grad": each.requires_grad,
                }
            )
    if options.json:
        print_json({"tensors": rows, "total_bytes": pages[0].total_bytes})
        return
    print(f"{len(rows)} tensors, {size(pages[0].total_bytes)}")
    print_table("", [{**row, "requires_grad": "yes" if row["requires_grad"] else ""} for row in rows])


def _pages(server: Server, session: str) -> list[ts.ListTensorsResponse]:
    found: list[ts.ListTensorsResponse] = []
    while not found or found[-1].next_page_token:
        token = found[-1].next_page_token if found else ""
        request = ts.ListSessionTensorsRequest(id=session, page_size=_PAGE, page_token=token)
        found.append(server.tensors("ListSessionTensors", request, ts.ListSessionTensorsResponse).page)
    return found


def models(options: argparse.Namespace) -> None:
    """Print the models that the caller may use: versions, states, queues and batches."""
    with asking(options) as server:
        rows = model_rows(server)
    if options.json:
        print_json(rows)
    elif not rows:
        print("there are no models that you may know of")
    else:
        print_table("", [{**row, "bytes": size(row["bytes"]), "batch": f"{row['batch']:.1f}"} for row in rows])


def model_rows(server: Server) -> list[dict[str, Any]]:
    """A row for each version of each model."""
    told = server.models("ListMlps", ms.ListMlpsRequest(), ms.ListMlpsResponse)
    return [{**_summary(each), **_statistics(server, each)} for each in told.mlps]


def _summary(told: ms.MlpSummary) -> dict[str, Any]:
    return {
        "name": told.name,
        "version": told.version,
        "state": ms.MlpState.Name(told.state).removeprefix(_STATE),
        "owner": told.owner,
        "parameters": told.parameters,
        "bytes": told.parameter_bytes,
        "max_batch": told.batching.max_batch_size,
    }


def _statistics(server: Server, of: ms.MlpSummary) -> dict[str, Any]:
    request = ms.GetMlpStatisticsRequest(name=of.name, version=of.version)
    try:
        told = server.models("GetMlpStatistics", request, ms.GetMlpStatisticsResponse).statistics
    except tclient.TensorError:
        # It has just been removed, or is not served.
        told = ms.MlpStatistics()
    runs = told.execution_count
    return {
        "queue": told.waiting,
        "requests": told.success.count,
        "failed": told.fail.count + told.rejected + told.timed_out,
        "rows": told.inference_count,
        # The mean number of rows of a forward pass, and how long one takes on average.
        "batch": told.inference_count / runs if runs else 0.0,
        "mean_ms": round(told.success.ns / told.success.count / 1e6, 3) if told.success.count else 0.0,
    }
