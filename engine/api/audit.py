"""Who did what: one JSON line a state-changing call, append only.

Docker's split of client and server loses the person behind a call; the
kernel's word on the peer of the socket (SO_PEERCRED) keeps it. Queries and
bodies are left out: they may hold secrets.

What a full disk does not take goes to the daemon's own log: the call has been
made already, and the next may be the one that frees space.
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
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

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
        text = jsonio.encode(line)
        try:
            self._append(text + b"\n")
        except OSError as err:
            log.warning("audit log: %s: %s", os.strerror(err.errno or 0).lower(), text.decode())

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
