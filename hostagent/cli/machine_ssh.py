"""pyengine machine ssh: a command or a shell in the machine, over the pinned SSH channel."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence

import paramiko

from engine.base.errors import Unavailable
from hostagent.channel import keys
from hostagent.channel.ssh import SshChannel, SshTarget
from hostagent.cli import tty
from hostagent.cli.session import write_all
from hostagent.paths import MachinePaths

_CHUNK_BYTES = 32 * 1024
_LOST = 255


def run(paths: MachinePaths, port: int, argv: Sequence[str], *, timeout_s: float) -> int:
    """Run `argv` (none: a login shell) in the machine and return its exit code.

    A terminal is made there when there is one here and no command, or when
    both ends of ours are terminals.
    """
    target = SshTarget("127.0.0.1", port, keys.ensure_key(paths.host_key), paths.client_key)
    channel = SshChannel(target)
    try:
        channel.open(timeout_s=timeout_s)
        session = channel.session(timeout_s=timeout_s)
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        if terminal:
            height, width = tty.size(0) or (24, 80)
            session.get_pty(os.environ.get("TERM", "xterm"), width, height)
        if argv:
            # One word is a command line for the shell there, several are a program and its arguments.
            session.exec_command(argv[0] if len(argv) == 1 else shlex.join(argv))
        else:
            session.invoke_shell() if terminal else session.exec_command("exec /bin/sh")
        with tty.raw_mode(0) if terminal else contextlib.nullcontext():
            return _converse(session, terminal=terminal)
    except (paramiko.SSHException, EOFError, OSError) as err:
        raise Unavailable(f"machine {paths.name}: the connection broke: {err}") from err
    finally:
        channel.close()


def _converse(session: paramiko.Channel, *, terminal: bool) -> int:
    """Carry stdin, stdout and stderr until the command ends; return its exit code."""
    threading.Thread(target=_send_stdin, args=(session,), name="stdin", daemon=True).start()
    errors = threading.Thread(target=_copy, args=(session.recv_stderr, 2), name="stderr", daemon=True)
    errors.start()
    if terminal and tty.resize_signal():
        signal.signal(tty.resize_signal(), lambda *_: _resize(session))
    _copy(session.recv, 1)
    errors.join()
    code = session.recv_exit_status()
    return _LOST if code < 0 else code


def _send_stdin(session: paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError, ValueError):
        while data := os.read(0, _CHUNK_BYTES):
            session.sendall(data)
        session.shutdown_write()


def _copy(receive: Callable[[int], bytes], fd: int) -> None:
    while data := receive(_CHUNK_BYTES):
        write_all(fd, data)


def _resize(session: paramiko.Channel) -> None:
    size = tty.size(0)
    if size is not None:
        with contextlib.suppress(paramiko.SSHException, OSError):
            session.resize_pty(width=size[1], height=size[0])
