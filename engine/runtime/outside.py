"""What whoever calls `pyengine-oci` has of a process: its terminal, its pid, and, where it waits, its end."""

import contextlib
import os
import signal
import stat
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from engine.base.errors import InvalidArgument
from engine.kernel import process as kernel
from engine.runtime import console
from engine.runtime.model import Created, Stdio
from engine.spec.runtime import Process

STDIO = Stdio(0, 1, 2)
_WAIT_ALL = 0x40000000  # __WALL


def check_console(process: Process | None, socket_path: Path | None, *, detached: bool) -> None:
    """Refuse a terminal that nobody would have, and a socket for one that there is not.

    Raises:
        InvalidArgument: the flags and the process do not go together.
    """
    terminal = process is not None and process.terminal
    if terminal and detached and socket_path is None:
        raise InvalidArgument("a terminal and nobody at it: give --console-socket")
    if socket_path is not None and not terminal:
        raise InvalidArgument("--console-socket without process.terminal")
    if socket_path is not None and not detached:
        raise InvalidArgument("--console-socket needs --detach")


def tell(created: Created, flags: Namespace) -> None:
    """Hand the terminal and the pid to whoever asked for them.

    Raises:
        InvalidArgument, Unavailable, OSError: they cannot be told.
    """
    if flags.console_socket is not None and created.terminal_fd is not None:
        console.send_master(flags.console_socket, created.terminal_fd)
        os.close(created.terminal_fd)
    if flags.pid_file is not None:
        _write_pid(flags.pid_file, created.pid)


def _write_pid(path: Path, pid: int) -> None:
    """Put `pid` into the file `path`, whole or not at all; what is there and no file stays as it is."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidArgument(f"--pid-file: not a file: {path}")
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(str(pid), encoding="ascii")
    fresh.replace(path)


def foreground(created: Created, start_it: Callable[[], None]) -> int:
    """Start the process and wait for it, with our streams and signals; closes what `created` owns."""

    def send(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            kernel.pidfd_send_signal(created.pidfd, number)

    relay = None if created.terminal_fd is None else console.Relay(created.terminal_fd)
    with contextlib.ExitStack() as stack:
        woken_fd = stack.enter_context(console.attention(send, relay.resize if relay else lambda: None))
        if relay is not None:
            stack.enter_context(console.raw(0))
            relay.resize()
        start_it()
        code = console.wait(created, relay, woken_fd)
    os.close(created.pidfd)
    if created.terminal_fd is not None:
        os.close(created.terminal_fd)
    return code


def end_child(created: Created) -> None:
    """Kill and reap a process that is not to be; its descriptors end with this one."""
    with contextlib.suppress(ChildProcessError):  # reaped already: the number may be another's
        if os.waitpid(created.pid, os.WNOHANG | _WAIT_ALL)[0] == 0:
            os.kill(created.pid, signal.SIGKILL)
            os.waitpid(created.pid, _WAIT_ALL)
