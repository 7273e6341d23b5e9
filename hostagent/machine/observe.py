"""What can be told of a machine from outside its agent: settings, the agent's answer, or what locks say.

No file says "running". An agent that answers knows; without one, a held
machine lock means a virtual machine that nobody tends.
"""

from typing import Any

import msgspec

from engine.base.errors import Conflict, EngineError, Unavailable
from engine.base.lockfile import holder_of
from hostagent.client.agent import AgentClient
from hostagent.machine import accel, disk, launch, store
from hostagent.machine.model import Machine, Status
from hostagent.paths import MachinePaths

_UP = frozenset({Status.STARTING, Status.RUNNING, Status.DEGRADED, Status.STOPPING})


def status_of(name: str) -> dict[str, Any]:
    """Return the agent's status of the machine `name`, or what can be told without an agent."""
    paths = MachinePaths(name)
    if paths.agent_socket.exists():
        try:
            return AgentClient(paths.agent_socket).status()
        except EngineError:  # it was killed, or is ending: the locks tell
            pass
    holder = holder_of(paths.machine_lock)
    state = Status.STOPPED if holder is None else Status.DEGRADED
    return {
        "name": name,
        "state": str(state),
        "reason": "" if holder is None else "its virtual machine runs, but no host agent tends it",
        "docker_socket": str(paths.docker_socket),
        "disk_used_bytes": disk.used_bytes(paths.data_disk),
        "ports": [],
    }


def inspect(name: str) -> dict[str, Any]:
    """Return settings, status, files and remembered accelerators of the machine `name`.

    Raises:
        NotFound: there is none.
    """
    settings = store.load(name)
    paths = MachinePaths(name)
    return {
        "settings": msgspec.to_builtins(settings),
        "status": {key: value for key, value in status_of(name).items() if key not in {"ok", "name"}},
        "accelerators": {key: msgspec.to_builtins(verdict) for key, verdict in accel.remembered().items()},
        "files": {
            "settings": str(paths.settings),
            "data_disk": str(paths.data_disk),
            "identity": str(paths.client_key),
            "agent_log": str(paths.agent_log),
            "qemu_log": str(paths.qemu_log),
            "console_log": str(paths.console_log),
            "previous_console_log": str(paths.previous_console_log),
            "agent_socket": str(paths.agent_socket),
            "docker_socket": str(paths.docker_socket),
        },
    }


def is_up(status: dict[str, Any]) -> bool:
    """Tell whether a virtual machine runs, or is about to."""
    return status["state"] in _UP


def stop(name: str, *, force: bool) -> bool:
    """Stop the machine `name`; false when it was not up.

    A virtual machine without an agent gets one first, so that it ends cleanly.
    """
    store.load(name)
    status = status_of(name)
    agent_answers = "agent_pid" in status
    if not is_up(status) and not agent_answers:
        return False
    launch.ensure_agent(name).stop(force=force)
    return is_up(status)


def remove(name: str, *, force: bool) -> None:
    """Remove the machine `name` with its disk.

    Raises:
        NotFound: there is none.
        Conflict: it is up, and `force` is not given.
        Unavailable: its agent does not end.
    """
    settings: Machine = store.load(name)
    status = status_of(name)
    if is_up(status) and not force:
        raise Conflict(
            f"machine {name} is {status['state']}", hint=f"pyengine machine stop {name}, or rm --force"
        )
    stop(name, force=True)
    launch.wait_for_agent_end(name)
    if holder_of(MachinePaths(settings.name).machine_lock) is not None:
        raise Unavailable(f"machine {name}: its virtual machine does not end")
    store.remove(name)
