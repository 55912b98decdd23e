"""The process that engines are forked from: it has imported what they need, which takes seconds, and done nothing yet.

    supervisor              --- asks, over a socket, with the descriptors that the engine is to have
        ├── fork server     --- one thread; no CUDA, no server of gRPC, no thread of torch's, before or after
        └── engine          --- forked twice, so that it is a child of the supervisor, and ends with that one

An engine tells the supervisor itself that it is there: so the fork server may end at any moment.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from tserver import child, logs
from tserver.config import Config
from tserver.engines.house import House
from tserver.extras import told

_BEAT_S = 1.0
_MAX_REQUEST_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1
_SHOWN_GPUS = "CUDA_VISIBLE_DEVICES"
# What a server imports as it begins, where it is installed.
_SOON = (
    "numpy.random",
    "uvloop",
    "grpc_health.v1.health",
    "grpc_health.v1.health_pb2_grpc",
    "grpc_reflection.v1alpha.reflection",
    "google.rpc.error_details_pb2",
)
_prctl = ctypes.CDLL(None).prctl


def main() -> int:
    """Import, and fork on demand, until the socket ends; the exit code."""
    settings = json.loads(sys.argv[1])
    logs.set_up(settings["log_level"], settings["log_format"])
    child.name_process("tserver-forks")
    beats: int = settings["beats"]
    os.set_blocking(beats, False)
    supervisor = os.getppid()
    try:
        load()
    except ModuleNotFoundError as error:
        print(told(error), file=sys.stderr)
        return 1
    with socket.socket(fileno=settings["asked"]) as asked:
        asked.send(b"{}")
        while True:
            with contextlib.suppress(BlockingIOError):
                os.write(beats, b".")
            if not select.select([asked], [], [], _BEAT_S)[0]:
                continue
            data, fds, _, _ = socket.recv_fds(asked, _MAX_REQUEST_BYTES, 2)
            if not data:
                return 0
            try:
                _fork(supervisor, json.loads(data), fds)
            except OSError as error:
                # Nobody has the engine's descriptors then, which tells it.
                print(f"tserver: an engine cannot be forked: {error}", file=sys.stderr)
            finally:
                for fd in fds:
                    os.close(fd)


def load() -> None:
    """Import all that an engine needs, without a thread: one would not be there in what is forked."""
    # numpy's products are asked of nobody here, and its threads begin with its import.
    given = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        import tserver.engines.in_process
        import tserver.front.server  # noqa: F401

        for name in _SOON:
            with contextlib.suppress(ModuleNotFoundError):
                import_module(name)
    finally:
        if given is None:
            del os.environ["OPENBLAS_NUM_THREADS"]
        else:
            os.environ["OPENBLAS_NUM_THREADS"] = given
    gc.collect()
    gc.freeze()


def _fork(supervisor: int, request: dict[str, Any], fds: Sequence[int]) -> None:
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    try:
        between = os.getpid()
        if not os.fork():
            become([], None, lambda: _engine(supervisor, between, request, *fds))
    finally:
        os._exit(0)


def _engine(supervisor: int, between: int, request: dict[str, Any], beats: int, report_to: int) -> int:
    """What an engine does first, and then all that it is there for."""
    from tserver.engines.in_process import forked

    fresh_signals()
    os.setsid()
    # Who starts a server reads from there where it listens.
    os.dup2(2, 1)
    close_all_but(0, 1, 2, beats, report_to)
    house = House(**request["house"])
    child.name_process(f"tserver:{house.engine}")
    reports = socket.socket(fileno=report_to)
    reports.send(json.dumps({"pid": os.getpid()}).encode())
    _end_with(supervisor, between)
    if request["gpus"] is not None:
        os.environ[_SHOWN_GPUS] = _shown(request["gpus"], os.environ.get(_SHOWN_GPUS))
    forked()
    config = Config(**request["config"])
    logs.set_up(config.log_level, config.log_format, engine=house.engine)

    def report(boot_id: str, address: str) -> None:
        message = {"boot_id": boot_id, "endpoint": address, "internal": house.internal}
        reports.send(json.dumps(message).encode())

    return child.serve_engine(
        config,
        previous_end=request["previous_end"],
        cause_file=request["cause_file"],
        beats=beats,
        house=house,
        report=report,
    )


def _end_with(supervisor: int, between: int) -> None:
    """End when the supervisor ends, however that happens, once this is its child."""
    while os.getppid() == between:
        time.sleep(0.0005)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)


def _shown(gpus: Sequence[int], given: str | None) -> str:
    """The GPUs that an engine is shown, of those that this process was."""
    names = None if given is None else [name.strip() for name in given.split(",")]
    return ",".join(str(gpu) if names is None else names[gpu] for gpu in gpus)


# What else is forked from a Python that has imported torch needs this too: servers under test.


def fresh_signals() -> None:
    """Take signals as a Python does that was just started."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def close_all_but(*kept: int) -> None:
    """Close all descriptors from 3 on that are not among these."""
    last = 2
    for fd in sorted({*kept, os.sysconf("SC_OPEN_MAX")}):
        if fd > last:
            os.closerange(last + 1, fd)
            last = fd


def become(arguments: Sequence[str], env: dict[str, str] | None, run: Callable[[], int | str | None]) -> NoReturn:
    """In a process that was forked: be one that runs this, and end as Python ends. `env` None leaves it as it is."""
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    sys.argv = list(arguments)
    code: int | str | None = 1
    try:
        code = run()
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    sys.exit(main())
