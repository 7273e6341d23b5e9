"""pyengine volume."""

import sys
from typing import Any

import click

from engine.base.units import human_size
from hostagent.cli.app import current
from hostagent.cli.command import Group, argument, command, several, switch, value, values
from hostagent.cli.each import for_each
from hostagent.cli.exits import ExitWith
from hostagent.cli.inspect import inspect_all
from hostagent.cli.table import labels_text, write_listing
from hostagent.client.docker import encode_filters, segment

_HEADERS = {
    "Driver": "DRIVER",
    "Labels": "LABELS",
    "Mountpoint": "MOUNTPOINT",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
}


@command(
    "ls",
    values("-f", "--filter", help="Provide filter values (e.g. dangling=true)", metavar="FILTER"),
    value("--format", default="", help="Format output: table, json, 'table TEMPLATE' or TEMPLATE"),
    switch("-q", "--quiet", help="Only display volume names"),
)
def list_volumes(**flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """List volumes."""
    found = current().engine.get("/volumes", filters=encode_filters(flags["filter"]))["Volumes"] or []
    rows = [
        {
            "Driver": one.get("Driver", ""),
            "Labels": labels_text(one.get("Labels")),
            "Mountpoint": one.get("Mountpoint", ""),
            "Name": one["Name"],
            "Scope": one.get("Scope", ""),
        }
        for one in found
    ]
    write_listing(
        rows,
        form=flags["format"],
        columns=("Driver", "Name"),
        headers=_HEADERS,
        quiet="Name" if flags["quiet"] else None,
        labels=[one.get("Labels") or {} for one in found],
    )
    return 0


@command(
    "create",
    value("-d", "--driver", default="local", help="Specify volume driver name"),
    values("--label", help="Set metadata for a volume"),
    values("-o", "--opt", help="Set driver specific options"),
    argument("name", required=False),
)
def create(driver: str, label: tuple[str, ...], opt: tuple[str, ...], name: str | None) -> int:
    """Create a volume."""
    body = {"Name": name or "", "Driver": driver, "Labels": _pairs(label), "DriverOpts": _pairs(opt)}
    click.echo(current().engine.post("/volumes/create", body)["Name"])
    return 0


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in words)


@command(
    "inspect",
    value("-f", "--format", default="", help="Format output: json or TEMPLATE"),
    several("names", "VOLUME"),
)
def inspect(format: str, names: tuple[str, ...]) -> int:  # noqa: A002 (the flag's name)
    """Display detailed information on one or more volumes."""
    return inspect_all(names, ("volume",), format)


@command(
    "rm",
    switch("-f", "--force", help="Force the removal of one or more volumes"),
    several("names", "VOLUME"),
)
def rm(force: bool, names: tuple[str, ...]) -> int:
    """Remove one or more volumes."""
    engine = current().engine
    return for_each(names, lambda name: engine.delete(f"/volumes/{segment(name)}", force=force))


def confirmed(question: str) -> bool:
    """Ask on stderr; the end of the input is a no."""
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


@command(
    "prune",
    switch("-a", "--all", help="Remove all unused volumes, not just anonymous ones"),
    values("--filter", help='Provide filter values (e.g. "label=<label>")', metavar="FILTER"),
    switch("-f", "--force", help="Do not prompt for confirmation"),
)
def prune(all: bool, filter: tuple[str, ...], force: bool) -> int:  # noqa: A002 (the flags' names)
    """Remove unused volumes."""
    which = "every volume" if all else "every anonymous volume"
    if not force and not confirmed(f"This removes {which} that no container uses. Continue?"):
        raise ExitWith(1, "volume prune was not confirmed; nothing was removed (--force asks no question)")
    filters = encode_filters([*filter, *(["all=true"] if all else [])])
    answer = current().engine.post("/volumes/prune", filters=filters)
    for name in answer.get("VolumesDeleted") or []:
        click.echo(name)
    click.echo(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed', 0), digits=4)}")
    return 0


volume = Group("volume", list_volumes, create, inspect, rm, prune, help="Manage volumes.")
