"""Whether a process is still the one that a file speaks of: its pid, and when it started.

Pids are used again; a pid with its start time is not.
"""

import contextlib
import mmap
import os
import signal
import sys

from engine.base.errors import EngineError
from engine.base.process import run

_PS_TIMEOUT_S = 10
_PLATFORM = str(sys.platform)  # a variable, so that type checkers look at every branch


def start_token(pid: int) -> str:
    """Return what only the process `pid` of today has; empty when there is no such process."""
    if _PLATFORM == "linux":
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rsplit(b")", 1)[1].split()
            with open("/proc/sys/kernel/random/boot_id", "rb") as file:
                boot = file.read().strip()
        except (OSError, IndexError):
            return ""
        dead = fields[0] in {b"Z", b"X"}
        return "" if dead else f"{boot.decode()} {fields[19].decode()}"
    if _PLATFORM == "win32":
        script = f"(Get-Process -Id {pid}).StartTime.ToFileTimeUtc()"
        return _output(["powershell", "-NoProfile", "-Command", script])
    return _output(["ps", "-o", "lstart=", "-p", str(pid)])


def alive(pid: int, token: str) -> bool:
    """Tell whether the process `pid` that had `token` still runs."""
    return bool(token) and start_token(pid) == token


def kill(pid: int, token: str) -> None:
    """Kill the process `pid` if it is the one that had `token`."""
    if alive(pid, token):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def resident_bytes(pid: int) -> int:
    """Return the resident memory of `pid`; 0 when it cannot be told."""
    if _PLATFORM != "linux":
        text = "" if _PLATFORM == "win32" else _output(["ps", "-o", "rss=", "-p", str(pid)])
        return int(text) * 1024 if text.isdigit() else 0
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def _output(argv: list[str]) -> str:
    try:
        return run(argv, timeout_s=_PS_TIMEOUT_S).stdout.decode(errors="replace").strip()
    except (EngineError, TimeoutError):
        return ""
