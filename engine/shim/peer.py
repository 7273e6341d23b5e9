"""One connection of a daemon, as the shim sees it: messages in, messages out, never blocking."""

import array
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from engine.base.errors import InvalidArgument
from engine.shim.loop import HANG_UP, READ, WRITE, Loop
from engine.shim.protocol import FDS_MAX, AnyAnswer, AnyRequest, Reader, encode, request_decoder

_READ_BYTES = 64 * 1024
_ANCILLARY_BYTES = socket.CMSG_SPACE(4 * FDS_MAX)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return what has come over `sock` and the descriptors beside it, now the caller's.

    Descriptors arrive close-on-exec. Empty bytes: the other side has closed.

    Raises:
        BlockingIOError: nothing there.
    """
    data, ancillary, _, _ = sock.recvmsg(_READ_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)


class Peer:
    """Owns the socket; tells its owner of requests, and once of the end."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        *,
        on_request: Callable[["Peer", AnyRequest, list[int]], None],
        on_gone: Callable[["Peer"], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_request = on_request
        self._on_gone = on_gone
        self._reader: Reader[AnyRequest] = Reader(request_decoder)
        self._queue: deque[memoryview] = deque()
        self._open = True
        self._writing = False
        loop.watch(sock.fileno(), READ, self._ready)

    @property
    def has_queued(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._queue)

    def send(self, message: AnyAnswer) -> None:
        """Send, now or as soon as the other side reads."""
        if self._open:
            self._queue.append(memoryview(encode(message)))
            self._flush()

    def close(self) -> None:
        """Close the socket; harmless when closed."""
        if self._open:
            self._open = False
            self._loop.unwatch(self._sock.fileno())
            self._sock.close()
            self._queue.clear()
            close_all(self._reader.drain_fds())
            self._on_gone(self)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._open and events & (READ | HANG_UP):
            self._read()

    def _read(self) -> None:
        try:
            data, fds = receive(self._sock)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        try:
            for message, message_fds in self._reader.feed(data, fds):
                self._on_request(self, message, message_fds)
        except InvalidArgument:
            data = b""
        if not data:
            self.close()

    def _flush(self) -> None:
        try:
            while self._queue:
                size = self._sock.send(self._queue[0])
                if size == len(self._queue[0]):
                    self._queue.popleft()
                else:
                    self._queue[0] = self._queue[0][size:]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._writing != bool(self._queue):
            self._writing = bool(self._queue)
            self._loop.change(self._sock.fileno(), READ | WRITE if self._writing else READ)
