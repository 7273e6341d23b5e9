"""Who did what: one JSON line a state-changing call, append only.

Docker's split of client and server loses the person behind a call; the
kernel's word on the peer of the socket (SO_PEERCRED) keeps it. Queries and
bodies are left out: they may hold secrets. On a full disk lines are lost, and
the log says how many: refusing the calls would leave no way to empty it.
"""

import errno
import logging
import os
import time
from pathlib import Path

from engine.api.http import Peer
from engine.base import jsonio

log = logging.getLogger(__name__)

READ_ONLY_METHODS = frozenset(("GET", "HEAD"))


class AuditLog:
    """The open log; each line is one write, so lines never mix."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lost = 0

    def record(self, peer: Peer, method: str, path: str, subject: str, status: int) -> None:
        """Append what `peer` did and how it ended."""
        line = {
            "time_ns": time.time_ns(),
            "uid": peer.uid,
            "pid": peer.pid,
            "executable": _executable(peer.pid),
            "method": method,
            "path": path,
            "object": subject,
            "status": status,
        }
        if self._lost:
            line["lines_lost_before"] = self._lost
        try:
            self._append(jsonio.encode(line) + b"\n")
        except OSError as err:
            if not self._lost:
                log.warning("%s: lines are lost: %s", self._path, (err.strerror or str(err)).lower())
            self._lost += 1
        else:
            self._lost = 0

    def _append(self, line: bytes) -> None:
        """Write all of `line` or nothing."""
        written = os.write(self._fd, line)
        if written < len(line):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _executable(pid: int) -> str:
    """Return what `pid` runs, or nothing when it is gone or in another PID namespace."""
    try:
        return os.readlink(f"/proc/{pid}/exe") if pid > 0 else ""
    except OSError:
        return ""
