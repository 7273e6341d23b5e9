"""The agent's listening sockets, private to the user: made under the agent's lock, removed at its end."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from engine.base.errors import NotSupported

_BACKLOG = 128
_ACCEPT_RETRY_S = 0.2

if sys.platform == "win32":

    def listen(path: Path) -> socket.socket:
        """Return a socket that listens on `path`, for this user only."""
        raise NotSupported(f"{path}: the host agent needs unix sockets, which Python lacks on Windows")
else:

    def listen(path: Path) -> socket.socket:
        """Return a socket that listens on `path`, for this user only.

        The caller holds the lock that makes it the only one to do so: what
        lies there is left from an agent that was killed.
        """
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            old = os.umask(0o177)
            try:
                sock.bind(str(path))
            finally:
                os.umask(old)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock


async def accept(listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
    """Hand each connection, blocking, to `take`, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            client, _ = await loop.sock_accept(listener)
        except OSError:
            await asyncio.sleep(_ACCEPT_RETRY_S)  # out of descriptors: some may be given back
            continue
        client.setblocking(True)
        take(client)


def remove(listener: socket.socket, path: Path) -> None:
    """Close `listener` and remove its name."""
    listener.close()
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
