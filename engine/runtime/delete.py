"""End what is left of a container, and remove it."""

import signal as signals
from pathlib import Path

from engine.kernel import process
from engine.runtime.cgroups.model import StillPopulated
from engine.runtime.cgroups.select import cgroup_at
from engine.runtime.errors import StillRunning

_FREEZE_TIMEOUT_S = 10.0


def kill(cgroup: str, pidfd: int, signal: int, *, everyone: bool = False) -> bool:
    """Send `signal` to the init process, or to every process of the control group.

    Returns:
        False when there was nobody to send it to.
    """
    if everyone and cgroup:
        return cgroup_at(cgroup).signal(signal) > 0
    try:
        process.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return False
    return True


def pause(cgroup: str) -> None:
    """Freeze every process of the control group and return once they are frozen."""
    cgroup_at(cgroup).freeze(True, timeout_s=_FREEZE_TIMEOUT_S)


def resume(cgroup: str) -> None:
    """Thaw the control group."""
    cgroup_at(cgroup).freeze(False, timeout_s=_FREEZE_TIMEOUT_S)


def delete(cgroup: str, bundle: Path | None, *, timeout_s: float = 5.0) -> None:
    """Kill what is left in the control group, remove it and state.json; repeating it is harmless.

    The init process must have been reaped, or be about to end.

    Raises:
        StillRunning: processes could not be ended in time.
    """
    group = cgroup_at(cgroup)
    group.signal(signals.SIGKILL)
    try:
        group.remove(timeout_s=timeout_s)
    except StillPopulated as err:
        raise StillRunning(str(err)) from err
    if bundle is not None:
        (bundle / "state.json").unlink(missing_ok=True)
