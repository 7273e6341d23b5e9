"""One attached client: its hijacked socket, which the daemon has passed to the shim.

Output goes out framed, as it comes, without a copy while the client keeps up.
What it does not take at once is queued; past `HIGH_BYTES` the client is full
and its owner stops reading the process's output, as docker does, until the
queue is down to `LOW_BYTES`. A client that has gone is dropped, and so is, by
its owner, one that takes nothing at all while others wait for more.

A frame is 8 bytes of header, then the payload::

    0      1..3   4..7
    kind   zero   payload length in bytes, unsigned, big-endian

Source: Docker Engine API v1.51, ContainerAttach, "Stream format".
"""

import contextlib
import socket
import struct
from collections import deque
from itertools import islice
from typing import Protocol

from engine.base.detachkeys import DetachKeys
from engine.shim.loop import HANG_UP, NOTHING, READ, WRITE, Loop
from engine.shim.protocol import Streams

STDOUT = 1
STDERR = 2
HIGH_BYTES = 256 * 1024
LOW_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_VECTOR_MAX = 64
_HEADER = struct.Struct(">BxxxL")


class Owner(Protocol):
    """What a client tells whoever attached it."""

    def input_came(self, client: "Client", data: bytes) -> None:
        """The client has sent input."""

    def input_ended(self, client: "Client") -> None:
        """The client will send no more input."""

    def flow_changed(self) -> None:
        """The client has become full, or has room again."""

    def client_gone(self, client: "Client") -> None:
        """The socket is closed."""


class Client:
    """Owns the socket until it is closed, which `client_gone` tells."""

    def __init__(self, loop: Loop, sock_fd: int, streams: Streams, owner: Owner, *, terminal: bool) -> None:
        self.streams = streams
        self.is_full = False
        self.taken_bytes = 0  # of what was queued
        self._loop = loop
        self._owner = owner
        self._sock = socket.socket(fileno=sock_fd)
        self._sock.setblocking(False)
        self._keys = DetachKeys(streams.detach_keys if terminal else b"")
        self._queue: deque[memoryview] = deque()
        self._queued_bytes = 0
        self._reading = True
        self._held = False
        self._finishing = False
        self._open = True
        self._events = READ
        loop.watch(sock_fd, READ, self._ready)

    @property
    def is_open(self) -> bool:
        """Whether the socket is still there."""
        return self._open

    def send(self, kind: int, data: bytes) -> None:
        """Pass output on."""
        if self.streams.framed:
            self._send(_HEADER.pack(kind, len(data)), data)
        else:
            self._send(data)

    def greet(self) -> None:
        """Send the greeting of the attach request, as it is."""
        if self.streams.greeting:
            self._send(self.streams.greeting)

    def take_prefix(self) -> None:
        """Treat the input that came along with the request as if it came now."""
        if self.streams.prefix:
            self._input(self.streams.prefix)

    def hold_input(self, held: bool) -> None:
        """Stop reading the client's input, or go on."""
        self._held = held
        self._choose_events()

    def finish(self) -> None:
        """Close the socket once what is queued has been sent."""
        self._finishing = True
        if not self._queue:
            self.close()

    def close(self) -> None:
        """Close the socket now; harmless when closed.

        Unread input is drained first: closing over it would give the client
        "connection reset" in place of the end of its stream.
        """
        if not self._open:
            return
        self._open = False
        self._loop.unwatch(self._sock.fileno())
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
            while self._sock.recv(_READ_BYTES):
                pass
        self._sock.close()
        self._queue.clear()
        self.is_full = False
        self._end_input()
        self._owner.client_gone(self)

    def _send(self, *parts: bytes) -> None:
        if not self._open:
            return
        sent = 0
        if not self._queue:
            try:
                sent = self._sock.sendmsg(parts)
            except BlockingIOError:
                pass
            except OSError:
                self.close()
                return
        for part in parts:
            if sent < len(part):
                self._queue.append(memoryview(part)[sent:])
                self._queued_bytes += len(part) - sent
            sent = max(0, sent - len(part))
        if self._queue:
            self._choose_events()
            self._measure()

    def _flush(self) -> None:
        try:
            while self._queue:
                sent = self._sock.sendmsg(list(islice(self._queue, _VECTOR_MAX)))
                self._queued_bytes -= sent
                self.taken_bytes += sent
                while self._queue and sent >= len(self._queue[0]):
                    sent -= len(self._queue.popleft())
                if sent:
                    self._queue[0] = self._queue[0][sent:]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._finishing and not self._queue:
            self.close()
            return
        self._choose_events()
        self._measure()

    def _measure(self) -> None:
        full = self._queued_bytes > (LOW_BYTES if self.is_full else HIGH_BYTES)
        if full != self.is_full:
            self.is_full = full
            self._owner.flow_changed()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._open and self._reading and events & (READ | HANG_UP):
            self._read()
        if self._open and events & HANG_UP:
            while self._reading:
                self._read()
            self.close()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._input(data)
        else:
            self._end_input()
            self._choose_events()

    def _end_input(self) -> None:
        if self._reading:
            self._reading = False
            if self.streams.stdin:
                self._owner.input_ended(self)

    def _input(self, data: bytes) -> None:
        if not self.streams.stdin:
            return
        data, detach = self._keys.feed(data)
        if data:
            self._owner.input_came(self, data)
        if detach:
            self._reading = False
            self._choose_events()
            self.finish()

    def _choose_events(self) -> None:
        if not self._open:
            return
        events = READ if self._reading and not self._held else NOTHING
        if self._queue:
            events |= WRITE
        if events != self._events:
            self._events = events
            self._loop.change(self._sock.fileno(), events)
