"""`tserver token`: make tokens, list them, revoke them. Knows the command line and the file of tokens."""

from __future__ import annotations

import contextlib
import functools
import getpass
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from tserver import audit
from tserver.credentials import names, tokens
from tserver.credentials.proven import ROLES
from tserver.credentials.tokens import NAME
from tserver.identity import Identity, Role


def group(from_file: Callable[[Any], Any]) -> click.Group:
    """The commands. `from_file` gives a command the option that names a file of the server's settings."""

    def of_a_file(function: Any) -> Any:
        return from_file(_file(function))

    @click.group()
    def token() -> None:
        """Tokens by which callers say who they are. A running server takes note of a change within a second."""

    @token.command()
    @of_a_file
    @click.option("--principal", required=True, help="Whose it is: a name, without '/'.")
    @click.option("--role", type=click.Choice(list(ROLES)), default="user", show_default=True, help="What it may do.")
    @click.option("--expires", default="30d", show_default=True, help="30d, 12h, or a date such as 2027-01-31.")
    @_audited
    def create(file: Path, principal: str, role: str, expires: str, audit_log: str) -> None:
        """Make a token, and print it: this once, since only a hash of it is kept."""
        is_first = not file.exists()
        try:
            names.checked(principal)
            until = tokens.moment(expires, time.time())
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        with _told(file):
            made, text = tokens.create(file, principal, role, until)
        _note(audit_log, "token create", made)
        click.echo(text)
        click.echo(f"token {made.id} of {made.principal} ({made.role}) until {_when(made.expires)}", err=True)
        if is_first:
            click.echo(f"{file} is new: a server takes it from its next start on, and then asks everyone", err=True)

    @token.command("list")
    @of_a_file
    def list_(file: Path) -> None:
        """Print the tokens that there are, without what opens anything."""
        with _told(file):
            found = tokens.listed(file)
        now = time.time()
        for each in found:
            state = "revoked" if each.revoked else "good" if each.is_good(now) else "expired"
            click.echo(f"{each.id}  {each.role:9}  {state:7}  {_when(each.expires)}  {each.principal}")

    @token.command()
    @of_a_file
    @click.argument("token_id", metavar="ID")
    @_audited
    def revoke(file: Path, token_id: str, audit_log: str) -> None:
        """Have the token ID open nothing any more."""
        with _told(file):
            try:
                made = tokens.revoke(file, token_id)
            except KeyError:
                raise click.ClickException(f"no token in {file} has the id {token_id!r}") from None
        _note(audit_log, "token revoke", made)
        click.echo(f"token {made.id} of {made.principal} is revoked")

    return token


def _file(function: Any) -> Any:
    """The options that say which file it is, as `tserver serve` has them."""

    @click.option("--tokens", default="", envvar="TSERVER_TOKENS", help="The file of tokens.")
    @click.option("--data-dir", default="", envvar="TSERVER_DATA_DIR", help=f"Without --tokens it is {NAME} in there.")
    @functools.wraps(function)
    def found(tokens: str, data_dir: str, **others: Any) -> Any:
        if not tokens and not data_dir:
            raise click.UsageError("say which file of tokens: --tokens FILE, or --data-dir as the server has it")
        return function(file=Path(tokens) if tokens else Path(data_dir) / NAME, **others)

    return found


_audited = click.option(
    "--audit-log", default="", envvar="TSERVER_AUDIT_LOG", help="The file that the server's audit log is in."
)


def _note(path: str, what: str, token: tokens.Token) -> None:
    """Tell the audit log what was done to a token, by the user who was at the command line."""
    if not path:
        return
    try:
        log = audit.Audit(path)
    except OSError as error:
        raise click.ClickException(f"it is done, but {error}") from None
    user = Identity(getpass.getuser(), Role.ADMIN, "command line", "loopback")
    log.add(what, user, "", token=token.id, of=token.principal, role_of=token.role, outcome="OK")
    log.close()


@contextlib.contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise click.ClickException(f"{file}: {error}") from None
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


def _when(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
