"""What the runtime is given and gives back."""

from pathlib import Path

import msgspec

from engine.runtime.listener import Agent


class Stdio(msgspec.Struct, frozen=True):
    """Descriptors that become 0, 1 and 2 of the process; borrowed, and ignored with a terminal."""

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int


class Created(msgspec.Struct, frozen=True):
    """A process that waits for `start`; it is a child of the caller, who reaps it.

    Attributes:
        pid: in the caller's PID namespace.
        pidfd: owned by the caller.
        terminal_fd: the master of its terminal, owned by the caller; None without one.
        cgroup: path of its control group below every hierarchy's root; "" for the caller's.
        warnings: what could not be done and was not essential, one line each.
        control_fd: the runtime's line to the waiting process; `start` closes it.
        agent: who answers system calls of the process; None: nobody is asked.
        state_path: state.json of the container; None for a process that joined one.
    """

    pid: int
    pidfd: int
    terminal_fd: int | None
    cgroup: str
    warnings: tuple[str, ...]
    control_fd: int
    state_path: Path | None = None
    agent: Agent | None = None
