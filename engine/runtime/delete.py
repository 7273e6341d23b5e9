"""End what is left of a container, and remove it."""

from pathlib import Path


def kill(cgroup: str, pidfd: int, signal: int, *, everyone: bool = False) -> bool:
    """Send `signal` to the init process, or to every process of the control group.

    Returns:
        False when there was nobody to send it to.
    """
    raise NotImplementedError


def pause(cgroup: str) -> None:
    """Freeze every process of the control group and return once they are frozen."""
    raise NotImplementedError


def resume(cgroup: str) -> None:
    """Thaw the control group."""
    raise NotImplementedError


def delete(cgroup: str, bundle: Path | None, *, timeout_s: float = 5.0) -> None:
    """Kill what is left in the control group, remove it and state.json; repeating it is harmless.

    The init process must have been reaped, or be about to end.

    Raises:
        StillRunning: processes could not be ended in time.
    """
    raise NotImplementedError
