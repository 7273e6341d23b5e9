"""The caller's terminal: its size, raw mode that is always undone, and signals as bytes on a descriptor."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType

from engine.base.errors import NotSupported

if sys.platform != "win32":
    import termios


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
        """Hand every key to the container while the body runs; restored whatever happens."""
        before = termios.tcgetattr(fd)
        mode = termios.tcgetattr(fd)
        # What cfmakeraw(3) does; docker keeps output processing on, for messages of its own.
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN] = 1
        mode[6][termios.VTIME] = 0
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        try:
            yield
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)

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
    never lands between two steps of it.
    """

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = tuple(number for number in numbers if number)
        self._reader, self._writer = socket.socketpair()
        self._before: list[tuple[int, object]] = []
        self._fd_before = -1

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal has come."""
        return self._reader.fileno()

    def read(self) -> list[int]:
        """Return the signals that have come, oldest first."""
        try:
            return list(self._reader.recv(4096))
        except BlockingIOError:
            return []

    def __enter__(self) -> "Signals":
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = [(number, signal.signal(number, _nothing)) for number in self._numbers]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us
        signal.set_wakeup_fd(self._fd_before)
        self._reader.close()
        self._writer.close()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Let the wakeup descriptor do the work."""
