"""The command line: `tclient run script.py`, `tclient run -m package.module`, and commands that look at a server."""

from __future__ import annotations

import argparse
import atexit
import builtins
import contextlib
import io
import os
import pkgutil
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType

import tclient
from tclient._commands import asking
from tclient._commands.asking import ADDRESS
from tclient._launcher.alias import as_torch
from tclient._launcher.local import can_serve, local_server
from tclient._session.current import close_sessions

_CANNOT_OPEN = 2
_TOKEN, _TOKEN_FILE = "TCLIENT_TOKEN", "TCLIENT_TOKEN_FILE"
_PROFILE = "--profile"
# Options whose value is the next argument.
_WITH_VALUE = ("--address", "--tls-ca", "--tls-cert", "--tls-key", "--token-file")
# What a shell makes of the number of a signal.
_ENDED_BY = 128


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a program ends with is how it ends."""
    options = parser().parse_args(_with_values(sys.argv[1:] if arguments is None else arguments))
    if options.command == "run":
        _run_program(options)
    else:
        _look(options)


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    whole = argparse.ArgumentParser(prog="tclient", description="A client of a tensor server that reads like torch.")
    whole.add_argument("--version", action="version", version=f"tclient {tclient.__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        allow_abbrev=False,
        help="run a program for torch, unchanged, on a server",
        description="Run a program for torch, unchanged, on a server: in its process, `import torch` means tclient.",
        usage="tclient run [options] (script.py | -m package.module) [arguments of the program]",
    )
    where = run.add_mutually_exclusive_group()
    where.add_argument(
        "--address", metavar="HOST:PORT", help=f"a running server; {ADDRESS}, if it is set. Without either, as --local"
    )
    where.add_argument("--local", action="store_true", help="start a server here, and stop it when the program ends")
    asking.add_trust(run)
    run.add_argument(
        "--synchronous", action="store_true", help="every call waits, and raises its error at its own line"
    )
    run.add_argument(
        _PROFILE,
        metavar="FILE",
        help="at the end, say on stderr which lines waited for the server, for what and how long; "
        "--profile=FILE writes it as JSON",
    )
    run.add_argument("-m", action="store_true", dest="is_module", help="the program is a module, as in `python -m`")
    run.add_argument("program", nargs=argparse.REMAINDER, help="script or module, and its arguments")
    run.set_defaults(parser=run)
    for name, (what, add) in _LOOKING.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
        add(command)
        asking.add_address(command)
    return whole


def _nothing(command: argparse.ArgumentParser) -> None:
    pass


def _ping(command: argparse.ArgumentParser) -> None:
    command.add_argument("--count", type=_count, default=20, metavar="N", help="how many round trips (20)")


def _tensors(command: argparse.ArgumentParser) -> None:
    command.add_argument("session", metavar="SESSION", help="its id, or the beginning of that: see tclient sessions")


def _top(command: argparse.ArgumentParser) -> None:
    command.add_argument("--once", action="store_true", help="look once, and end")
    command.add_argument("--interval-s", type=_interval, default=1.0, metavar="S", help="between two looks (1)")


def _bench(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seconds", type=_interval, default=1.0, metavar="S", help="for each thing (1)")
    command.add_argument("--size-mib", type=_count, default=64, metavar="N", help="of what is moved (64)")


def _count(text: str) -> int:
    if not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 1000000")
    return int(text)


def _interval(text: str) -> float:
    if not 0.01 <= float(text) <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0.01 to 3600")
    return float(text)


# The other commands: what each does, and the options that it has beside those of a connection.
_LOOKING: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "ping": ("measure round trips to a server", _ping),
    "info": ("say what a server is and has, and what you may use of it", _nothing),
    "sessions": ("list your sessions, or all for an administrator", _nothing),
    "tensors": ("list the tensors of a session", _tensors),
    "models": ("list models with their versions, states, queues and batches", _nothing),
    "top": ("show devices, sessions and models, again and again", _top),
    "bench": ("see how fast a server is from here", _bench),
}


def _look(options: argparse.Namespace) -> None:
    """Run one of the other commands. Ctrl-C, and a reader that has gone, end it without a word."""
    from tclient._commands import bench, looking, top

    functions = {"top": top.top, "bench": bench.bench}
    try:
        functions.get(options.command, getattr(looking, options.command, None))(options)  # type: ignore[misc]
        sys.stdout.flush()
    except tclient.InvalidAddress as error:
        print(f"tclient: {error}", file=sys.stderr)
        sys.exit(_CANNOT_OPEN)
    except (tclient.TensorError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(_ENDED_BY + signal.SIGPIPE)
        sys.exit(f"tclient: {error}")
    except KeyboardInterrupt:
        sys.exit(_ENDED_BY + signal.SIGINT)


def _run_program(options: argparse.Namespace) -> None:
    if not options.program:
        options.parser.error("a script or -m module is missing")
    name, *its_arguments = options.program
    if not options.is_module and not os.path.exists(name):
        print(f"tclient: can't open file {os.path.abspath(name)!r}: No such file or directory", file=sys.stderr)
        sys.exit(_CANNOT_OPEN)
    _connect(None if options.local else options.address or os.environ.get(ADDRESS), options)
    as_torch()
    if options.profile is not None:
        from tclient._launcher.profile import profiled

        stack = contextlib.ExitStack()
        stack.enter_context(profiled(options.profile and os.path.abspath(options.profile)))
        # After the traceback, and after what the program itself does at exit.
        atexit.register(stack.close)
    sys.argv = [name, *its_arguments]
    if not sys.flags.safe_path:
        # As Python has it, in the place of the launcher's own folder.
        sys.path[0] = os.getcwd() if options.is_module else os.path.dirname(os.path.realpath(name))
    _run(name, options.is_module)


def _with_values(arguments: Sequence[str]) -> list[str]:
    """The arguments, with a value for a `--profile` that has none: the name behind it is the program's."""
    given = list(arguments)
    for index, each in enumerate(given[1:], 1):
        if each == _PROFILE:
            given[index] = f"{_PROFILE}="
        if each == "-m" or not (each.startswith("-") or given[index - 1] in _WITH_VALUE):
            break
    return given


def _connect(address: str | None, options: argparse.Namespace) -> None:
    """Connect to the server named, or to one of our own, before the program begins."""
    if address is None:
        if not options.local and not can_serve():
            sys.exit(
                f"tclient: no server is named: give --address HOST:PORT, or set {ADDRESS}. "
                "To run one here, install it: pip install 'tclient[server]'"
            )
        stack = contextlib.ExitStack()
        address = stack.enter_context(local_server())
        stack.callback(close_sessions)
        # What the program itself does at exit is done before this.
        atexit.register(stack.close)
    # For processes that the program starts, and for those that fork.
    os.environ[ADDRESS] = address
    if options.token_file is not None:
        os.environ.pop(_TOKEN, None)
        os.environ[_TOKEN_FILE] = os.path.abspath(options.token_file)
    if options.tls:
        os.environ["TCLIENT_TLS"] = "1"
    for name in ("tls_ca", "tls_cert", "tls_key"):
        if path := getattr(options, name):
            os.environ[f"TCLIENT_{name.upper()}".removesuffix("_CA")] = os.path.abspath(path)
    try:
        tclient.connect(address, synchronous=options.synchronous)
    except tclient.TensorError as error:
        sys.exit(f"tclient: {error}")


def _run(name: str, is_module: bool) -> None:
    """Run the program as __main__. What it raises is shown without the frames that lead to it."""
    try:
        if is_module:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        elif pkgutil.get_importer(name) is not None:
            runpy.run_path(name, run_name="__main__")  # a folder or an archive
        else:
            _run_script(name)
    except SystemExit:
        raise
    except BaseException as error:
        trace = _of_the_program(error.__traceback__)
        if is_module and trace is None and isinstance(error, ImportError):
            sys.exit(f"tclient: {error}")
        _show_from(trace)
        raise


def _run_script(name: str) -> None:
    """Run a file as Python runs a script: by its absolute path, while argv has the path that was given."""
    path = os.path.abspath(name)
    program = ModuleType("__main__")
    vars(program).update(__file__=path, __builtins__=builtins, __loader__=SourceFileLoader("__main__", path))
    # It stays: threads and work at exit may still mean it.
    sys.modules["__main__"] = program
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, vars(program))  # noqa: S102 - the caller's own program, in the caller's own process


def _of_the_program(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins in the program."""
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in (__name__, "runpy", "pkgutil"):
        trace = trace.tb_next
    return trace


def _show_from(trace: TracebackType | None) -> None:
    """Have Python show the error that ends the program from there on, by the hook that the program may have set."""
    hook = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        hook(kind, error.with_traceback(trace), trace)

    sys.excepthook = show
