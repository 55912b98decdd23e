"""`tclient top`: what a server does now, looked at again and again; by rich in place, else one view after the other."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tclient._commands.asking import Server, address_of, asking
from tclient._commands.looking import device_facts, device_rows, model_rows, session_facts, session_rows
from tclient._commands.showing import Row, duration, is_rich, print_json, rich_table, text_table
from tclient._notebook import size
from tensorcompute.v1 import tensor_service_pb2 as ts

_MOST_ROWS = 20


def top(options: argparse.Namespace) -> None:
    """Show devices, sessions and models, until it is stopped; with `once` a single time."""
    with asking(options) as server:
        views = _views(server, address_of(options), options.interval_s)
        if options.json:
            for told in views:
                print_json(told)
                sys.stdout.flush()
                if options.once:
                    return
        elif options.once or not is_rich():
            for told in views:
                print("\n".join(_lines(told)), flush=True)
                if options.once:
                    return
                print()
        else:
            from rich.console import Group
            from rich.live import Live
            from rich.text import Text

            with Live(screen=True, auto_refresh=False) as live:
                for told in views:
                    tables = [rich_table(title, rows) for title, rows in _tables(told) if rows]
                    live.update(Group(Text(_head(told)), *tables, Text("Ctrl-C ends this")), refresh=True)


def _views(server: Server, address: str, interval_s: float) -> Iterator[dict[str, Any]]:
    """What is there, as often as is wanted."""
    before: dict[tuple[str, int], int] = {}
    looked_at = 0.0
    while True:
        began = time.monotonic()
        info = server.tensors("GetServerInfo", ts.GetServerInfoRequest(), ts.GetServerInfoResponse)
        sessions = server.tensors("ListSessions", ts.ListSessionsRequest(), ts.ListSessionsResponse)
        models = model_rows(server)
        passed_s = began - looked_at
        for model in models:
            seen = before.get((model["name"], model["version"]))
            model["rows_per_s"] = 0.0 if seen is None else max(0.0, (model["rows"] - seen) / passed_s)
        before = {(model["name"], model["version"]): model["rows"] for model in models}
        looked_at = began
        yield {
            "address": address,
            "version": info.version,
            "uptime_s": info.uptime_s,
            "used_memory_bytes": info.used_memory_bytes,
            "max_memory_bytes": info.max_memory_bytes,
            "sessions_of_all": info.sessions,
            "devices": device_facts(info),
            "sessions": session_facts(sessions),
            "models": models,
        }
        time.sleep(max(0.0, interval_s - (time.monotonic() - began)))


def _head(told: dict[str, Any]) -> str:
    memory = f", {size(told['used_memory_bytes'])} of memory" if told["used_memory_bytes"] else ""
    up = duration(told["uptime_s"])
    return f"{told['address']}  server {told['version']}, up {up}, {told['sessions_of_all']} sessions{memory}"


def _tables(told: dict[str, Any]) -> Iterator[tuple[str, Sequence[Row]]]:
    yield "devices", device_rows(told["devices"])
    yield "sessions", session_rows(told["sessions"][:_MOST_ROWS])
    wanted = ("name", "version", "state", "queue", "requests", "failed", "mean_ms")
    yield (
        "models",
        [
            {
                **{name: model[name] for name in wanted},
                "batch": f"{model['batch']:.1f}",
                "rows/s": f"{model['rows_per_s']:.0f}",
            }
            for model in told["models"][:_MOST_ROWS]
        ],
    )


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [_head(told)]
    for title, rows in _tables(told):
        if rows:
            lines += ["", *text_table(title, rows)]
    return lines
