"""The event loop of PID 1: descriptors, timers, and children that ended.

asyncio would do, but importing it takes 0.6 s of every boot where the
processor is emulated; this is what PID 1 needs of it.
"""

import heapq
import os
import select
import signal
import time
from collections.abc import Callable

READ = select.EPOLLIN
READ_EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPWR)


class Loop:
    """One a process; `run` returns after `stop`."""

    def __init__(self, *, on_signal: Callable[[int], None]) -> None:
        """Take over SIGCHLD and the signals that ask for power off; `on_signal` gets the latter."""
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_count = 0
        self._exits: dict[int, Callable[[int], None]] = {}
        self._on_signal = on_signal
        self._running = True
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.add(wake_read, READ, lambda _: self._woken(wake_read))

    def add(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback` with the ready events of `fd`, until `remove`."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def remove(self, fd: int) -> None:
        """Forget `fd`; to be called before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, `delay_s` seconds from now."""
        self._timer_count += 1
        heapq.heappush(self._timers, (time.monotonic() + delay_s, self._timer_count, callback))

    def on_exit(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call `callback` with the wait status when the child `pid` has ended."""
        self._exits[pid] = callback

    def stop(self) -> None:
        """Make `run` return after the callback that is running."""
        self._running = False

    def run(self) -> None:
        """Serve until `stop`."""
        self._reap()  # what ended before the signal was ours
        while self._running:
            self.step()

    def step(self) -> None:
        """Wait once, then call what is due."""
        now = time.monotonic()
        timeout_s = max(0.0, self._timers[0][0] - now) if self._timers else -1
        for fd, events in self._epoll.poll(timeout_s):
            callback = self._callbacks.get(fd)
            if callback is not None:  # an earlier callback of this round may have removed it
                callback(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _woken(self, wake_read: int) -> None:
        numbers = os.read(wake_read, 4096)
        if signal.SIGCHLD in numbers:
            self._reap()
        for number in numbers:
            if number != signal.SIGCHLD:
                self._on_signal(number)

    def _reap(self) -> None:
        """Collect every child that ended: ours, and the orphans that PID 1 inherits."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            callback = self._exits.pop(pid, None)
            if callback is not None:
                callback(status)
