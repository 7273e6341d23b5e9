"""pyengine stop, restart, kill, rm, wait, pause, unpause, rename, top."""

import click

from hostagent.cli.app import current
from hostagent.cli.command import argument, command, several, switch, value
from hostagent.cli.each import for_each
from hostagent.cli.exits import ExitWith
from hostagent.cli.table import write_table
from hostagent.client.docker import segment

_TOP_WIDTH = 20  # docker's, for this table alone


def _path(name: str) -> str:
    return f"/containers/{segment(name)}"


_STOPPING = (
    value("-s", "--signal", default=None, help="Signal to send to the container"),
    value(
        "-t",
        "--timeout",
        "--time",
        type=int,
        default=None,
        metavar="INT",
        help="Seconds to wait before killing it",
    ),
    several("containers", "CONTAINER"),
)


def _stopping(verb: str, containers: tuple[str, ...], signal: str | None, timeout_s: int | None) -> int:
    engine = current().engine
    return for_each(
        containers,
        lambda name: engine.post(f"{_path(name)}/{verb}", timeout_s=None, signal=signal, t=timeout_s),
    )


@command("stop", *_STOPPING)
def stop(signal: str | None, timeout: int | None, containers: tuple[str, ...]) -> int:
    """Stop one or more running containers."""
    return _stopping("stop", containers, signal, timeout)


@command("restart", *_STOPPING)
def restart(signal: str | None, timeout: int | None, containers: tuple[str, ...]) -> int:
    """Restart one or more containers."""
    return _stopping("restart", containers, signal, timeout)


@command(
    "kill",
    value("-s", "--signal", default="KILL", help="Signal to send to the container"),
    several("containers", "CONTAINER"),
)
def kill(signal: str, containers: tuple[str, ...]) -> int:
    """Kill one or more running containers."""
    engine = current().engine
    return for_each(containers, lambda name: engine.post(f"{_path(name)}/kill", signal=signal))


@command(
    "rm",
    switch("-f", "--force", help="Force the removal of a running container (uses SIGKILL)"),
    switch("-l", "--link", help="Remove the specified link"),
    switch("-v", "--volumes", help="Remove anonymous volumes associated with the container"),
    several("containers", "CONTAINER"),
)
def rm(force: bool, link: bool, volumes: bool, containers: tuple[str, ...]) -> int:
    """Remove one or more containers."""
    engine = current().engine
    return for_each(
        containers,
        lambda name: engine.delete(_path(name), force=force, link=link, v=volumes),
        absent_is_fine=force,
    )


@command("wait", several("containers", "CONTAINER"))
def wait(containers: tuple[str, ...]) -> int:
    """Block until one or more containers stop, then print their exit codes."""
    engine = current().engine

    def one(name: str) -> None:
        answer = engine.post(f"{_path(name)}/wait", timeout_s=None)
        error = answer.get("Error") or {}
        if error.get("Message"):
            raise ExitWith(1, error["Message"])
        click.echo(str(answer["StatusCode"]))

    return for_each(containers, one, show=False)


@command("pause", several("containers", "CONTAINER"))
def pause(containers: tuple[str, ...]) -> int:
    """Pause all processes within one or more containers."""
    engine = current().engine
    return for_each(containers, lambda name: engine.post(f"{_path(name)}/pause"))


@command("unpause", several("containers", "CONTAINER"))
def unpause(containers: tuple[str, ...]) -> int:
    """Unpause all processes within one or more containers."""
    engine = current().engine
    return for_each(containers, lambda name: engine.post(f"{_path(name)}/unpause"))


@command("rename", argument("container"), argument("new_name"))
def rename(container: str, new_name: str) -> int:
    """Rename a container."""
    current().engine.post(f"{_path(container)}/rename", name=new_name)
    return 0


@command(
    "top",
    argument("container"),
    argument("ps_options", nargs=-1, required=False, metavar="[ps OPTIONS]"),
    interspersed=False,
)
def top(container: str, ps_options: tuple[str, ...]) -> int:
    """Display the running processes of a container."""
    answer = current().engine.get(f"{_path(container)}/top", ps_args=" ".join(ps_options) or None)
    write_table([answer["Titles"], *(answer["Processes"] or [])], min_width=_TOP_WIDTH)
    return 0
