"""The guest's end of the control channel: a virtio-serial port that is there before any host is.

While no host is connected the port reads 0 bytes and polls as hung up, so it
is watched by edge: one event when a host comes, one when it goes. Bytes and
"a host came" travel by two queues of the device, so the first bytes of a host
may be read while the port still counts as closed, and reads 0 after them.

Source: drivers/char/virtio_console.c, port_fops_read and port_fops_poll, Linux 6.12.
"""

import os
import select
import time
from collections.abc import Callable

from vmguest import protocol
from vmguest.init.console import say
from vmguest.init.loop import READ_EDGE, Loop
from vmguest.protocol import Message

_CHUNK_BYTES = 64 * 1024
_QUEUE_MAX_BYTES = 1 << 20
_SETTLE_S = 1.0  # after that long the port has noticed whether a host is there


def find_port(sys_class: str = "/sys/class/virtio-ports", *, timeout_s: float = 5.0) -> str:
    """Return the device node of the control port.

    Raises:
        TimeoutError: the host gave this machine no such port.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        for port in _entries(sys_class):
            with open(f"{sys_class}/{port}/name", encoding="ascii", errors="replace") as file:
                if file.read().strip() == protocol.PORT_NAME:
                    return f"/dev/{port}"
        if time.monotonic() > deadline:
            raise TimeoutError(f"no virtio-serial port {protocol.PORT_NAME} within {timeout_s:.0f} s")
        time.sleep(0.01)  # ports are announced by messages after the driver has probed; no event reaches us


def _entries(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


class Control:
    """Lines to and from the host; what is sent while no host listens is dropped."""

    def __init__(self, loop: Loop, fd: int, on_message: Callable[[Message], None]) -> None:
        """Take over the open, non-blocking port `fd`; nothing is read before `serve`."""
        self._fd = fd
        self._on_message = on_message
        self._decoder = protocol.Decoder()
        self._queue = bytearray()
        self._attached = False
        self._loop = loop

    @property
    def attached(self) -> bool:
        """Whether a host has said `attach` and has not gone."""
        return self._attached

    def serve(self) -> None:
        """Begin to read, with what came before we watched: that makes no edge."""
        self._loop.add(self._fd, READ_EDGE, self._event)
        self._event(select.EPOLLIN)

    def send(self, kind: str, **fields: object) -> None:
        """Queue a message for the host that is attached; without one it is dropped."""
        if not self._attached:
            return
        self._queue += protocol.encode(kind, **fields)
        if len(self._queue) > _QUEUE_MAX_BYTES:  # a host that does not read
            say("control: the host does not read; dropping what was queued")
            self._queue.clear()
        self._flush()

    def _event(self, events: int) -> None:
        heard = False
        while True:
            try:
                data = os.read(self._fd, _CHUNK_BYTES)
            except BlockingIOError:
                break
            if not data:
                if heard:  # a host that is about to be noticed, or one that left with these words
                    self._loop.call_later(_SETTLE_S, lambda: self._event(0))
                else:
                    self._detach()
                break
            heard = True
            self._feed(data)
        if events & select.EPOLLOUT:
            self._flush()

    def _detach(self) -> None:
        self._attached = False
        self._queue.clear()
        self._decoder = protocol.Decoder()

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                for message in self._decoder.feed(data):
                    if message["type"] == "attach":
                        self._attached = True
                        self._queue.clear()  # said to an older host
                    self._on_message(message)
            except protocol.ProtocolError as err:  # the rest of a line that an older host began
                say(f"control: {err}")
                data = b""
                continue
            return

    def _flush(self) -> None:
        while self._queue:
            try:
                sent = os.write(self._fd, self._queue[:_CHUNK_BYTES])
            except BlockingIOError:
                return
            except OSError as err:
                say(f"control: {err.strerror}")
                self._detach()
                return
            del self._queue[:sent]
