"""README and docs are true: their programs run and print what they say, tables are complete, links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tensorcompute.v1 import model_service_pb2, storage_service_pb2, tensor_service_pb2
from tests.support.grpcurl import path_with_it
from tests.support.listeners import listener
from tests.support.node import MODULES, node_with_packages
from tests.support.serving import ROOT, server_environment, serving
from tserver.cli import serve
from tserver.config import Config

README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:50051"
SUM = "tensor([[1., 2., 3.],\n        [1., 2., 3.]])\n"

# What the examples call, as far as they need it, where it is not installed.
JQ = f"""#!{sys.executable}
import json, sys
value = json.load(sys.stdin)
for name in sys.argv[-1].strip(".").split("."):
    value = value[name]
print(value if "-r" in sys.argv else json.dumps(value))
"""

CURL = f"""#!{sys.executable}
import sys
import urllib.request
silent, address, *data = sys.argv[1:]
assert silent == "-s" and data[:1] in ([], ["-d"]), sys.argv
body = data[1].encode() if data else None
print(urllib.request.urlopen(address, body, timeout=20).read().decode(), end="")
"""

DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in ("*.md", "docs/**/*.md", "docker/*.md", "deploy/*.md", "client/*.md")
    for path in sorted(ROOT.glob(pattern))
}

# Pages that go on where the one before them ended.
TUTORIAL = ["index", "tensors", "networks", "training", "serving", "keeping"]


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language, in reading order."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENTS[document], re.S)


def block(document: str, language: str, beginning: str) -> str:
    """The fenced block of a language that begins so."""
    found = [text for text in blocks(document, language) if text.startswith(beginning)]
    assert len(found) == 1, f"{len(found)} {language} blocks begin with {beginning!r}"
    return found[0]


def section(document: str, title: str) -> str:
    """The text under a heading."""
    return DOCUMENTS[document].split(f"# {title}\n", 1)[1].split("\n## ", 1)[0]


def output_of(command: list[str], text: str = "", *, folder: Path = ROOT, **environment: str) -> str:
    """Run a command, from the top of the project if no folder is given, and return what it printed."""
    done = subprocess.run(
        command,
        input=text,
        text=True,
        capture_output=True,
        cwd=folder,
        timeout=60,
        env=server_environment(**environment),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_the_ten_lines_of_python_are_ten_and_run(server: Any) -> None:
    program = block("README.md", "python", "import tclient as torch")
    assert len([line for line in program.splitlines() if line]) == 10
    printed = output_of([sys.executable, "-"], program.replace(ADDRESS, server.address))
    assert printed.startswith("tensor([[ 10., 100.,")
    assert printed.endswith("(4, 2)\n")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    """A server of its own, for it makes models by name: the address, and those for the Open Inference Protocol."""
    folder = tmp_path / "data"
    with serving("--data-dir", str(folder), "--oip-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0") as server:
        yield server.address, listener(server, "oip"), listener(server, "http")


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if blocks(name, "python") and "tutorial" not in name])
def test_the_programs_of_a_document_run_one_after_the_other_from_a_clean_interpreter(
    document: str, fresh: tuple[str, str, str], tmp_path: Path
) -> None:
    address, oip, http = fresh
    program = "\n".join(blocks(document, "python")).replace(ADDRESS, address)
    program = program.replace("127.0.0.1:8001", oip).replace("127.0.0.1:8000", http)
    printed = output_of([sys.executable, "-"], program, folder=tmp_path, TCLIENT_ADDRESS=address)
    for said in re.findall(r"print\(.*\)  # ((?:[\d(\[]|torch\.).*)", program):
        assert re.split("[:\uff1a]", said)[0] in printed


@pytest.mark.parametrize("folder", ["docs/tutorial", "docs/zh/tutorial"])
def test_a_tutorial_runs_in_the_order_of_its_pages(folder: str, fresh: tuple[str, str, str], tmp_path: Path) -> None:
    pages = [f"{folder}/{name}.md" for name in TUTORIAL]
    assert set(pages) == {name for name in DOCUMENTS if name.startswith(f"{folder}/")}
    program = "\n".join(part for page in pages for part in blocks(page, "python")).replace(ADDRESS, fresh[0])
    file = tmp_path / "tutorial.py"
    file.write_text(program, encoding="utf-8")  # compile() reads the source of what it records
    printed = output_of([sys.executable, str(file)], folder=tmp_path)
    for shown in blocks(pages[0], "text"):
        assert shown in printed
    assert "100% right" in printed
    assert printed.endswith("torch.Size([512, 2])\n")


def test_what_curl_asks_is_answered_as_it_says(fresh: tuple[str, str, str], tmp_path: Path) -> None:
    page = "docs/inference-protocol.md"
    address, _, http = fresh
    output_of([sys.executable, "-"], block(page, "python", "import tclient as torch").replace(ADDRESS, address))
    if shutil.which("curl") is None:
        (tmp_path / "curl").write_text(CURL)
        (tmp_path / "curl").chmod(0o755)
    program = "set -euo pipefail\n" + block(page, "sh", "curl").replace("127.0.0.1:8000", http)
    printed = output_of(["bash"], program, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for line in block(page, "json", "{").splitlines():
        assert line.rstrip("… ") in printed
    answer = json.JSONDecoder().raw_decode(printed, printed.index('{"model_name"'))[0]
    assert len(answer["outputs"][0]["data"]) == 2


def test_the_networks_run(server: Any) -> None:
    program = block("docs/networks.md", "python", "from tclient import nn")
    printed = output_of([sys.executable, "-"], program, TCLIENT_ADDRESS=server.address)
    assert printed.strip() in program


def test_the_training_loop_learns_and_its_network_is_saved(server: Any, tmp_path: Path) -> None:
    program = block("docs/networks.md", "python", "from tclient.utils.data").replace(
        "net.safetensors", str(tmp_path / "net.safetensors")
    )
    printed = output_of([sys.executable, "-"], program, TCLIENT_ADDRESS=server.address)
    losses = [float(line.split()[1]) for line in printed.splitlines()]
    assert len(losses) == 10
    assert losses[-1] < losses[0] / 2
    assert (tmp_path / "net.safetensors").is_file()


def test_the_shell_example_prints_what_it_should(server: Any, tmp_path: Path) -> None:
    if shutil.which("jq") is None:
        (tmp_path / "jq").write_text(JQ)
        (tmp_path / "jq").chmod(0o755)
    program = "set -euo pipefail\n" + block("README.md", "sh", "call()").replace(ADDRESS, server.address)
    assert output_of(["bash"], program, PATH=path_with_it(tmp_path)) == SUM


def test_the_node_example_prints_what_it_should(server: Any) -> None:
    program = block("README.md", "js", "const grpc").replace(ADDRESS, server.address)
    assert output_of([node_with_packages(), "-"], program, NODE_PATH=str(MODULES)) == SUM


def test_what_both_print_stands_below() -> None:
    assert SUM in section("README.md", "The same from other languages")


def test_the_table_names_every_rpc() -> None:
    services = [
        tensor_service_pb2.DESCRIPTOR.services_by_name["TensorService"],
        model_service_pb2.DESCRIPTOR.services_by_name["ModelService"],
        storage_service_pb2.DESCRIPTOR.services_by_name["StorageService"],
    ]
    rpcs = {method.name for service in services for method in service.methods}
    rows = re.findall(r"^\| (`.*?`) \|", section("docs/contract.md", "The contract"), re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == rpcs


def test_the_table_of_factories_is_complete() -> None:
    row = next(line for line in DOCUMENTS["docs/contract.md"].splitlines() if line.startswith("| `CreateTensor`"))
    source = tensor_service_pb2.CreateTensorRequest.DESCRIPTOR.oneofs_by_name["source"]
    for field in source.fields:
        assert re.search(rf"\b{field.name}\b", row), field.name


def test_the_table_names_every_option_and_its_default() -> None:
    rows = dict(re.findall(r"^\| (`--.*?`) \|(.*?)\|", section("docs/configuration.md", "Configuration"), re.M))
    documented = {name: default for names, default in rows.items() for name in re.findall(r"--([\w-]+)", names)}
    defaults = Config()
    assert set(documented) == {field.name.replace("_", "-") for field in fields(Config)}
    for name, text in documented.items():
        value, text = getattr(defaults, name.replace("-", "_")), text.strip()
        if isinstance(value, bool):
            assert text == "off", name
        elif text.endswith(" MiB"):
            assert int(text.removesuffix(" MiB")) << 20 == value, name
        else:
            assert text.strip("`") == (f"{value:g}" if isinstance(value, int | float) else value), name


def code_of(document: str) -> str:
    """All that stands between backticks in a document, commands that a line ends in a backslash being one line."""
    return "\n".join(re.findall(r"`+[^`]*`+", DOCUMENTS[document])).replace("\\\n", " ")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_and_variable_that_is_named_exists(document: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    code = code_of(document)
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= set(re.findall(r"^([a-z-]+):", makefile, re.M))
    given = {name for line in re.findall(r"\bmake [^\n`#]*", code) for name in re.findall(r"\b([A-Z_]+)=", line)}
    assert given <= set(re.findall(r"^#   ([A-Z_]+)", makefile.replace(", ", "\n#   "), re.M))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_program_and_option_of_this_project_that_is_named_exists(document: str) -> None:
    code = code_of(document)
    for module in re.findall(r"python -m ((?:tests|operations|tserver)[\w.]*)", code):
        assert importlib.util.find_spec(module), module
    options = {name.removeprefix("--") for option in serve.params for name in option.opts} | {"version"}
    for line in re.findall(r"\btserver serve ([^\n`#]*)", code):
        assert set(re.findall(r"--([\w-]+)", line)) <= options, line


def anchors(document: str) -> set[str]:
    """What headings of a document are called in links."""
    text = re.sub(r"^```.*?^```", "", DOCUMENTS[document], flags=re.S | re.M)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def links(document: str) -> list[tuple[str, str]]:
    """The links of a document into this tree: path and anchor, either of which may be empty."""
    text = re.sub(r"^```.*?^```", "", DOCUMENTS[document], flags=re.S | re.M)
    return [(link.partition("#")[0], link.partition("#")[2]) for link in re.findall(r"\]\((?!https?:)([^)]*)\)", text)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_link_leads_somewhere(document: str) -> None:
    folder = (ROOT / document).parent
    for path, anchor in links(document):
        target = (folder / path).resolve() if path else ROOT / document
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.relative_to(ROOT).as_posix()), f"{path}#{anchor}"


def test_the_page_of_the_package_stands_alone_and_says_what_the_readme_says() -> None:
    # A package index shows it without the tree around it.
    page = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["readme"]
    assert links(page) == []
    beginning = "import tclient as torch\n\ntorch.connect"
    assert block(page, "python", beginning) == block("README.md", "python", beginning)


def test_every_page_is_reached_from_the_readme() -> None:
    reached, left = {"README.md"}, ["README.md"]
    while left:
        page = left.pop()
        targets = {((ROOT / page).parent / path).resolve() for path, _ in links(page) if path.endswith(".md")}
        new = {target.relative_to(ROOT).as_posix() for target in targets} - reached
        reached |= new
        left += sorted(new)
    assert set(DOCUMENTS) - reached == {"client/README.md"}


def test_the_table_of_examples_is_complete() -> None:
    listed = set(re.findall(r"^\| `(\w+\.py)` \|", DOCUMENTS["docs/examples.md"], re.M))
    assert listed == {path.name for path in (ROOT / "client" / "examples").glob("[!_]*.py")}


def test_the_version_stands_in_one_place() -> None:
    import tclient
    import tensorcompute
    import tserver

    version = tensorcompute.__version__
    assert tclient.__version__ == tserver.__version__ == version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert ROOT / project["tool"]["hatch"]["version"]["path"] == Path(tensorcompute.__file__)
    assert f"\n## {version}\n" in DOCUMENTS["CHANGELOG.md"]
    rooms = [ROOT / room for room in ("client", "server", "proto", "tests", "docker")]
    paths = [
        path
        for room in rooms
        for kind in ("*.py", "*.pyi", "*.proto", "Dockerfile", "*.yaml")
        for path in room.rglob(kind)
    ]
    naming = [
        path
        for path in [*paths, ROOT / "pyproject.toml", ROOT / "Makefile"]
        if f'{version}"' in path.read_text(encoding="utf-8")
    ]
    assert naming == [Path(tensorcompute.__file__)]
