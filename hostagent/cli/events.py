"""pyengine events."""

from datetime import UTC, datetime
from typing import Any

import click

from hostagent.cli.app import current
from hostagent.cli.command import command, value, values
from hostagent.cli.documents import render
from hostagent.cli.times import moment
from hostagent.client.docker import encode_filters


@command(
    "events",
    values("-f", "--filter", help="Filter output based on conditions provided", metavar="FILTER"),
    value("--format", default="", help="Format output: json or TEMPLATE"),
    value("--since", default=None, help="Show all events created since timestamp"),
    value("--until", default=None, help="Stream events until this timestamp"),
)
def events(filter: tuple[str, ...], format: str, since: str | None, until: str | None) -> int:  # noqa: A002
    """Get real time events from the engine."""
    query = {
        "since": moment(since) if since else None,
        "until": moment(until) if until else None,
        "filters": encode_filters(filter),
    }
    with current().engine.stream("GET", "/events", query) as answer:
        for event in answer.json_lines():
            click.echo(render(event, format) if format else line_of(event))
    return 0


def line_of(event: dict[str, Any]) -> str:
    """Return one event as docker prints it."""
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{key}={text}" for key, text in sorted((actor.get("Attributes") or {}).items()))
    nanoseconds = int(event.get("timeNano", 0))
    when = datetime.fromtimestamp(nanoseconds // 10**9, tz=UTC).astimezone()
    zone = f"{when:%z}"
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    stamp = f"{when:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09d}{zone}"
    text = f"{stamp} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    return f"{text} ({attributes})" if attributes else text
