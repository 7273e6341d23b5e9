"""The three streams of one process: pipes or a terminal, the log, and any number of clients.

::

    stdout --+--> log                    one thread, no copy between the parts
    stderr --+--> clients that want it   a full client stops the reading; one that has
                                         stopped is dropped where others wait for it
    stdin  <----- clients with input     a full stdin stops their reading

Output is read from the moment the process runs, whether anybody listens or
not. After the process has ended everything that is left in the pipes is read,
full client or not (a pipe holds little); where some other process keeps them
open, the wait for their end is bounded, as in docker, by two seconds.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable
from typing import Protocol

from engine.kernel import tty
from engine.runtime.model import Stdio
from engine.shim.client import STDERR, STDOUT, Client
from engine.shim.loop import HANG_UP, NOTHING, READ, WRITE, Loop, Timer
from engine.shim.protocol import Streams

STALL_S = 5.0  # for a full client to take something, while other clients wait
GRACE_S = 2.0  # for output after the process's end, and again for clients to take it
_READ_BYTES = 64 * 1024
_DRAIN_MAX_BYTES = 4 << 20  # per stream at the process's end; more can only come from another writer
_INPUT_HIGH_BYTES = 64 * 1024


class Log(Protocol):
    """Where output is recorded."""

    @property
    def is_full(self) -> bool:
        """Whether it is better written to later."""

    def when_room(self, call: Callable[[], None]) -> None:
        """Call `call()` whenever it may be full no longer."""

    def write(self, stream: str, data: bytes) -> None:
        """Record a chunk of "stdout" or "stderr"; it is, full or not."""


class _Output:
    """One stream on its way out; owns the descriptor."""

    def __init__(self, owner: "ProcessIO", fd: int, kind: int) -> None:
        self._owner = owner
        self._fd = fd
        self._kind = kind
        self._name = "stderr" if kind == STDERR else "stdout"
        self._watched = True
        os.set_blocking(fd, False)
        owner.loop.watch(fd, READ, self._ready)

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._fd >= 0

    def read_on(self, reading: bool) -> None:
        """Stop reading, or go on.

        Unwatched rather than masked: the hang-up of a process that has closed
        its end would be reported again and again while a client is slow.
        """
        if self._fd < 0 or reading == self._watched:
            return
        self._watched = reading
        if reading:
            self._owner.loop.watch(self._fd, READ, self._ready)
        else:
            self._owner.loop.unwatch(self._fd)

    def drain(self) -> None:
        """Read what is there."""
        left = _DRAIN_MAX_BYTES
        while left > 0 and (size := self._pump()):
            left -= size

    def close(self) -> None:
        """Read no more."""
        if self._fd >= 0:
            self._owner.loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ready(self, _events: int) -> None:
        self._pump()

    def _pump(self) -> int:
        if self._fd < 0:
            return 0
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: the last descriptor of the terminal's other side was closed
            data = b""
        if data:
            self._owner.output(self._kind, self._name, data)
            return len(data)
        self.close()
        self._owner.output_ended()
        return 0


class _Input:
    """The way in; owns the descriptor."""

    def __init__(self, owner: "ProcessIO", fd: int) -> None:
        self._owner = owner
        self._fd = fd
        self._queue: deque[memoryview] = deque()
        self._queued_bytes = 0
        self._closing = False
        os.set_blocking(fd, False)
        owner.loop.watch(fd, NOTHING, self._ready)

    @property
    def is_full(self) -> bool:
        """Whether the process is behind with reading."""
        return self._queued_bytes >= _INPUT_HIGH_BYTES

    def write(self, data: bytes) -> None:
        """Pass input on; dropped when the process has closed its end."""
        if self._fd < 0 or self._closing:
            return
        self._queue.append(memoryview(data))
        self._queued_bytes += len(data)
        if len(self._queue) == 1:
            self._flush()

    def finish(self) -> None:
        """Close once everything has been taken."""
        self._closing = True
        if not self._queue:
            self.close()

    def close(self) -> None:
        """Close now."""
        if self._fd >= 0:
            self._owner.loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._queue.clear()
        self._queued_bytes = 0
        self._owner.input_flow_changed()

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        elif events & HANG_UP:
            self.close()

    def _flush(self) -> None:
        try:
            while self._queue:
                size = os.write(self._fd, self._queue[0])
                self._queued_bytes -= size
                if size == len(self._queue[0]):
                    self._queue.popleft()
                else:
                    self._queue[0] = self._queue[0][size:]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._closing and not self._queue:
            self.close()
            return
        self._owner.loop.change(self._fd, WRITE if self._queue else NOTHING)
        self._owner.input_flow_changed()


class ProcessIO:
    """Streams of one process, from before it is made until its clients are closed.

    Order of use: `child_stdio`, `made`, (`attach`, `resize`)*, `ended`, `close_clients`.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        terminal: bool,
        stdin: bool,
        stdin_once: bool,
        discard: bool = False,
        log: Log | None = None,
        when_client_gone: Callable[[], None] | None = None,
    ) -> None:
        """Describe the streams; nothing is opened yet.

        Args:
            loop: that watches them.
            terminal: one terminal in place of three streams.
            stdin: clients can send input; otherwise it is /dev/null.
            stdin_once: the first client whose input ends closes it for good (without a terminal).
            discard: nobody will ever attach: all three are /dev/null.
            log: gets all output.
            when_client_gone: called after each client's end.
        """
        self.loop = loop
        self.is_held = False
        self._terminal = terminal
        self._stdin = stdin
        self._stdin_once = stdin_once
        self._discard = discard
        self._log = log
        self._when_client_gone = when_client_gone
        self._child_fds: list[int] = []
        self._outputs: list[_Output] = []
        self._input: _Input | None = None
        self._terminal_fd = -1
        self._clients: list[Client] = []
        self._ended = False
        self._when_drained: Callable[[], None] | None = None
        self._when_closed: Callable[[], None] | None = None
        self._timer: Timer | None = None
        self._stall_timer: Timer | None = None
        if log is not None:
            log.when_room(self.flow_changed)

    def child_stdio(self) -> Stdio:
        """Open the pipes and return the process's ends; they are closed by `made` or `abandon`."""
        if self._terminal or self._discard:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            self._child_fds = [null]
            return Stdio(null, null, null)
        stdin = self._open_stdin()
        ends = [stdin]
        for kind in (STDOUT, STDERR):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            ends.append(writer)
            self._child_fds.append(writer)
            self._outputs.append(_Output(self, reader, kind))
        return Stdio(*ends)

    def made(self, terminal_fd: int | None) -> None:
        """The process has its ends now; `terminal_fd` (the master, if it has one) becomes ours."""
        self._close_child_fds()
        if terminal_fd is not None:
            self._terminal_fd = terminal_fd
            self._outputs.append(_Output(self, os.dup(terminal_fd), STDOUT))
            self._input = _Input(self, os.dup(terminal_fd))

    def attach(self, sock_fd: int, streams: Streams) -> None:
        """Join a client's socket, which becomes ours; no later output is lost to it."""
        client = Client(self.loop, sock_fd, streams, self, terminal=self._terminal)
        self._clients.append(client)
        if self._input is not None and self._input.is_full:
            client.hold_input(True)
        client.greet()
        client.take_prefix()

    def resize(self, width: int, height: int) -> bool:
        """Set the terminal's size; False when there is none."""
        if self._terminal_fd < 0:
            return False
        tty.set_winsize(self._terminal_fd, rows=height, columns=width)
        return True

    def ended(self, when_drained: Callable[[], None]) -> None:
        """The process has ended: read the rest of its output, then call."""
        self._ended = True
        self._when_drained = when_drained
        self._timer = self.loop.later(GRACE_S, self._stop_reading)
        for output in self._outputs:
            output.drain()
        self.flow_changed()
        self._drained()

    def close_clients(self, when_closed: Callable[[], None]) -> None:
        """Close each client once it has its output; call when all are, or are too slow to wait for."""
        self._when_closed = when_closed
        self._timer = self.loop.later(GRACE_S, self._closed)
        for client in list(self._clients):
            client.finish()
        if not self._clients:
            self._closed()

    @property
    def has_clients(self) -> bool:
        """Whether somebody is still attached."""
        return bool(self._clients)

    def abandon(self) -> None:
        """Close everything now, whatever state it is in."""
        for timer in (self._timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._when_drained = self._when_closed = None
        self._close_child_fds()
        self._close_process_side()
        for client in list(self._clients):
            client.close()

    # What outputs, input and clients tell.

    def output(self, kind: int, stream: str, data: bytes) -> None:
        """Record and pass on a chunk."""
        if self._log is not None:
            self._log.write(stream, data)
            if self._log.is_full:
                self.flow_changed()
        for client in self._clients[:]:
            if client.streams.stdout if kind == STDOUT else client.streams.stderr:
                client.send(kind, data)

    def output_ended(self) -> None:
        """A stream is at its end."""
        self._drained()

    def flow_changed(self) -> None:
        """A client or the log has become full or has room: stop reading or go on."""
        full = self._log is not None and self._log.is_full
        held = not self._ended and (full or any(client.is_full for client in self._clients))
        if held != self.is_held:
            self.is_held = held
            for output in self._outputs:
                output.read_on(not held)
        self._mind_stalled()

    def _mind_stalled(self) -> None:
        """Give full clients a time to go on, when others could have more.

        A lone client may stop for as long as its user likes, and the process with it.
        """
        full = [client.is_full for client in self._clients]
        others_wait = self.is_held and any(full) and not all(full)
        if not others_wait:
            if self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None
        elif self._stall_timer is None:
            taken = {client: client.taken_bytes for client in self._clients if client.is_full}
            self._stall_timer = self.loop.later(STALL_S, lambda: self._drop_stalled(taken))

    def _drop_stalled(self, taken: dict[Client, int]) -> None:
        self._stall_timer = None
        for client, before in taken.items():
            if client.is_full and client.taken_bytes == before:
                client.close()
        self._mind_stalled()

    def input_came(self, client: Client, data: bytes) -> None:  # noqa: ARG002 (part of the protocol)
        """Pass a client's input on."""
        if self._input is not None:
            self._input.write(data)

    def input_ended(self, client: Client) -> None:  # noqa: ARG002 (part of the protocol)
        """Half-close: the end of input for the process, where its stdin is used once."""
        if self._input is not None and self._stdin_once and not self._terminal:
            self._input.finish()

    def input_flow_changed(self) -> None:
        """Stop reading the clients' input while the process is behind with it."""
        full = self._input is not None and self._input.is_full
        for client in self._clients:
            client.hold_input(full)

    def client_gone(self, client: Client) -> None:
        """Forget a client."""
        with contextlib.suppress(ValueError):
            self._clients.remove(client)
        self.flow_changed()
        if not self._clients and self._when_closed is not None:
            self._closed()
        if self._when_client_gone is not None:
            self._when_client_gone()

    def _open_stdin(self) -> int:
        if not self._stdin:
            reader = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        else:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self._input = _Input(self, writer)
        self._child_fds.append(reader)
        return reader

    def _close_child_fds(self) -> None:
        for fd in self._child_fds:
            os.close(fd)
        self._child_fds.clear()

    def _stop_reading(self) -> None:
        for output in self._outputs:
            output.drain()
            output.close()
        self._drained()

    def _drained(self) -> None:
        call = self._when_drained
        if call is None or any(output.is_open for output in self._outputs):
            return
        self._when_drained = None
        if self._timer is not None:
            self._timer.cancel()
        self._close_process_side()
        call()

    def _closed(self) -> None:
        call = self._when_closed
        self._when_closed = None
        if self._timer is not None:
            self._timer.cancel()
        if call is not None:
            call()

    def _close_process_side(self) -> None:
        for output in self._outputs:
            output.close()
        if self._input is not None:
            self._input.close()
        if self._terminal_fd >= 0:
            os.close(self._terminal_fd)
            self._terminal_fd = -1
