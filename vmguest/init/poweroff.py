"""The way down: containers first, then every process, then the disk, then the power.

Everything has a deadline, so a container that does not want to end cannot
keep the machine; what is left is killed before the disk is unmounted.
"""

import os
import signal
import socket
import time
from typing import NoReturn

from engine.kernel.system import RB_POWER_OFF, reboot
from vmguest.init import disk, engine, mounts
from vmguest.init.console import say

_REQUEST = (
    b"POST /_pyengine/shutdown HTTP/1.1\r\nHost: pyengine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
_TERM_S = 3.0
_KILL_S = 5.0


def power_off(engine_pid: int, *, timeout_s: float) -> NoReturn:
    """Stop everything and end the machine; never returns."""
    say("powering off")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    if engine_pid:
        _end_engine(engine_pid, timeout_s)
    _signal(-1, signal.SIGTERM)
    _wait(-1, _TERM_S)
    left = _left()
    if left:
        say(f"killing what did not end: {', '.join(left)}")
    _signal(-1, signal.SIGKILL)
    _wait(-1, _KILL_S)
    os.sync()
    try:
        busy = mounts.unmount_below(disk.MOUNT_POINT)
        if busy:
            say(f"still busy while unmounting: {', '.join(busy)}")
    except OSError as err:
        say(f"cannot unmount {err.filename}: {err.strerror}")
    os.sync()
    say("off")
    reboot(RB_POWER_OFF)
    raise SystemExit  # not reached: the power is off


def _end_engine(pid: int, timeout_s: float) -> None:
    if _ask_engine(timeout_s) and _wait(pid, timeout_s):
        return
    _signal(pid, signal.SIGTERM)
    _wait(pid, _TERM_S)


def _ask_engine(timeout_s: float) -> bool:
    """Ask the engine to stop its containers and end; false when it cannot be asked."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as client:
            client.settimeout(timeout_s)
            client.connect(engine.SOCKET)
            client.sendall(_REQUEST)
            status = client.recv(64)
    except OSError as err:
        say(f"the engine does not answer: {err}")
        return False
    words = status.split(maxsplit=2)
    return len(words) > 1 and words[1].startswith(b"2")


def _wait(pid: int, timeout_s: float) -> bool:
    """Reap until `pid` (-1: every process) has ended; false when the time is over first."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if ended == pid:
            return True
        if ended == 0:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or signal.sigtimedwait({signal.SIGCHLD}, left_s) is None:
                return False


def _left() -> list[str]:
    """Return the names of the processes that still run; the kernel's own have no command line."""
    names = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read(200).split(b"\0")
        except OSError:
            continue
        if words[0] and pid != "1":
            names.append(f"{words[0].decode(errors='replace')} ({pid})")
    return names


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
