"""From the name of a machine to its socket: the fast path through the host agent, and the slow one."""

from typing import TYPE_CHECKING

import click

from engine.base.errors import EngineError
from hostagent.paths import MachinePaths, host_paths

if TYPE_CHECKING:
    from pathlib import Path


def machine_address(name: str) -> str:
    """Return the endpoint of the machine `name`, running when this returns.

    Raises:
        EngineError: the machine cannot be started.
    """
    if _runs(name):
        return f"unix://{MachinePaths(name).docker_socket}"
    from hostagent.machine.launch import ensure_running  # noqa: PLC0415 (only when it must be started)

    return f"unix://{ensure_running(name, progress=progress_line)}"


def _runs(name: str) -> bool:
    from hostagent.client.agent import AgentClient  # noqa: PLC0415 (keeps its module out of the native path)

    paths = MachinePaths(name)
    if not paths.agent_socket.exists():
        return False
    try:
        return AgentClient(paths.agent_socket).status().get("state") == "running"
    except (EngineError, OSError):
        return False  # the slow path says what is wrong


def preload_directory() -> str:
    """Return the directory of the newest VM image's busybox archive, or an empty string."""
    found: list[Path] = sorted(
        host_paths().images.glob("*/busybox.tar"), key=lambda path: path.stat().st_mtime_ns
    )
    return str(found[-1].parent) if found else ""


def progress_line(text: str) -> None:
    """Tell on stderr what takes long."""
    click.echo(text, err=True)
