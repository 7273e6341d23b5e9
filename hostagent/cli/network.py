"""pyengine network."""

from typing import Any

from hostagent.cli.app import current
from hostagent.cli.command import Group, command, several, switch, value, values
from hostagent.cli.inspect import inspect_all
from hostagent.cli.table import labels_text, write_listing
from hostagent.client.docker import encode_filters

_HEADERS = {"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Labels": "LABELS"}
_SHORT_ID = 12


@command(
    "ls",
    values("-f", "--filter", help='Provide filter values (e.g. "driver=bridge")', metavar="FILTER"),
    value("--format", default="", help="Format output: table, json, 'table TEMPLATE' or TEMPLATE"),
    switch("--no-trunc", help="Do not truncate the output"),
    switch("-q", "--quiet", help="Only display network IDs"),
)
def list_networks(**flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """List networks."""
    found = current().engine.get("/networks", filters=encode_filters(flags["filter"]))
    rows = [
        {
            "ID": one["Id"] if flags["no_trunc"] else one["Id"][:_SHORT_ID],
            "Name": one["Name"],
            "Driver": one.get("Driver", ""),
            "Scope": one.get("Scope", ""),
            "Labels": labels_text(one.get("Labels")),
        }
        for one in found
    ]
    write_listing(
        rows,
        form=flags["format"],
        columns=("ID", "Name", "Driver", "Scope"),
        headers=_HEADERS,
        quiet="ID" if flags["quiet"] else None,
        labels=[one.get("Labels") or {} for one in found],
    )
    return 0


@command(
    "inspect",
    value("-f", "--format", default="", help="Format output: json or TEMPLATE"),
    several("names", "NETWORK"),
)
def inspect(format: str, names: tuple[str, ...]) -> int:  # noqa: A002 (the flag's name)
    """Display detailed information on one or more networks."""
    return inspect_all(names, ("network",), format)


network = Group("network", list_networks, inspect, help="Manage networks.")
