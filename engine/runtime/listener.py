"""Hand the listener of a seccomp filter to the agent that answers for the container.

Source: OCI runtime-spec 1.2.0, config-linux.md, "The Container Process State".
"""

import array
import os
import socket
from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.base.unixsocket import short_address
from engine.runtime import seccomp
from engine.spec.runtime import OCI_VERSION, Seccomp, Spec

_TIMEOUT_S = 10.0
_FD_NAME = "seccompFd"


class Agent(msgspec.Struct, frozen=True):
    """Who answers, and what it is told; pure."""

    path: str
    metadata: str
    container_id: str
    bundle: str
    annotations: tuple[tuple[str, str], ...]
    container_pid: int | None  # None: of a container's first process, which is not born yet

    def document(self, pid: int) -> bytes:
        """Return the container process state of the process `pid`, as JSON."""
        first = self.container_pid is None
        state = {
            "ociVersion": OCI_VERSION,
            "id": self.container_id,
            "status": "created" if first else "running",
            "pid": pid if first else self.container_pid,
            "bundle": self.bundle,
            "annotations": dict(self.annotations),
        }
        found = {"ociVersion": OCI_VERSION, "fds": [_FD_NAME], "pid": pid, "state": state}
        return jsonio.encode(found | ({"metadata": self.metadata} if self.metadata else {}))


def agent_of(
    spec: Spec, container_id: str, bundle: Path | str, container_pid: int | None = None
) -> Agent | None:
    """Return the agent of a container whose filter asks for one."""
    profile: Seccomp | None = spec.linux.seccomp
    if profile is None or not seccomp.notifies(profile):
        return None
    return Agent(
        profile.listener_path,
        profile.listener_metadata,
        container_id,
        str(bundle),
        tuple(spec.annotations.items()),
        container_pid,
    )


def hand_over(agent: Agent, pid: int, listener_fd: int) -> None:
    """Send `listener_fd`, which is borrowed, with the state of `pid`.

    Raises:
        OSError: nobody listens, or takes it in time.
    """
    document = agent.document(pid)
    rights = array.array("i", [listener_fd])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(_TIMEOUT_S)
        with short_address(Path(os.path.abspath(agent.path))) as address:
            sock.connect(address)
        sent = sock.sendmsg([document], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        sock.sendall(document[sent:])
