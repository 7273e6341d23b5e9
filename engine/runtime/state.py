"""state.json: what another process must know to go on with a container.

Source: OCI runtime-spec 1.2.0, runtime.md, "State"; `startTime`, `cgroup` and
`created` are ours.
"""

import os
import time
from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.spec.runtime import OCI_VERSION


class State(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """One container as its creator left it; the status is derived, never saved."""

    oci_version: str = OCI_VERSION
    id: str
    pid: int
    start_time: int  # of the process, in clock ticks since boot: tells it from a later one of that number
    bundle: str
    cgroup: str
    created_ns: int
    annotations: dict[str, str] = {}


def start_time(pid: int) -> int | None:
    """Return when `pid` was started, in clock ticks since boot; None when there is no such process."""
    found = _stat(pid)
    return None if found is None else int(found[19])


def is_zombie(pid: int) -> bool:
    """Tell whether `pid` has ended and waits to be reaped."""
    found = _stat(pid)
    return found is not None and found[0] in (b"Z", b"X")


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from the third on."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(4096).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def new_state(container_id: str, bundle: Path, pid: int, cgroup: str, annotations: dict[str, str]) -> State:
    """Return the state of a container that has just been made."""
    return State(
        id=container_id,
        pid=pid,
        start_time=start_time(pid) or 0,
        bundle=str(bundle),
        cgroup=cgroup,
        created_ns=time.time_ns(),
        annotations=annotations,
    )


def write(path: Path, state: State) -> None:
    """Put `state` at `path`, whole or not at all. A reboot ends the container too, so nothing is synced."""
    fresh = f"{path}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, msgspec.json.encode(state))
    finally:
        os.close(fd)
    os.rename(fresh, path)


def read(path: Path) -> State:
    """Return the state at `path`.

    Raises:
        FileNotFoundError: there is none.
        InvalidArgument: it is damaged.
    """
    return jsonio.read(path, State)
