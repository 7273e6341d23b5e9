"""Memory of processes, from /proc; Linux only.

Source: proc(5), /proc/PID/smaps_rollup, /proc/PID/status.
"""

from pathlib import Path

_KIB = 1024
_STAT_PPID = 1


def resident_bytes(pid: int) -> int:
    """Return the resident set of a process, shared pages included."""
    return _field(f"/proc/{pid}/status", ("VmRSS:",))


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
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(text.rpartition(")")[2].split()[_STAT_PPID])
