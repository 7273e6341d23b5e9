"""A small event loop over epoll(7): one thread, descriptors, timers, child exits.

Callbacks run to their end and never block. A descriptor is unwatched before
it is closed; an event that was already fetched for it is then dropped, and
one that reaches a new descriptor of the same number is harmless, as every
callback takes "nothing there" for an answer.
"""

import heapq
import itertools
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType

Callback = Callable[[int], None]

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANG_UP = select.EPOLLHUP | select.EPOLLERR  # always reported
NOTHING = 0


class Timer:
    """A call that is due at a time, unless cancelled."""

    def __init__(self, due_ns: int, call: Callable[[], None]) -> None:
        self.due_ns = due_ns
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Make it never happen; harmless afterwards."""
        self.call = None


class Loop:
    """Watches descriptors until `stop`."""

    def __init__(self, on_error: Callable[[Exception], None] | None = None) -> None:
        """Make a loop; `on_error` gets what a callback raises, and its descriptor is watched no more.

        So a fault around one client does not end the shim, and with it the
        container. Without it errors leave `run`.
        """
        self._on_error = on_error
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._order = itertools.count()
        self._running = True

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call `callback(events)` whenever `fd` is ready for `events`, or hung up."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of a watched `fd`; 0 for none but hang-ups."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget `fd`; harmless when it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call `call()` once, `delay_s` from now."""
        timer = Timer(time.monotonic_ns() + int(delay_s * 1e9), call)
        heapq.heappush(self._timers, (timer.due_ns, next(self._order), timer))
        return timer

    def watch_children(self, call: Callable[[], None]) -> None:
        """Call `call()` after children have changed state; it reaps."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

        def woken(_events: int) -> None:
            while _read_some(reader):
                pass
            try:
                call()
            except Exception as err:
                if self._on_error is None:
                    raise
                self._on_error(err)  # and go on: who never reaps never ends

        signal.signal(signal.SIGCHLD, _noted)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.watch(reader, READ, woken)

    def run(self) -> None:
        """Serve until `stop`."""
        while self._running:
            for fd, events in self._epoll.poll(self._timeout_s()):
                self._call(fd, events)
            self._fire_due()

    def stop(self) -> None:
        """Make `run` return after the callback that runs now."""
        self._running = False

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    def _call(self, fd: int, events: int) -> None:
        callback = self._callbacks.get(fd)
        if callback is None:
            return
        try:
            callback(events)
        except Exception as err:
            if self._on_error is None:
                raise
            self.unwatch(fd)
            self._on_error(err)

    def _timeout_s(self) -> float:
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        return max(0.0, (self._timers[0][0] - time.monotonic_ns()) / 1e9)

    def _fire_due(self) -> None:
        now_ns = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now_ns:
            call = heapq.heappop(self._timers)[2].call
            if call is None:
                continue
            try:
                call()
            except Exception as err:
                if self._on_error is None:
                    raise
                self._on_error(err)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """SIGCHLD needs a handler for the wake-up descriptor to be written."""


def _read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 512)
    except BlockingIOError:
        return b""
