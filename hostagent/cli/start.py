"""pyengine start, pyengine attach."""

from typing import Any

from hostagent.cli import attached
from hostagent.cli.app import App, current
from hostagent.cli.command import argument, command, several, switch, value
from hostagent.cli.each import for_each
from hostagent.cli.exits import ExitWith, start_failure
from hostagent.client.docker import segment
from hostagent.client.errors import ApiError


@command(
    "start",
    switch("-a", "--attach", help="Attach STDOUT/STDERR and forward signals"),
    value("--detach-keys", default="", help="Override the key sequence for detaching a container"),
    switch("-i", "--interactive", help="Attach container's STDIN"),
    several("containers", "CONTAINER"),
)
def start(attach: bool, interactive: bool, detach_keys: str, containers: tuple[str, ...]) -> int:
    """Start one or more stopped containers."""
    app = current()
    if not attach and not interactive:
        return for_each(containers, lambda name: app.engine.post(f"/containers/{segment(name)}/start"))
    if len(containers) > 1:
        raise ExitWith(1, "cannot attach to more than one container at once")
    found = app.engine.get(f"/containers/{segment(containers[0])}/json")
    config = found["Config"]
    condition = "removed" if found["HostConfig"].get("AutoRemove") else "next-exit"
    stdin = interactive and config["OpenStdin"]
    session = _attachment(app, found, stdin=stdin, detach_keys=detach_keys, condition=condition, proxy=True)
    with session:
        try:
            app.engine.post(f"/containers/{found['Id']}/start")
        except ApiError as err:
            raise ExitWith(start_failure(str(err)), str(err)) from err
        return session.carry()


@command(
    "attach",
    value("--detach-keys", default="", help="Override the key sequence for detaching a container"),
    switch("--no-stdin", help="Do not attach STDIN"),
    switch("--sig-proxy", default=True, help="Proxy all received signals to the process"),
    argument("container"),
)
def attach(detach_keys: str, no_stdin: bool, sig_proxy: bool, container: str) -> int:
    """Attach local standard input, output, and error streams to a running container."""
    app = current()
    found = app.engine.get(f"/containers/{segment(container)}/json")
    state = found["State"]
    if not state["Running"]:
        raise ExitWith(1, "cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise ExitWith(1, "cannot attach to a paused container, unpause it first")
    stdin = not no_stdin and found["Config"]["OpenStdin"]
    proxy = sig_proxy and not found["Config"]["Tty"]
    condition = "not-running"
    with _attachment(
        app, found, stdin=stdin, detach_keys=detach_keys, condition=condition, proxy=proxy
    ) as session:
        return session.carry()


def _attachment(
    app: App, found: dict[str, Any], *, stdin: bool, detach_keys: str, condition: str, proxy: bool
) -> attached.Attachment:
    terminal = found["Config"]["Tty"]
    attached.check_terminal(stdin=stdin, terminal=terminal)
    return attached.Attachment(
        app.engine,
        found["Id"],
        stdin=stdin,
        terminal=terminal,
        detach_keys=detach_keys,
        wait_for=condition,
        proxy_signals=proxy,
    )
