"""pyengine env."""

import shlex
from collections.abc import Callable
from typing import NamedTuple

import click

from engine.base.errors import InvalidArgument
from hostagent.cli.app import current
from hostagent.cli.command import command, switch, value


class _Shell(NamedTuple):
    """How a shell sets and unsets the variable, and how what is printed here is run in it."""

    set: Callable[[str], str]
    unset: str
    use: str


def _posix(address: str) -> str:
    return f"export DOCKER_HOST={shlex.quote(address)}"


def _fish(address: str) -> str:
    escaped = address.replace("\\", "\\\\").replace("'", "\\'")
    return f"set -gx DOCKER_HOST '{escaped}'"


def _powershell(address: str) -> str:
    escaped = address.replace("'", "''")
    return f"$Env:DOCKER_HOST = '{escaped}'"


_SHELLS = {
    "sh": _Shell(_posix, "unset DOCKER_HOST", '# run: eval "$(pyengine env)"'),
    "fish": _Shell(_fish, "set -e DOCKER_HOST", "# run: pyengine env --shell fish | source"),
    "powershell": _Shell(
        _powershell,
        "Remove-Item Env:DOCKER_HOST",
        "# run: pyengine env --shell powershell | Out-String | Invoke-Expression",
    ),
    "cmd": _Shell(
        lambda address: f"SET DOCKER_HOST={address}",
        "SET DOCKER_HOST=",
        "REM run: FOR /f \"tokens=*\" %i IN ('pyengine env --shell cmd') DO @%i",
    ),
}
_SAME = {"bash": "sh", "zsh": "sh", "dash": "sh", "ksh": "sh", "pwsh": "powershell"}


@command(
    "env",
    value("--shell", default="sh", metavar="NAME", help="sh (bash, zsh, ...), fish, powershell or cmd"),
    switch("-u", "--unset", help="Print the command that undoes it"),
)
def env(shell: str, unset: bool) -> int:
    """Print the shell command that points docker at this engine: eval "$(pyengine env)"."""
    form = _SHELLS.get(_SAME.get(shell, shell))
    if form is None:
        raise InvalidArgument(f"unknown shell: {shell[:40]!r}", hint=f"one of {', '.join(_SHELLS)}")
    if unset:
        click.echo(form.unset)
        return 0
    engine = current().engine
    engine.open()  # started if need be, and there: what is printed is meant to be used
    click.echo(form.set(engine.endpoint))
    click.echo(form.use)
    return 0
