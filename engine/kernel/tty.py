"""Pseudo-terminals.

Source: Linux man-pages 6.9, ioctl_tty(2), pts(4).
"""

import fcntl
import os
import struct
import termios

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441
_TIOCSCTTY = 0x540E


def unlock_pt(master_fd: int) -> None:
    """Let the slave be opened."""
    fcntl.ioctl(master_fd, _TIOCSPTLCK, struct.pack("i", 0))


def open_peer(master_fd: int) -> int:
    """Return the slave without looking up any path, so that nobody can put another file there."""
    return fcntl.ioctl(master_fd, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def make_controlling(slave_fd: int) -> None:
    """Make this terminal the controlling one of the calling session leader."""
    fcntl.ioctl(slave_fd, _TIOCSCTTY, 0)


def set_winsize(fd: int, *, rows: int, columns: int) -> None:
    """Set the size in characters; the foreground process group gets SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def winsize(fd: int) -> tuple[int, int]:
    """Return (rows, columns)."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    return rows, columns
