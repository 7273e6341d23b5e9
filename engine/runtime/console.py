"""Hand a terminal's master to whoever asked for it, or stand between it and our own terminal.

The wait of a foreground container is here too: its signals, its streams, its end.
"""

import array
import contextlib
import errno
import os
import select
import signal
import socket
import termios
import tty as modes
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.base.errors import Unavailable
from engine.base.unixsocket import short_address
from engine.kernel import tty
from engine.runtime.model import Created

_CHUNK_BYTES = 65536
_WAIT_ALL = 0x40000000  # __WALL
_STDIN, _STDOUT = 0, 1
_FORWARDED = tuple(
    signal.Signals(number)
    for number in (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGCONT,
        signal.SIGALRM,
    )
)


def send_master(path: Path, master_fd: int) -> None:
    """Send the master to the listening socket at `path`, as runc does.

    Raises:
        Unavailable: nobody listens there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            with short_address(Path(os.path.abspath(path))) as address:
                sock.connect(address)
            rights = array.array("i", [master_fd])
            sock.sendmsg([b"/dev/ptmx"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError as err:
            reason = (err.strerror or str(err)).lower()
            raise Unavailable(f"console socket {path}: {reason}") from err


@contextlib.contextmanager
def attention(send: Callable[[int], object], resized: Callable[[], object]) -> Iterator[int]:
    """Pass signals on to `send` and changes of size to `resized`; lend what to read when one came.

    The handlers run between two system calls of the caller, which polls the descriptor.
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, lambda got, _: send(got)) for number in _FORWARDED}
    before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda _got, _: resized())
    old_fd = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(old_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(ours)
        os.close(theirs)


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """Put the terminal `fd` into raw mode for a while; anything else is left alone."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    modes.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


class Relay:
    """Bytes between our own streams and the master of the container's terminal."""

    def __init__(self, master_fd: int) -> None:
        self._master_fd = master_fd
        self._pending = b""  # typed, and not yet taken by the terminal
        self._has_input = True
        self._is_open = True
        os.set_blocking(master_fd, False)

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        with contextlib.suppress(OSError):  # ours is none
            rows, columns = tty.winsize(_STDIN)
            tty.set_winsize(self._master_fd, rows=rows, columns=columns)

    def wanted(self) -> dict[int, int]:
        """Return what to poll for; typed bytes are read only when the last ones were taken."""
        wanted: dict[int, int] = {}
        if self._is_open:  # polled on, a terminal that nobody has open would answer without end
            wanted[self._master_fd] = select.POLLIN | (select.POLLOUT if self._pending else 0)
        if self._has_input and not self._pending:
            wanted[_STDIN] = select.POLLIN
        return wanted

    def serve(self, ready: dict[int, int]) -> None:
        """Move what can be moved."""
        if _STDIN in ready:
            self._pending = os.read(_STDIN, _CHUNK_BYTES)
            self._has_input = bool(self._pending)
        if self._pending:
            with contextlib.suppress(BlockingIOError):
                self._pending = self._pending[os.write(self._master_fd, self._pending) :]
        if ready.get(self._master_fd, 0) & ~select.POLLOUT:
            self.drain_once()

    def drain_once(self) -> bool:
        """Copy one piece of output; return whether there may be more."""
        try:
            data = os.read(self._master_fd, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError as err:
            if err.errno != errno.EIO:  # the last slave is closed
                raise
            self._is_open = False
            return False
        while data:
            data = data[os.write(_STDOUT, data) :]
        return True


def wait(created: Created, relay: Relay | None, woken_fd: int) -> int:
    """Return the exit status of a child: 128 and the signal's number when one ended it."""
    wanted: dict[int, int] = {}
    while True:
        wanted = {created.pidfd: select.POLLIN, woken_fd: select.POLLIN, **(relay.wanted() if relay else {})}
        poll = select.poll()
        for fd, events in wanted.items():
            poll.register(fd, events)
        ready = dict(poll.poll())
        if woken_fd in ready:
            os.read(woken_fd, _CHUNK_BYTES)
        if relay is not None:
            relay.serve(ready)
        if created.pidfd in ready:
            break
    while relay is not None and relay.drain_once():
        pass
    _, status = os.waitpid(created.pid, _WAIT_ALL)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
