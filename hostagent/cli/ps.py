"""pyengine ps."""

import re
import time
from datetime import UTC, datetime
from typing import Any

import click

from engine.base.units import human_duration, human_size
from hostagent.cli.app import current
from hostagent.cli.command import command, switch, value, values
from hostagent.cli.ports import displayable
from hostagent.cli.table import ellipsis, labels_text, write_listing
from hostagent.cli.templatewords import go_quote
from hostagent.client.docker import encode_filters

HEADERS = {
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Labels": "LABELS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Mounts": "MOUNTS",
    "Names": "NAMES",
    "Networks": "NETWORKS",
    "Ports": "PORTS",
    "RunningFor": "CREATED",
    "Size": "SIZE",
    "State": "STATE",
    "Status": "STATUS",
}
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_WANTS_SIZE = re.compile(r"\.Size\b|\bjson \.\s*\}")
_SHORT_ID, _COMMAND_WIDTH, _MOUNT_WIDTH = 12, 20, 15


@command(
    "ps",
    switch("-a", "--all", help="Show all containers (default shows just running)"),
    values("-f", "--filter", help="Filter output based on conditions provided", metavar="FILTER"),
    value("--format", default="", help="Format output: table, json, 'table TEMPLATE' or TEMPLATE"),
    value("-n", "--last", type=int, default=-1, metavar="INT", help="Show n last created containers"),
    switch("-l", "--latest", help="Show the latest created container (includes all states)"),
    switch("--no-trunc", help="Don't truncate output"),
    switch("-q", "--quiet", help="Only display container IDs"),
    switch("-s", "--size", help="Display total file sizes"),
)
def ps(**flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """List containers."""
    form = flags["format"]
    if flags["quiet"] and form:
        click.echo("WARNING: --format is ignored, because --quiet is set", err=True)
        form = ""
    last = 1 if flags["latest"] else flags["last"]
    found = current().engine.get(
        "/containers/json",
        all=flags["all"],
        limit=last if last > 0 else None,
        size=flags["size"] or bool(_WANTS_SIZE.search(form)),
        filters=encode_filters(flags["filter"]),
    )
    now = time.time()
    rows = [row_of(item, now=now, truncate=not flags["no_trunc"]) for item in found]
    columns = (*COLUMNS, "Size") if flags["size"] else COLUMNS
    write_listing(
        rows,
        form=form,
        columns=columns,
        headers=HEADERS,
        quiet="ID" if flags["quiet"] else None,
        labels=[item.get("Labels") or {} for item in found],
    )
    return 0


def row_of(item: dict[str, Any], *, now: float, truncate: bool) -> dict[str, str]:
    """Return the fields of one entry of GET /containers/json as text."""
    words = item.get("Command") or ""
    names = [name.removeprefix("/") for name in item.get("Names") or []]
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in item.get("Mounts") or []]
    created = datetime.fromtimestamp(item["Created"], tz=UTC).astimezone()
    if truncate:
        names = [name for name in names if "/" not in name] or names
        mounts = [ellipsis(name, _MOUNT_WIDTH) for name in mounts]
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    return {
        "Command": go_quote(ellipsis(words, _COMMAND_WIDTH) if truncate else words),
        "CreatedAt": created.strftime("%Y-%m-%d %H:%M:%S %z %Z"),
        "ID": item["Id"][:_SHORT_ID] if truncate else item["Id"],
        "Image": _image(item, truncate=truncate),
        "Labels": labels_text(item.get("Labels")),
        "LocalVolumes": str(sum(1 for mount in item.get("Mounts") or [] if mount.get("Driver") == "local")),
        "Mounts": ",".join(mounts),
        "Names": ",".join(names),
        "Networks": ",".join(networks),
        "Ports": displayable(item.get("Ports") or []),
        "RunningFor": f"{human_duration(now - item['Created'])} ago",
        "Size": _size(item),
        "State": item.get("State", ""),
        "Status": item.get("Status", ""),
    }


def _image(item: dict[str, Any], *, truncate: bool) -> str:
    name = item.get("Image") or "<no image>"
    if truncate and name.startswith("sha256:"):
        return str(name[7 : 7 + _SHORT_ID])
    return str(name)


def _size(item: dict[str, Any]) -> str:
    own = human_size(item.get("SizeRw", 0), digits=3)
    total = item.get("SizeRootFs", 0)
    return f"{own} (virtual {human_size(total, digits=3)})" if total else own
