"""The loop of an attached command: terminal and container, bytes both ways, until the container is done.

    stdin ----> [detach keys] ----> hijacked socket ----> container
    stdout/stderr <---- [frames] <---- hijacked socket
    signals ----> `on_signal`      wait's answer ----> `Outcome.exit`

One thread, one select(2); nothing is lost at the end because the engine closes
the hijacked socket only after the last byte of output.
"""

import contextlib
import os
import select
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.base.detachkeys import DetachKeys
from engine.base.errors import NotSupported
from hostagent.cli import tty
from hostagent.client.errors import ConnectionLost
from hostagent.client.http import Connection
from hostagent.client.stream import STDERR, Decoder

_CHUNK_BYTES = 1 << 16
_PENDING_MAX_BYTES = 1 << 18


class Outcome(NamedTuple):
    """How a session ended: detached by keys, or with the answer of `wait` (None when not asked)."""

    detached: bool
    answer: Any


class Session:
    """One attached command.

    Args:
        stream: the hijacked socket; closed at the end.
        early: bytes that came with the engine's answer.
        stdin_fd: where input comes from; None for none.
        framed: output comes in frames (no terminal in the container).
        detach_keys: the sequence that detaches; empty for none.
        waiting: a connection on which wait's answer will come, or None; closed at the end.
        signals: those to pass to `on_signal`, already active; None for none.
        on_signal: called with each signal's number, but the terminal's.
        on_resize: called when the terminal's size has changed.
    """

    def __init__(
        self,
        stream: socket.socket,
        early: bytes,
        *,
        stdin_fd: int | None,
        framed: bool,
        detach_keys: bytes = b"",
        waiting: Connection | None = None,
        signals: tty.Signals | None = None,
        on_signal: Callable[[int], None] = lambda _number: None,
        on_resize: Callable[[], None] = lambda: None,
    ) -> None:
        if sys.platform == "win32" and stdin_fd is not None:
            raise NotSupported("attaching stdin is not supported on Windows yet", hint="leave out -i")
        self._stream = stream
        self._decoder = Decoder() if framed else None
        self._stdin_fd = stdin_fd
        self._detach = DetachKeys(detach_keys)
        self._waiting = waiting
        self._signals = signals
        self._on_signal = on_signal
        self._on_resize = on_resize
        self._pending = bytearray()
        self._open = True
        self._early = early

    def run(self) -> Outcome:
        """Carry bytes until the output ends and wait has answered, or the user detaches."""
        raw = (
            tty.raw_mode(self._stdin_fd)
            if self._decoder is None and self._stdin_fd is not None and tty.is_terminal(self._stdin_fd)
            else contextlib.nullcontext()
        )
        with contextlib.ExitStack() as stack:
            stack.callback(self._stream.close)
            if self._waiting is not None:
                stack.callback(self._waiting.close)
            signals = self._signals or stack.enter_context(tty.Signals((tty.resize_signal(),)))
            stack.enter_context(raw)
            self._on_resize()
            if self._early:
                self._output(self._early)
            while self._open or (self._waiting is not None and not self._waiting.answered):
                if self._step(signals):
                    return Outcome(detached=True, answer=None)
            answer = None if self._waiting is None else self._waiting.receive().json()
            return Outcome(detached=False, answer=answer)

    def _step(self, signals: tty.Signals) -> bool:
        """Wait for something to happen and deal with it; True when the user has detached."""
        reads: list[Any] = [signals]
        if self._open:
            reads.append(self._stream)
        if self._stdin_fd is not None and self._open and len(self._pending) < _PENDING_MAX_BYTES:
            reads.append(self._stdin_fd)
        if self._waiting is not None and not self._waiting.answered:
            reads.append(self._waiting.sock)
        writes = [self._stream] if self._pending else []
        readable, writable, _ = select.select(reads, writes, [])
        if signals in readable:
            self._deal_with(signals.read())
        if self._stream in readable:
            self._receive()
        if writable:
            self._send()
        if self._waiting is not None and self._waiting.sock in readable and not self._waiting.fill():
            raise ConnectionLost("the engine went away while the container ran")
        return self._stdin_fd in readable and self._type()

    def _deal_with(self, numbers: list[int]) -> None:
        for number in numbers:
            if number == tty.resize_signal():
                self._on_resize()
            else:
                self._on_signal(number)

    def _receive(self) -> None:
        try:
            data = self._stream.recv(_CHUNK_BYTES)
        except ConnectionResetError:
            data = b""
        if data:
            self._output(data)
            return
        if self._decoder is not None and not self._decoder.between_frames:
            raise ConnectionLost("the engine went away in the middle of the container's output")
        self._open = False
        self._pending.clear()

    def _output(self, data: bytes) -> None:
        if self._decoder is None:
            write_all(1, data)
            return
        for kind, payload in self._decoder.feed(data):
            write_all(2 if kind == STDERR else 1, payload)

    def _type(self) -> bool:
        """Take input; True when it completed the detach sequence."""
        assert self._stdin_fd is not None  # noqa: S101 (selected on it)
        try:
            data = os.read(self._stdin_fd, _CHUNK_BYTES)
        except OSError:  # a terminal that hung up
            data = b""
        if not data:
            self._stdin_fd = None
            self._half_close()
            return False
        data, detached = self._detach.feed(data)
        self._pending += data
        if detached:
            return True
        self._send()
        return False

    def _send(self) -> None:
        try:
            sent = (
                self._stream.send(self._pending, getattr(socket, "MSG_DONTWAIT", 0)) if self._pending else 0
            )
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._pending.clear()
            self._stdin_fd = None  # nobody reads; output may still come
            return
        del self._pending[:sent]
        self._half_close()

    def _half_close(self) -> None:
        if self._stdin_fd is None and not self._pending and self._open:
            with contextlib.suppress(OSError):
                self._stream.shutdown(socket.SHUT_WR)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`, waiting when `fd` does not block and is full."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
