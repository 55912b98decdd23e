"""What the rooms of the house may know of each other, read from the code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.serving import ROOT, server_environment

SERVER = ROOT / "server" / "tserver"
CLIENT = ROOT / "client" / "tclient"

# Each room of the server, and those behind it, which it may import.
BEHIND = {
    "front": {"engines", "session", "models", "credentials"},
    "engines": {"session", "models", "storage", "engine"},
    "session": {"storage", "engine"},
    "models": {"engine", "storage"},
    "storage": set[str](),
    "engine": set[str](),
    "credentials": {"storage"},
}
# They stand beside the rooms: what everyone may import, and the ways in, which nobody imports but each other.
BESIDE = {
    *("", "audit", "config", "errors", "extras", "host", "identity", "limits", "logs", "tracing", "visible_gpus"),
    "watched",
}
WAYS_IN = {
    "__main__": {"cli"},
    "cli": {"supervisor", "cluster", "credentials", "commands"},
    "commands": {"supervisor", "credentials", "models", "storage"},
    "cluster": {"supervisor", "child", "engines"},
    "supervisor": {"engines"},
    "child": {"front", "engines"},
    "fork_server": {"child", "front", "engines"},
}
# Imports within functions, and why they are not at the top.
LATE = {
    ("tserver.__main__", "tserver.cli"): "without click, it is told what to install",
    ("tserver.child", "tserver.engines.in_process"): "a mistake in the settings is told without waiting for torch",
    ("tserver.child", "tserver.front.server"): "without gRPC, it is told what to install",
    ("tserver.child", "tserver.engines.processes"): "a front alone has engines that are processes",
    ("tserver.child", "tserver.front.many"): "a front alone has many engines behind it",
    ("tserver.cluster.commands", "tserver.cluster.actors"): "without Ray, it is told what to install",
    ("tserver.fork_server", "tserver.engines.in_process"): "without torch, it is told what to install",
    ("tserver.fork_server", "tserver.front.server"): "without gRPC, it is told what to install",
    ("tserver.front.server", "tserver.front.http.listener"): "a GPU host may lack aiohttp",
    ("tserver.front.authentication", "tserver.credentials.jwks"): "who takes no such tokens may lack PyJWT",
    ("tserver.front.server", "tserver.front.metrics"): "a GPU host may lack prometheus_client",
    ("tserver.front.server", "tserver.front.page.engine_page"): "who serves no HTTP has no page",
    ("tserver.front.server", "tserver.front.page.routes"): "who serves no HTTP has no page",
    ("tserver.front.house_service", "tserver.front.page.engine_page"): "who serves no HTTP has no page",
    ("tserver.front.many", "tserver.front.page.house_page"): "who serves no HTTP has no page",
    ("tserver.front.many", "tserver.front.page.routes"): "who serves no HTTP has no page",
    ("tserver.front.house_service", "tserver.front.metrics"): "a GPU host may lack prometheus_client",
    ("tserver.front.many", "tserver.front.house_metrics"): "a GPU host may lack prometheus_client",
    ("tserver.front.many", "tserver.front.http.listener"): "a GPU host may lack aiohttp",
    ("tserver.tracing.tracer", "tserver.tracing.otlp"): "who exports no traces may lack OpenTelemetry",
}

# The packages of the client's core, and those below each. What else is in tclient is torch's own names.
CORE = {
    "_session": {"_transfer", "_transport", "_codec", "_native"},
    "_transfer": {"_transport", "_codec"},
    "_transport": set[str](),
    "_codec": {"_native"},
    "_native": set[str](),
}
BESIDE_CORE = {"_exceptions", "_caller", "_notebook"}
# What begins an RPC on a channel of gRPC.
RPC_KINDS = {"unary_unary", "unary_stream", "stream_unary", "stream_stream", "segregated_call"}


@dataclass(frozen=True)
class Import:
    """One module that another one imports, at the top, in a function, or for its types only."""

    by: str
    module: str
    is_late: bool


def modules_of(package: Path) -> dict[str, ast.Module]:
    """The modules of a package, by their dotted names, parsed."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def imports_of(modules: dict[str, ast.Module]) -> list[Import]:
    """All imports of these modules; `from package import module` counts as one of the module."""
    return [found for name, tree in modules.items() for found in _imports(name, tree, modules)]


def _imports(name: str, tree: ast.Module, modules: dict[str, ast.Module]) -> Iterator[Import]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, id(node) in late)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert not node.level, f"{name}: relative imports are not followed here"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(name, inner if inner in modules else node.module, id(node) in late)


def naming(modules: dict[str, ast.Module], attributes: set[str]) -> set[str]:
    """The modules that use one of these attributes of anything."""
    return {
        name
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in attributes
    }


def room_of(module: str) -> str:
    """The room of a module of the server, or the module beside the rooms; empty is the package itself."""
    return module.removeprefix("tserver").removeprefix(".").partition(".")[0]


def circles_of(imports: list[Import]) -> list[list[str]]:
    """Chains of modules that import each other in a circle."""
    graph: dict[str, set[str]] = {}
    for found in imports:
        graph.setdefault(found.by, set()).add(found.module)
    circles: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            circles.append([*path[path.index(module) :], module])
        elif module not in done:
            for behind in sorted(graph.get(module, ())):
                visit(behind, [*path, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return circles


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    """The modules of the server."""
    return modules_of(SERVER)


@pytest.fixture(scope="module")
def imports(modules: dict[str, ast.Module]) -> list[Import]:
    """Their imports of each other, also those for types only."""
    return [found for found in imports_of(modules) if found.module.partition(".")[0] == "tserver"]


def test_every_module_is_in_a_room_or_stands_beside_them(modules: dict[str, ast.Module]) -> None:
    assert {room_of(module) for module in modules} == {*BEHIND, *BESIDE, *WAYS_IN}


def test_imports_go_downwards_only(imports: list[Import]) -> None:
    allowed = {**BEHIND, **WAYS_IN, **{room: set[str]() for room in BESIDE}}
    wrong = [
        f"{found.by} imports {found.module}"
        for found in imports
        if room_of(found.module) not in {room_of(found.by), *allowed[room_of(found.by)], *BESIDE}
    ]
    assert wrong == []


def test_nothing_is_imported_in_a_circle(imports: list[Import]) -> None:
    assert circles_of(imports) == []


def test_imports_within_functions_have_a_reason(imports: list[Import]) -> None:
    assert {(found.by, found.module) for found in imports if found.is_late} == set(LATE)


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("torch", {"engine"}),
        ("grpc", {"front", "commands"}),
        ("prometheus_client", {"front"}),
        ("aiohttp", {"front"}),
        ("ray", {"cluster"}),
        ("opentelemetry", {"tracing"}),
        ("asyncio", None),
    ],
    ids=["torch", "gRPC", "Prometheus", "aiohttp", "Ray", "OpenTelemetry", "asyncio"],
)
def test_a_library_is_imported_in_its_room_only(
    modules: dict[str, ast.Module], library: str, rooms: set[str] | None
) -> None:
    found = {room_of(one.by) for one in imports_of(modules) if one.module.partition(".")[0] == library}
    assert found == rooms if rooms is not None else "engine" not in found


def test_status_codes_are_named_in_one_module(modules: dict[str, ast.Module]) -> None:
    assert naming(modules, {"StatusCode"}) == {"tserver.front.status"}


def _without(named: list[str], *modules: str) -> None:
    """Import modules of the server, and see that others are not there then."""
    found = f"', '.join({set(modules)} & set(sys.modules))"
    program = f"import sys, {', '.join(named)}; sys.exit({found} or 0)"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=server_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_front_and_its_port_run_without_torch(modules: dict[str, ast.Module]) -> None:
    named = [name for name in modules if room_of(name) in {"front", "session"}]
    named += [f"tserver.engines.{name}" for name in ("port", "fleet", "directory", "placement", "processes")]
    _without(named, "torch", "tserver.engine.engine")


def test_the_supervisor_needs_next_to_nothing(modules: dict[str, ast.Module]) -> None:
    named = [name for name in modules if room_of(name) == "supervisor"]
    _without(named, "torch", "numpy", "grpc", "asyncio", "google.protobuf")


@pytest.fixture(scope="module")
def client() -> dict[str, ast.Module]:
    """The modules of the client."""
    return modules_of(CLIENT)


def _core_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_of_the_client_s_core_go_downwards_only(client: dict[str, ast.Module]) -> None:
    core = [found for found in imports_of(client) if _core_of(found.by) in CORE and found.module.startswith("tclient")]
    wrong = [
        f"{found.by} imports {found.module}"
        for found in core
        if _core_of(found.module) not in {_core_of(found.by), *CORE[_core_of(found.by)], *BESIDE_CORE}
    ]
    assert wrong == []
    assert circles_of(core) == []
    assert [f"{found.by} imports {found.module} late" for found in core if found.is_late] == []


def test_every_package_of_the_client_says_what_it_is_for(client: dict[str, ast.Module]) -> None:
    packages = {name.rpartition(".")[0] for name in client} - {""}
    assert [name for name in packages if name in client and not ast.get_docstring(client[name])] == []


def test_the_codec_is_pure(client: dict[str, ast.Module]) -> None:
    used = {found.module.partition(".")[0] for found in imports_of(client) if _core_of(found.by) == "_codec"}
    assert used.isdisjoint({"grpc", "socket", "ssl", "queue", "selectors"})


def test_every_rpc_of_the_client_goes_through_one_gate(client: dict[str, ast.Module]) -> None:
    assert naming(client, RPC_KINDS) == {"tclient._transport.channel", "tclient._transport.duplex"}


def test_the_client_names_status_codes_in_one_module(client: dict[str, ast.Module]) -> None:
    assert naming(client, {"StatusCode"}) == {"tclient._transport.statuses"}


def test_the_client_never_imports_torch_or_the_server(client: dict[str, ast.Module]) -> None:
    assert {found.module.partition(".")[0] for found in imports_of(client)}.isdisjoint({"torch", "tserver"})
