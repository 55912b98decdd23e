"""`tserver models`: the models in a data directory, or on a running server. Knows the disk and the command line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import click
from google.protobuf import json_format

from tensorcompute.v1 import model_service_pb2 as ms
from tserver.commands import remote
from tserver.errors import ServerError
from tserver.models.disk import Disk

_SERVICE = "/tensorcompute.v1.ModelService/"
_STATES = "MLP_STATE_"


class _Place(Protocol):
    """Where models are."""

    def listed(self) -> list[dict[str, Any]]:
        """A row for each: its name and version, and what else is known at a glance."""

    def shown(self, name: str, version: int) -> dict[str, Any]:
        """All that is known of one; version 0 is the highest. Raises: ClickException."""

    def delete(self, name: str, version: int) -> None:
        """Remove one; version 0 is all of them. Raises: ClickException."""


class _OnDisk:
    """Those in a data directory that no server has."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def listed(self) -> list[dict[str, Any]]:
        return [self._row(name, version) for name, version in self._disk.names()]

    def _row(self, name: str, version: int) -> dict[str, Any]:
        try:
            manifest = self._disk.look(name, version)
        except Exception as error:
            return {"name": name, "version": version, "state": "DAMAGED", "reason": _words(error)}
        told = {"owner": manifest["owner"]} if "owner" in manifest else {}
        return {"name": name, "version": version, "state": "ON DISK", "bytes": manifest["weights"]["bytes"], **told}

    def shown(self, name: str, version: int) -> dict[str, Any]:
        version = version or max(self._versions(name))
        if version not in self._versions(name):
            raise click.ClickException(f"there is no version {version} of {name!r}")
        try:
            return self._disk.look(name, version)
        except Exception as error:
            raise click.ClickException(f"version {version} of {name!r} is damaged: {_words(error)}") from None

    def delete(self, name: str, version: int) -> None:
        for each in self._versions(name):
            if version in (0, each):
                self._disk.delete(name, each)

    def verify(self) -> Iterator[tuple[str, int, str]]:
        """Each model, and what is wrong with it; empty where nothing is."""
        for name, version in self._disk.names():
            try:
                self._disk.look(name, version, whole=True)
                yield name, version, ""
            except Exception as error:
                yield name, version, _words(error)

    def _versions(self, name: str) -> list[int]:
        found = [version for each, version in self._disk.names() if each == name]
        if not found:
            raise click.ClickException(f"there is no model {name!r}; `tserver models list` tells which there are")
        return found


class _OnServer:
    """Those that a running server tells of."""

    def __init__(self, ask: Callable[[str, Any, Any], Any]) -> None:
        self._ask = ask

    def listed(self) -> list[dict[str, Any]]:
        told: ms.ListMlpsResponse = self._ask(f"{_SERVICE}ListMlps", ms.ListMlpsRequest(), ms.ListMlpsResponse)
        return [
            {
                "name": each.name,
                "version": each.version,
                "state": ms.MlpState.Name(each.state).removeprefix(_STATES),
                "bytes": each.parameter_bytes,
                **({"owner": each.owner} if each.owner else {}),
                **({"reason": each.state_reason} if each.state_reason else {}),
            }
            for each in told.mlps
        ]

    def shown(self, name: str, version: int) -> dict[str, Any]:
        request = ms.DescribeMlpRequest(name=name, version=version)
        told: ms.DescribeMlpResponse = self._ask(f"{_SERVICE}DescribeMlp", request, ms.DescribeMlpResponse)
        return json_format.MessageToDict(told.mlp, preserving_proto_field_name=True)

    def delete(self, name: str, version: int) -> None:
        self._ask(f"{_SERVICE}DeleteMlp", ms.DeleteMlpRequest(name=name, version=version), ms.DeleteMlpResponse)


def group(from_file: Callable[[Any], Any]) -> click.Group:
    """The commands. `from_file` gives a command the option that names a file of the server's settings."""

    def placed(function: Any) -> Any:
        function = remote.options(function)
        function = click.option(
            "--address", default="", help="HOST:PORT of a running server, in the place of a folder."
        )(function)
        return of_folder(function)

    def of_folder(function: Any) -> Any:
        named = click.option(
            "--data-dir", default="", envvar="TSERVER_DATA_DIR", help="The data directory; no server may have it."
        )
        return from_file(named(function))

    @click.group()
    def models() -> None:
        """Models in a data directory, or with --address on a running server."""

    @models.command("list")
    @placed
    @click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
    def list_(as_json: bool, **where: Any) -> None:
        """Print the models that there are: name, version, state, bytes of the weights, owner."""
        with _place(**where) as place:
            rows = place.listed()
        if as_json:
            click.echo(json.dumps(rows, indent=2))
            return
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            more = "  ".join(filter(None, (row.get("owner", ""), row.get("reason", ""))))
            line = f"{row['name']:{width}}  {row['version']:>5}  {row['state']:8}  {row.get('bytes', ''):>12}  {more}"
            click.echo(line.rstrip())

    @models.command()
    @placed
    @click.argument("name")
    @click.option("--version", type=click.IntRange(1), help="Which version; by default the highest.")
    def show(name: str, version: int | None, **where: Any) -> None:
        """Print all that is known of the model NAME, as JSON."""
        with _place(**where) as place:
            click.echo(json.dumps(place.shown(name, version or 0), indent=2, ensure_ascii=False))

    @models.command()
    @placed
    @click.argument("name")
    @click.option("--version", type=click.IntRange(1), help="Which version; by default all of them.")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    def delete(name: str, version: int | None, yes: bool, **where: Any) -> None:
        """Remove the model NAME, for good."""
        what = f"version {version} of {name}" if version else f"all versions of {name}"
        if not yes:
            click.confirm(f"Remove {what}?", abort=True)
        with _place(**where) as place:
            place.shown(name, version or 0)
            place.delete(name, version or 0)
        click.echo(f"{what}: removed")

    @models.command()
    @of_folder
    def verify(data_dir: str) -> None:
        """Read all models of a data directory, and see that each is as it was written; exit code 1 if one is not.

        Nothing is changed. A server does the same with each model that it loads.
        """
        wrong = 0
        with _place(data_dir) as place:
            assert isinstance(place, _OnDisk)
            for name, version, cause in place.verify():
                wrong += bool(cause)
                click.echo(f"{name}  {version}  {cause or 'ok'}")
        if wrong:
            raise click.ClickException(f"{wrong} are damaged: create them again, or bring back copies")

    return models


@contextlib.contextmanager
def _place(data_dir: str, address: str = "", **how: Any) -> Iterator[_Place]:
    """Raises: UsageError, ClickException."""
    if address:
        with remote.asking(address, **how) as ask:
            yield _OnServer(ask)
        return
    if not data_dir:
        raise click.UsageError("say where: --data-dir, as the server has it, or --address of a server that runs")
    if not Path(data_dir).is_dir():
        raise click.ClickException(f"--data-dir {data_dir}: there is no such directory")
    try:
        disk = Disk(Path(data_dir))
    except ServerError as error:
        raise click.ClickException(f"{error.message}; or ask that server: --address HOST:PORT") from None
    except OSError as error:
        raise click.ClickException(f"--data-dir {data_dir}: {error.strerror}") from None
    with contextlib.closing(disk):
        yield _OnDisk(disk)


def _words(error: Exception) -> str:
    return error.message if isinstance(error, ServerError) else f"{type(error).__name__}: {error}"
