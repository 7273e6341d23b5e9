"""Make a container up to the point where its program is about to be executed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.spec.runtime import Mount, Spec


@dataclass(frozen=True, slots=True)
class Stdio:
    """Descriptors that become 0, 1 and 2 of the process; borrowed, and ignored with a terminal."""

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int


@dataclass(frozen=True, slots=True)
class Created:
    """A process that waits for `start`; it is a child of the caller, who reaps it.

    Attributes:
        pid: in the caller's PID namespace.
        pidfd: owned by the caller.
        terminal_fd: the master of its terminal, owned by the caller; None without one.
        cgroup: path of its control group below every hierarchy's root; "" for the caller's.
        warnings: what could not be done and was not essential, one line each.
        control_fd: the runtime's line to the waiting process; `start` closes it.
        state_path: state.json of the container; None for a process that joined one.
    """

    pid: int
    pidfd: int
    terminal_fd: int | None
    cgroup: str
    warnings: tuple[str, ...]
    control_fd: int = field(repr=False)
    state_path: Path | None = None


def create(
    spec: Spec,
    bundle: Path,
    container_id: str,
    *,
    stdio: Stdio,
    rootfs_mounts: Sequence[Mount] = (),
) -> Created:
    """Make the container of `spec` as a child of this process; its program waits for `start`.

    `rootfs_mounts` (such as the overlay of an image) are made at
    `spec.root.path`, inside the container's own mount namespace: the host
    never has them, so nothing of them can leak. state.json is written to the
    bundle. The control group is `spec.linux.cgroupsPath`, or
    `/pyengine/<container_id>`. This process must be single-threaded.

    Raises:
        InvalidArgument: the spec cannot be carried out as written.
        NotSupported: it asks for what this engine or kernel does not have.
        StartFailed: a step failed; nothing of the container is left.
    """
    raise NotImplementedError


def start(created: Created) -> None:
    """Let the process execute its program; return once the program runs.

    Raises:
        StartFailed: it could not be executed (`exit_code` 127 or 126), or a
            last step before failed (125). The process has ended; the caller
            reaps it and calls `delete`.
    """
    raise NotImplementedError
