"""The caller's terminal: its size, raw mode that is always undone, and signals as bytes on a descriptor."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from engine.base.errors import NotSupported
from hostagent.cli.exits import ExitWith

if sys.platform != "win32":
    import termios

_SIGNALLED = 128
_PATIENCE = 3


def is_terminal(fd: int) -> bool:
    """Tell whether `fd` is a terminal; False for a closed one."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def size(fd: int) -> tuple[int, int] | None:
    """Return (height, width) of the terminal `fd`; None when it is none, or does not say."""
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        return None
    return (lines, columns) if lines and columns else None


if sys.platform == "win32":

    @contextlib.contextmanager
    def raw_mode(fd: int) -> Iterator[None]:
        """Refuse: there is no raw mode here yet."""
        del fd
        raise NotSupported("interactive terminals are not supported on Windows yet", hint="leave out -t")
        yield  # type: ignore[unreachable,unused-ignore]

    def resize_signal() -> int:
        """Return 0: there is no such signal."""
        return 0
else:

    @contextlib.contextmanager
    def raw_mode(fd: int) -> Iterator[None]:
        """Hand every key to the container while the body runs; restored whatever happens.

        A signal that would end the process ends the body instead, with 128 + its number, unless the
        caller has taken it; one that would stop the process finds the terminal restored.
        """
        before = termios.tcgetattr(fd)
        raw = _raw(before)

        def end(number: int, _frame: FrameType | None) -> None:
            raise ExitWith(_SIGNALLED + number)

        def stop(number: int, _frame: FrameType | None) -> None:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)  # returns when we are continued
            signal.signal(number, stop)
            termios.tcsetattr(fd, termios.TCSANOW, raw)
            os.kill(os.getpid(), signal.SIGWINCH)  # the size may have changed meanwhile

        with contextlib.ExitStack() as stack:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
                if signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, stop if number == signal.SIGTSTP else end)
                    stack.callback(signal.signal, number, signal.SIG_DFL)
            stack.callback(termios.tcsetattr, fd, termios.TCSADRAIN, before)
            termios.tcsetattr(fd, termios.TCSANOW, raw)
            yield

    def _raw(before: list[Any]) -> list[Any]:
        mode = [*before[:6], list(before[6])]
        # What cfmakeraw(3) does; docker keeps output processing on, for messages of its own.
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN] = 1
        mode[6][termios.VTIME] = 0
        return mode

    def resize_signal() -> int:
        """Return SIGWINCH."""
        return signal.SIGWINCH


# What is passed on to the container: all that end or inform a process and can be caught.
_PROXIED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM")


def proxied() -> tuple[int, ...]:
    """Return the numbers of the signals that --sig-proxy passes on."""
    found = (getattr(signal, name, None) for name in _PROXIED)
    return tuple(int(number) for number in found if number is not None)


class Signals:
    """While active, each of `numbers` becomes a byte to `read` instead of its usual effect.

    A loop waits on `fileno()` together with its other descriptors, so a signal
    never lands between two steps of it. The third that asks for the end is not
    kept but ends the command, so that an engine that hangs cannot hold it.
    """

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = tuple(number for number in numbers if number)
        self._reader: socket.socket
        self._writer: socket.socket
        self._before: list[tuple[int, object]] = []
        self._fd_before = -1
        self._terminations = 0

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal has come."""
        return self._reader.fileno()

    def read(self) -> list[int]:
        """Return the signals that have come, oldest first."""
        try:
            return [number for number in self._reader.recv(4096) if number in self._numbers]
        except BlockingIOError:
            return []

    def __enter__(self) -> "Signals":
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = [(number, signal.signal(number, self._heard)) for number in self._numbers]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us
        signal.set_wakeup_fd(self._fd_before)
        self._reader.close()
        self._writer.close()

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        """Let the wakeup descriptor do the work, unless patience has an end."""
        self._terminations += number in (signal.SIGINT, signal.SIGTERM)
        if self._terminations >= _PATIENCE:
            raise ExitWith(1, "got 3 SIGTERM/SIGINTs, exiting; the container may still run")
