"""The line between the runtime and the process that becomes a container's.

    runtime (create, enter)                   init
      clone3 ---------------------------------> new namespaces; its control group
                                                sealed: imports nothing now, and ends with its maker
      writes its id maps                        only in a new user namespace, where it is sealed after this:
      MAPPED ---------------------------------> it becomes root of the namespace
                                                host name, mounts, devices
      <------------------------------ MOUNTED   when hooks of the host are to run (prestart, createRuntime)
      HOOKED ---------------------------------> they have run; its own createContainer hooks
      <---------------------- TERMINAL + fd     when a terminal was asked for
                                                sysctls, masked paths, pivot_root; limits, user, cwd, program
      <---------------------------- WARNING     any number, until it is ready
      <------------------------------ READY     created: it lives on without its maker, and waits

    start (perhaps another process)
      START ----------------------------------> startContainer hooks; capabilities, seccomp
      <---------------------- LISTENER + fd     when calls are for an agent to answer: the filter is loaded
      TAKEN ----------------------------------> the agent has it; execve
      <------------------------- end of file    the program runs: execve closed the line
      <------------------------------ ERROR     at any moment instead: step, errno, text; init ends

Where another process starts it, init waits at start.sock of the container's state. What connects there is
the line from then on; the first one is closed.

In a user namespace that exists already the runtime cannot clone and come back. A process between the two
joins it, makes init as its sibling, so a child of the runtime, and ends; there is no MAPPED.

exec is the same line without MAPPED, MOUNTED and hooks: the child makes nothing, but joins the namespaces
of the container's process by setns. The PID namespace takes effect for children only, so the runtime
joins that around the clone.

Each message is one packet of a SOCK_SEQPACKET pair: a letter, then its body.
The errno and texts of ERROR are formatted by the runtime, outside the container.
"""

import array
import enum
import os
import socket
import struct
from collections.abc import Callable

import msgspec

from engine.runtime.errors import StartFailed

PACKET_BYTES = 4096
_ERRNO = struct.Struct("=i")


class Kind(bytes, enum.Enum):
    """First byte of a message."""

    MAPPED = b"U"
    MOUNTED = b"M"
    LISTENER = b"L"
    TAKEN = b"K"
    HOOKED = b"H"
    START = b"S"
    READY = b"R"
    WARNING = b"W"
    TERMINAL = b"T"
    ERROR = b"E"


def encode_error(step: str, errno: int, text: str) -> bytes:
    """Return the packet of an ERROR."""
    body = step.encode("utf-8", "surrogateescape") + b"\0" + text.encode("utf-8", "surrogateescape")
    return (Kind.ERROR.value + _ERRNO.pack(errno) + body)[:PACKET_BYTES]


def decode_error(packet: bytes) -> StartFailed:
    """Return the error that `encode_error` packed."""
    (number,) = _ERRNO.unpack_from(packet, 1)
    step, _, text = packet[1 + _ERRNO.size :].decode("utf-8", "replace").partition("\0")
    return StartFailed(step, number, text)


class Report(msgspec.Struct):
    """What init has said by the time it is ready."""

    warnings: list[str]
    terminal_fd: int | None = None


def wait_ready(line: socket.socket, report: Report, when_mounted: Callable[[], None] | None = None) -> None:
    """Read init's messages up to READY into `report`; at MOUNTED it waits for `when_mounted`.

    Raises:
        StartFailed: init failed or ended.
        TimeoutError: it said nothing for the socket's time-out.
    """
    while True:
        packet, fds = receive(line)
        if fds:
            report.terminal_fd = fds[0]
        if not packet:
            raise StartFailed("init", 0, "ended unexpectedly")
        if packet[:1] == Kind.READY:
            return
        if packet[:1] == Kind.ERROR:
            raise decode_error(packet)
        if packet[:1] == Kind.MOUNTED and when_mounted is not None:
            when_mounted()
            line.send(Kind.HOOKED.value)
        if packet[:1] == Kind.WARNING:
            report.warnings.append(packet[1:].decode("utf-8", "replace"))


def receive(line: socket.socket) -> tuple[bytes, list[int]]:
    """Return one packet and the descriptors (close-on-exec) that came with it."""
    size = array.array("i").itemsize
    how = (PACKET_BYTES, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC)
    try:
        packet, ancillary, _, _ = line.recvmsg(*how)
    except ConnectionResetError:
        # Init ended with something unread. That is told once, and first: what init said is behind it.
        packet, ancillary, _, _ = line.recvmsg(*how)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % size])
    return packet, list(fds)


class InitLine:
    """Init's end of the line. Every call is a system call or two; nothing is imported."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def move(self, fd: int) -> None:
        """Go on at the descriptor `fd`, a copy of this one, which is the caller's to close."""
        self._socket.detach()
        self._socket = socket.socket(fileno=fd)

    def warning(self, text: str) -> None:
        """Tell of something that could not be done and is not essential."""
        self._socket.send((Kind.WARNING.value + text.encode("utf-8", "surrogateescape"))[:PACKET_BYTES])

    def terminal(self, master_fd: int) -> None:
        """Hand over the master of the terminal."""
        rights = array.array("i", [master_fd])
        self._socket.sendmsg([Kind.TERMINAL.value], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def listener(self, listener_fd: int) -> None:
        """Hand over the listener of the filter that this process has just got; return once an agent has it.

        The filter is at work already: `sendmsg` is the one call that must not wait for an answer.
        """
        rights = array.array("i", [listener_fd])
        self._socket.sendmsg([Kind.LISTENER.value], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        self._expect(Kind.TAKEN)

    def error(self, step: str, errno: int, text: str) -> None:
        """Tell why this process is about to end."""
        self._socket.send(encode_error(step, errno, text))

    def await_mapped(self) -> None:
        """Wait until the runtime has mapped the ids of this process' new user namespace."""
        self._expect(Kind.MAPPED)

    def await_hooks(self) -> None:
        """Tell that the mounts are made, and wait until the hooks of the host have run."""
        self._socket.send(Kind.MOUNTED.value)
        self._expect(Kind.HOOKED)

    def await_start(self, listener_fd: int | None = None) -> None:
        """Tell that all is ready and wait for `start`, which may come from another process.

        With `listener_fd` that process connects to it, and the line goes on there.
        """
        self._socket.send(Kind.READY.value)
        if listener_fd is not None:
            listener = socket.socket(fileno=listener_fd)
            self._socket.close()
            self._socket, _ = listener.accept()
            listener.close()
        self._expect(Kind.START)

    def _expect(self, kind: Kind) -> None:
        if self._socket.recv(1) != kind:
            os._exit(1)  # the runtime is gone, or has given up: nobody is left to tell
