"""Memory of processes, from /proc; Linux only.

By smaps_rollup, which walks the pages: since Linux 6.2 the counters behind
VmRSS are kept per processor, and are far off for small processes.

Source: proc(5), /proc/PID/smaps_rollup, /proc/PID/stat.
"""

import time
from pathlib import Path

from engine.base.errors import Unavailable

_KIB = 1024
_ASLEEP_TIMEOUT_S = 30.0
_POLL_S = 0.005
_STAT_PPID = 1


def resident_bytes(pid: int) -> int:
    """Return the resident set of a process, shared pages included."""
    return _field(f"/proc/{pid}/smaps_rollup", ("Rss:",))


def private_bytes(pid: int) -> int:
    """Return what would be free without the process: pages that no other one shares."""
    return _field(f"/proc/{pid}/smaps_rollup", ("Private_Clean:", "Private_Dirty:"))


def _field(path: str, names: tuple[str, ...]) -> int:
    total = 0
    for line in Path(path).read_text(encoding="ascii").splitlines():
        words = line.split()
        if words and words[0] in names:
            total += int(words[1]) * _KIB
    return total


def parent_of(pid: int) -> int:
    """Return the parent of a process."""
    return int(_stat(pid)[_STAT_PPID])


def wait_until_asleep(pid: int) -> None:
    """Return when a process that has just begun waits for something: before, most of it is not there yet.

    Raises:
        Unavailable: it keeps busy.
    """
    deadline = time.monotonic() + _ASLEEP_TIMEOUT_S
    while _stat(pid)[0] != "S":
        if time.monotonic() > deadline:
            raise Unavailable(f"process {pid} is not idle after {_ASLEEP_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)  # nothing tells when another's child goes to sleep


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()
