"""The daemons that a shim talks to: the one that had it made, and those that find its socket later.

The socket lies in the bundle, 0600, and who connects to it must be the same
user; each is greeted first, and gets what all get from then on.
"""

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from engine.base.unixsocket import short_address
from engine.shim.loop import READ, Loop
from engine.shim.peer import Peer
from engine.shim.protocol import AnyAnswer, AnyRequest, Hello, SpanRecord

_UCRED = struct.Struct("3i")
_BACKLOG = 16


class Daemons:
    """Whoever is connected."""

    def __init__(
        self,
        loop: Loop,
        path: Path,
        *,
        hello: Callable[[tuple[SpanRecord, ...]], Hello],
        serve: Callable[[Peer, AnyRequest, list[int]], None],
        when_gone: Callable[[], None],
    ) -> None:
        """Begin with none, and without a socket.

        Args:
            loop: that watches their connections.
            path: of the socket.
            hello: makes the first message to each.
            serve: takes a request, with descriptors that are closed after it.
            when_gone: called after each one's end.
        """
        self._loop = loop
        self._path = path
        self._hello = hello
        self._serve = serve
        self._when_gone = when_gone
        self._peers: list[Peer] = []
        self._listener: socket.socket | None = None

    @property
    def are_there(self) -> bool:
        """Whether one is connected."""
        return bool(self._peers)

    @property
    def have_queued(self) -> bool:
        """Whether one has not yet taken all that it was sent."""
        return any(peer.has_queued for peer in self._peers)

    def listen(self) -> None:
        """Let more connect, from now on."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            with short_address(self._path) as address:
                listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        finally:
            os.umask(mask)
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), READ, self._accept)
        self._listener = listener

    def stop_listening(self) -> None:
        """Let no more connect; harmless when none can."""
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

    def add(self, sock: socket.socket, spans: tuple[SpanRecord, ...] = ()) -> None:
        """Greet the daemon behind `sock`, and serve it."""
        peer = Peer(self._loop, sock, on_request=self._serve, on_gone=self._gone)
        self._peers.append(peer)
        peer.send(self._hello(spans))

    def tell(self, message: AnyAnswer) -> bool:
        """Send `message` to all; False when there is none."""
        for peer in self._peers[:]:
            peer.send(message)
        return bool(self._peers)

    def close(self) -> None:
        """Close every connection."""
        for peer in self._peers[:]:
            peer.close()

    def _accept(self, _events: int) -> None:
        if self._listener is None:
            return
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        if _UCRED.unpack(credentials)[1] != os.geteuid():
            sock.close()
            return
        self.add(sock)

    def _gone(self, peer: Peer) -> None:
        self._peers.remove(peer)
        self._when_gone()
