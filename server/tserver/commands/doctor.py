"""`tserver doctor`: whether a server with these settings would run here, and run well. Changes nothing.

A check yields what it has found; which checks there are stands in CHECKS. torch is asked in a process of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from tserver import extras, host
from tserver.commands import places
from tserver.config import Config
from tserver.credentials import pem, tokens
from tserver.supervisor import PortTaken, environment, reserve

OK, WARN, FAIL = "ok", "warn", "fail"
_COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}
_GIB = 1 << 30
_TORCH_TIMEOUT_S = 120.0
_DAY_S = 86400
# How long before its end a certificate is to be renewed, and what is little room.
_SOON_DAYS = 14
_LITTLE_BYTES = _GIB
_FILES = 65536
# Of adjtimex: nothing keeps the clock right.
_CLOCK_IS_FREE = 5
# Packages that a server does without, and what it then lacks.
_BESIDE = {
    "uvloop": "without it a round trip takes longer",
    "grpc_health": "without it there are no health checks (pip: grpcio-health-checking)",
    "grpc_reflection": "without it grpcurl must be given the proto files (pip: grpcio-reflection)",
}


@dataclass(frozen=True, slots=True)
class Found:
    """One line: what was looked at, how it is, and what to do about that."""

    check: str
    state: str
    text: str
    remedy: str = ""


Check = Callable[[Config], Iterator[Found]]


def command(options: Callable[[Any], Any], together: Callable[[dict[str, Any]], tuple[Config, str]]) -> click.Command:
    """The command. `options` gives it those of `tserver serve`; `together` makes of them a Config and what --insecure
    opens, or raises UsageError for what does not go together.
    """

    @click.command()
    @options
    @click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
    def doctor(as_json: bool, **given: Any) -> None:
        """See whether a server with these settings would run here, and what is to be done where not.

        Takes the options, variables and file of `tserver serve`. Ends with 1 where a check has failed; what is only
        warned of lets a server start. One that runs already is not asked: its port is told to be in use.
        """
        found = []
        config = Config(**given)
        try:
            config, open_to = together(given)
            remedy = "give a certificate and tokens: --tls-cert, --tls-key, --tokens" if open_to else ""
            text = f"--insecure: {open_to}" if open_to else "they go together"
            found.append(Found("settings", WARN if open_to else OK, text, remedy))
        except click.UsageError as error:
            found.append(Found("settings", FAIL, error.message))
        for check in CHECKS:
            found += check(config)
        if as_json:
            click.echo(json.dumps([asdict(each) for each in found], indent=2))
        else:
            width = max(len(each.check) for each in found)
            for each in found:
                click.echo(
                    f"{click.style(f'{each.state:4}', fg=_COLOURS[each.state])}  {each.check:{width}}  {each.text}"
                )
                if each.remedy:
                    click.echo(f"{'':4}  {'':{width}}  -> {each.remedy}")
        if any(each.state == FAIL for each in found):
            sys.exit(1)

    return doctor


def _python(config: Config) -> Iterator[Found]:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform == "linux":
        yield Found("Python", OK, text)
    else:
        yield Found("Python", FAIL, text, "the server needs Linux; clients run anywhere")


def _packages(config: Config) -> Iterator[Found]:
    absent = extras.missing(config)
    if absent:
        yield Found("packages", FAIL, absent)
    else:
        yield Found("packages", OK, "all that these settings need are installed")
    for name, without in _BESIDE.items():
        if not extras.is_there(name):
            yield Found("packages", WARN, f"{name} is not installed: {without}", "pip install 'tclient[server]'")


def _torch(config: Config) -> Iterator[Found]:
    if not extras.is_there("torch"):
        return
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tserver.engine.torch_report"],
            capture_output=True,
            text=True,
            timeout=_TORCH_TIMEOUT_S,
            check=False,
            env=environment(os.environ),
        )
        told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        yield Found(
            "torch", FAIL, f"it was not imported within {_TORCH_TIMEOUT_S:g} s", "look at the disk and the load"
        )
        return
    if told is None:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Found("torch", FAIL, f"it cannot be imported: {last}", "install it again: pip install 'tclient[server]'")
        return
    yield Found(
        "torch", OK, f"{told['torch']}, built for {'CUDA ' + told['cuda'] if told['cuda'] else 'the CPU alone'}"
    )
    yield from _devices(config, told)
    if told["is_compiled"]:
        yield Found("compiled core", OK, "calls are run by it")
    else:
        why = "TSERVER_NATIVE=0 says so" if os.environ.get("TSERVER_NATIVE") == "0" else "it was not built"
        yield Found(
            "compiled core", WARN, f"calls are run in pure Python: {why}", "install again where a C compiler is"
        )


def _devices(config: Config, told: dict[str, Any]) -> Iterator[Found]:
    for each in told["devices"]:
        state = WARN if each["free"] < _LITTLE_BYTES else OK
        remedy = "end what else takes its memory" if state == WARN else ""
        text = f"{each['name']} ({each['what']}): {_size(each['free'])} of {_size(each['total'])} are free"
        yield Found("device", state, text, remedy)
    names = {each["name"] for each in told["devices"]}
    driver = _driver()
    if "cuda:0" not in names and (driver or told["cuda"]):
        text = f"torch sees no GPU; the driver is {driver or 'not there'}"
        remedy = "a torch for CUDA, and a driver that is new enough for it" if driver else "install the NVIDIA driver"
        wanted = config.device.startswith("cuda")
        yield Found("CUDA", FAIL if wanted else WARN if driver else OK, text, remedy if wanted or driver else "")
    elif driver:
        yield Found("CUDA", OK, f"the driver is {driver}")
    for wish in filter(None, config.device.split(",")):
        exact = {"cuda": "cuda:0", "cuda:all": "cuda:0"}.get(wish, wish)
        if wish != "auto" and exact not in names:
            remedy = f"give one of those that there are: {', '.join(sorted(names))}"
            yield Found("device", FAIL, f"--device {config.device}: {wish} is not there", remedy)


def _driver() -> str:
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""
    return next((word for word in first.split() if word[:1].isdigit()), first)


def _memory(config: Config) -> Iterator[Found]:
    total, available = host.total_bytes(), host.available_bytes()
    text = f"{_size(available)} of {_size(total)} are free for this machine or its cgroup"
    if available < _LITTLE_BYTES:
        yield Found("memory", WARN, text, "a server takes about 500 MiB itself: raise the limit of the cgroup")
    elif config.max_memory_bytes > available:
        yield Found("memory", WARN, f"{text}, and --max-memory-bytes is {_size(config.max_memory_bytes)}", "lower it")
    else:
        yield Found("memory", OK, text)


def _ports(config: Config) -> Iterator[Found]:
    for option, address in config.listeners().items():
        try:
            reserve(address, option, unix=option in ("--listen", "--oip-listen"))
            yield Found("address", OK, f"{option} {address} can be listened on")
        except (PortTaken, ValueError) as error:
            text, _, remedy = str(error).partition("; ")
            yield Found("address", FAIL, text, remedy)


def _folders(config: Config) -> Iterator[Found]:
    try:
        places.check(config)
    except OSError as error:
        yield Found("files", FAIL, str(error), "name what is there, and can be used by the user of the server")
    if not config.data_dir:
        yield Found(
            "data directory", WARN, "there is none: what callers keep is gone with the server", "--data-dir DIR"
        )
        return
    path = Path(config.data_dir)
    if not path.is_dir():
        yield Found("data directory", OK, f"{path} is not there yet; the server makes it")
        return
    about = path.stat()
    if about.st_uid != os.geteuid():
        who = f"it belongs to user {about.st_uid}, and this is user {os.geteuid()}"
        yield Found("data directory", FAIL, f"{path}: {who}", "run the server as that user, or chown it")
    elif mode := stat.S_IMODE(about.st_mode) & 0o077:
        yield Found(
            "data directory", WARN, f"{path}: others may use it (mode {mode:03o})", "the server makes it private"
        )
    else:
        yield Found("data directory", OK, f"{path} is this user's alone")
    free = shutil.disk_usage(path).free
    state, remedy = (WARN, "make room, or name another disk") if free < _LITTLE_BYTES else (OK, "")
    yield Found("disk", state, f"{_size(free)} are free at {path}", remedy)


def _tls(config: Config) -> Iterator[Found]:
    if config.tls_cert and config.tls_key:
        named = f"--tls-cert {config.tls_cert} and --tls-key {config.tls_key}"
        if cause := pem.pair_fault(config.tls_cert, config.tls_key):
            yield Found("TLS", FAIL, f"{named}: {cause}", "name a certificate chain and its own key, both in PEM")
        else:
            yield Found("TLS", OK, f"{named} go together")
    for option, path in (("--tls-cert", config.tls_cert), ("--tls-client-ca", config.tls_client_ca)):
        if path:
            yield _expiry(option, path)


def _expiry(option: str, path: str) -> Found:
    try:
        begin, end = pem.validity(pem.first(Path(path).read_bytes()))
    except (OSError, ValueError) as error:
        return Found("TLS", FAIL, f"{option} {path}: {error}", "name a certificate in PEM")
    now = time.time()
    text = f"{option} {path} is good until {time.strftime('%Y-%m-%d %H:%M', time.gmtime(end))} UTC"
    if now < begin:
        return Found("TLS", FAIL, f"{option} {path} is not valid yet", "set the clock right, or wait")
    if now > end:
        return Found("TLS", FAIL, f"{option} {path} has expired", "renew it; a running server reads it again")
    if end - now < _SOON_DAYS * _DAY_S:
        return Found("TLS", WARN, text, "renew it; a running server reads it again")
    return Found("TLS", OK, text)


def _tokens(config: Config) -> Iterator[Found]:
    if not config.tokens:
        if not config.has_credentials:
            yield Found("tokens", OK, "there are none: whoever reaches the server can use it")
        return
    path = Path(config.tokens)
    try:
        found = tokens.listed(path)
    except (OSError, ValueError) as error:
        yield Found("tokens", FAIL, f"--tokens {path}: {error}", "make one: tserver token create")
        return
    good = [each for each in found if each.is_good(time.time())]
    if not good:
        yield Found("tokens", WARN, f"{path} has none that is good: nobody gets in", "tserver token create")
    else:
        next_end = min(each.expires for each in good)
        days = (next_end - time.time()) / _DAY_S
        text = f"{path} has {len(good)} that are good; the next one ends in {days:.0f} days"
        yield Found("tokens", OK, text)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Found("tokens", WARN, f"{path} can be read by others", f"chmod 600 {path}")


def _clock(config: Config) -> Iterator[Found]:
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    # A struct timex of zeros asks, and changes nothing.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if state == _CLOCK_IS_FREE:
        remedy = "run an NTP service on the host: certificates and tokens end by the clock"
        yield Found("clock", WARN, f"{now} UTC, and nothing keeps it right", remedy)
    else:
        yield Found("clock", OK, f"{now} UTC")


def _limits(config: Config) -> Iterator[Found]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        text = f"at most {hard} open files: connections are bounded by that"
        yield Found("open files", WARN, text, f"ulimit -Hn {_FILES}, or LimitNOFILE= of systemd")
    else:
        yield Found("open files", OK, f"{'no limit' if hard == resource.RLIM_INFINITY else hard} (now {soft})")


CHECKS: tuple[Check, ...] = (
    _python,
    _packages,
    _torch,
    _memory,
    _ports,
    _folders,
    _tls,
    _tokens,
    _clock,
    _limits,
)


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"
