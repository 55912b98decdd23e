"""`tclient bench`: how fast a server is from here, as a program would find it. A small look, and no measurement."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import statistics
import time
from collections.abc import Callable

import numpy as np

import tclient
from tclient._commands.asking import address_of, trust_of
from tclient._commands.showing import print_json, print_table

_CHAIN = 1000
_WIDTHS = [64, 128, 10]
_WARM = 3


def bench(options: argparse.Namespace) -> None:
    """Time operations, transfers and forward passes, and print what was found."""
    found = []
    with tclient.connect(address_of(options), timeout_s=options.timeout_s, **trust_of(options)) as session:
        for what, unit, measure in (
            ("operation and its result", "ms", _round_trip),
            (f"one of {_CHAIN} operations in a row", "us", _chain),
            (f"upload of {options.size_mib} MiB", "MiB/s", lambda limit_s: _upload(limit_s, options.size_mib)),
            (f"download of {options.size_mib} MiB", "MiB/s", lambda limit_s: _download(limit_s, options.size_mib)),
            ("forward passes of one row, one by one", "1/s", lambda limit_s: _forwards(limit_s, 1)),
            ("rows of forward passes of 64", "1/s", lambda limit_s: _forwards(limit_s, 64)),
        ):
            found.append({"what": what, "median": measure(options.seconds), "unit": unit})
        address, device = session.address, session.opened.default_device
    if options.json:
        print_json({"address": address, "device": device, "results": found})
    else:
        rows = [{"what": each["what"], "median": f"{each['median']:.4g}", "unit": each["unit"]} for each in found]
        print_table(f"{address}, {device}", rows)


def _median_s(run: Callable[[], object], limit_s: float) -> float:
    """How long a run takes, after a few that warm up; as many are looked at as there is time for."""
    for _ in range(_WARM):
        run()
    times: list[float] = []
    until = time.perf_counter() + limit_s
    while not times or time.perf_counter() < until:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _round_trip(limit_s: float) -> float:
    x = tclient.ones(8)
    return _median_s(lambda: (x + 1).sum().item(), limit_s) * 1e3


def _chain(limit_s: float) -> float:
    def run() -> None:
        x = tclient.ones(8)
        for _ in range(_CHAIN):
            x = x + 1
        x[0].item()

    return _median_s(run, limit_s) / _CHAIN * 1e6


def _upload(limit_s: float, size_mib: int) -> float:
    array = np.ones(size_mib << 18, np.float32)

    def run() -> None:
        tclient.from_numpy(array)[0].item()

    return size_mib / _median_s(run, limit_s)


def _download(limit_s: float, size_mib: int) -> float:
    x = tclient.ones(size_mib << 18)
    return size_mib / _median_s(x.numpy, limit_s)


def _forwards(limit_s: float, rows: int) -> float:
    name = f"bench-{secrets.token_hex(4)}"
    served = tclient.models.create(name, tclient.nn.MLP(_WIDTHS))
    try:
        inputs = np.zeros((rows, _WIDTHS[0]), np.float32)
        return rows / _median_s(lambda: served(inputs), limit_s)
    finally:
        # Whatever ended it: a model outlives its session.
        with contextlib.suppress(tclient.TensorError):
            served.delete()
