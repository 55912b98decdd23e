"""`tserver certs`: an authority for development, and the certificates that it signs. By trustme.

    ca.pem      what clients trust (and servers, with --tls-client-ca)
    ca.key      whoever has it can pass for any server and principal: it stays where it was made
    server.pem, server.key, NAME.pem, NAME.key

An authority that is there already signs again; nothing that is there is written over without being told to.
"""

from __future__ import annotations

import datetime
import ipaddress
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tserver import extras
from tserver.credentials import names, tokens
from tserver.storage import files

if TYPE_CHECKING:
    import trustme

_AUTHORITY, _SERVER = "ca", "server"
_HERE = ("localhost", "127.0.0.1", "::1")
_MAX_NAME = 253


def command() -> click.Command:
    """The command."""

    @click.command()
    @click.option(
        "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the files."
    )
    @click.option("--name", "hosts", multiple=True, help="A host name or address of the server; may be given again.")
    @click.option("--client", "clients", multiple=True, help="A principal: its certificate, not a server's.")
    @click.option("--expires", default="365d", show_default=True, help="365d, 12h, or a date such as 2027-01-31.")
    @click.option("--force", is_flag=True, help="Write over certificates that are there; never over the authority.")
    def certs(out: Path, hosts: tuple[str, ...], clients: tuple[str, ...], expires: str, force: bool) -> None:
        """Make certificates for development: an authority, and a server's or clients' that it signs.

        Where others rely on them, take those of your organisation's authority.
        """
        if not extras.is_there("trustme"):
            raise click.ClickException("making certificates needs a package: pip install 'tclient[certs]'")
        if hosts and clients:
            raise click.UsageError("--name is for a server's certificate, and --client for a client's: one at a time")
        try:
            until = datetime.datetime.fromtimestamp(tokens.moment(expires, time.time()), datetime.UTC)
            for each in clients:
                _checked_client(each)
            for each in hosts:
                _checked_host(each)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        try:
            out.mkdir(mode=files.PRIVATE_FOLDER, parents=True, exist_ok=True)
            there = [path for each in clients or (_SERVER,) for path in _pair(out, each) if path.exists()]
            if there and not force:
                raise click.ClickException(f"{there[0]} is there; give --force to write over it, or another --out")
            authority = _authority(out)
            for each in clients:
                _write(out, each, authority.issue_cert(common_name=each, not_after=until))
            if not clients:
                _write(out, _SERVER, authority.issue_cert(*dict.fromkeys((*hosts, *_HERE)), not_after=until))
        except OSError as error:
            raise click.ClickException(f"{error.filename or out}: {error.strerror}") from None
        click.echo(_told(out, hosts, clients))

    return certs


def _authority(folder: Path) -> trustme.CA:
    """That of a folder; a new one where there is none. Raises: OSError."""
    import trustme

    cert, key = _pair(folder, _AUTHORITY)
    if cert.exists() or key.exists():
        try:
            return trustme.CA.from_pem(cert.read_bytes(), key.read_bytes())
        except ValueError as error:
            raise click.ClickException(f"{cert} and {key} are no authority that can sign: {error}") from None
    made = trustme.CA(organization_name="tserver certs, for development")
    files.replace(key, made.private_key_pem.bytes())
    files.replace(cert, made.cert_pem.bytes())
    return made


def _pair(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.pem", folder / f"{name}.key"


def _write(folder: Path, name: str, signed: trustme.LeafCert) -> None:
    cert, key = _pair(folder, name)
    files.replace(key, signed.private_key_pem.bytes())
    files.replace(cert, b"".join(part.bytes() for part in signed.cert_chain_pems))


def _checked_client(name: str) -> None:
    """Raises: ValueError for a name that no principal has, or that would be another file's."""
    names.checked(name)
    if name.startswith(".") or name in (_AUTHORITY, _SERVER) or len(name) > 64:
        raise ValueError(f"--client {name!r} cannot be: a file is named after it; take one of at most 64 letters")


def _checked_host(name: str) -> None:
    """Raises: ValueError for what is neither a host name nor an address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.removeprefix("*.").split(".")
        if len(name) > _MAX_NAME or not all(
            0 < len(each) < 64 and each.replace("-", "").isalnum() and each.isascii() and "-" not in (each[0], each[-1])
            for each in labels
        ):
            raise ValueError(f"--name {name!r} is neither a host name nor an address; give it without a port") from None


def _told(out: Path, hosts: tuple[str, ...], clients: tuple[str, ...]) -> str:
    """What was made, and how it is used."""
    if clients:
        lines = [f"{out / each}.pem and .key are for {each}: connect(…, tls_cert=, tls_key=)" for each in clients]
        return "\n".join([*lines, f"the server takes them with --tls-client-ca {out / 'ca.pem'}"])
    host = next(iter(hosts), _HERE[0])
    return "\n".join(
        (
            f"tserver serve --listen {host}:50051 --tls-cert {out / 'server.pem'} --tls-key {out / 'server.key'} …",
            f"tclient.connect({f'{host}:50051'!r}, tls={str(out / 'ca.pem')!r})",
            f"{out / 'ca.key'} can pass for any server: keep it, and give clients ca.pem alone",
        )
    )
