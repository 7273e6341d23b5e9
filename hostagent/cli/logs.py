"""pyengine logs."""

from hostagent.cli.app import current
from hostagent.cli.command import argument, command, switch, value
from hostagent.cli.session import write_all
from hostagent.cli.times import moment
from hostagent.client.docker import segment
from hostagent.client.stream import STDERR, Decoder

_MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


@command(
    "logs",
    switch("--details", help="Show extra details provided to logs"),
    switch("-f", "--follow", help="Follow log output"),
    value("--since", default="", help="Show logs since timestamp (2013-01-02T13:23:37Z) or relative (42m)"),
    value("-n", "--tail", default="all", help="Number of lines to show from the end of the logs"),
    switch("-t", "--timestamps", help="Show timestamps"),
    value("--until", default="", help="Show logs before a timestamp or relative time"),
    argument("container"),
)
def logs(  # noqa: PLR0917 (one flag each)
    details: bool, follow: bool, since: str, tail: str, timestamps: bool, until: str, container: str
) -> int:
    """Fetch the logs of a container."""
    query: dict[str, str | int | bool | list[str] | None] = {
        "stdout": True,
        "stderr": True,
        "follow": follow,
        "details": details,
        "timestamps": timestamps,
        "tail": tail,
        "since": moment(since) if since else None,
        "until": moment(until) if until else None,
    }
    with current().engine.stream("GET", f"/containers/{segment(container)}/logs", query) as answer:
        decoder = Decoder() if answer.headers.get("content-type", "").startswith(_MULTIPLEXED) else None
        for chunk in answer.chunks():
            if decoder is None:
                write_all(1, chunk)
                continue
            for kind, payload in decoder.feed(chunk):
                write_all(2 if kind == STDERR else 1, payload)
    return 0
