"""The nursery: one warm, single-threaded process that forks a shim for each container.

Everything a shim and the runtime need is imported here, once; the garbage
collector's view of it is frozen, so that the children share its pages. A fork
costs about a millisecond, where starting an interpreter costs fifty.

It ends when the daemon's connection does. Its children do not.
"""

import gc
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from engine.kernel.prctl import set_child_subreaper
from engine.shim.answers import Timeline, failed
from engine.shim.peer import close_all, receive
from engine.shim.protocol import Failed, Reader, SpanRecord, Spawn, encode, request_decoder
from engine.shim.server import Server
from engine.shim.verbs import Runtime

_FDS_END = 1 << 20


def main(daemon_fd: int) -> None:
    """Serve spawn requests of the daemon at the other end of the socket `daemon_fd`."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for a shim: its socket tells
    os.chdir("/")
    _name_process("pyengine-nurse")
    daemon = socket.socket(fileno=daemon_fd)
    reader = Reader(request_decoder)
    gc.collect()
    gc.freeze()
    while True:
        data, fds = receive(daemon)
        if not data:
            return
        for message, message_fds in reader.feed(data, fds):
            if isinstance(message, Spawn) and len(message_fds) == 1:
                _spawn(message, message_fds[0])
            close_all(message_fds)


def _spawn(message: Spawn, connection_fd: int) -> None:
    received_ns = time.monotonic_ns()
    try:
        pid = os.fork()  # noqa: TID251 (this is what the nursery is for)
    except OSError as err:
        text = f"cannot fork a shim: {os.strerror(err.errno or 0).lower()}"
        with socket.socket(fileno=os.dup(connection_fd)) as connection:
            connection.sendall(encode(Failed(id=0, kind="Unavailable", message=text)))
        return
    if pid == 0:
        _become_shim(message, connection_fd, received_ns)


def _become_shim(message: Spawn, connection_fd: int, received_ns: int) -> NoReturn:
    """Run the shim to its end in the forked child, and never return into the nursery."""
    code = 1
    try:
        os.setsid()
        os.closerange(3, connection_fd)
        os.closerange(connection_fd + 1, _FDS_END)  # of the nursery, and of requests behind this one
        gc.enable()
        set_child_subreaper(True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends when its container has
        timeline = Timeline(message.request.trace)
        if message.request.trace:
            timeline.spans.append(
                SpanRecord("nursery", "queue", message.sent_ns, received_ns - message.sent_ns)
            )
        timeline.add("nursery", "fork", received_ns)
        code = serve(message, socket.socket(fileno=connection_fd), timeline)
    except BaseException as err:  # noqa: BLE001 (a child of fork must not unwind into the parent's code)
        note(f"shim failed: {err!r}")
    finally:
        os._exit(code)


def serve(message: Spawn, daemon: socket.socket, timeline: Timeline) -> int:
    """Be the shim of one container; return the exit status of this process."""
    request = message.request
    _name_process("pyengine-shim")
    server = Server(request, runtime=Runtime(), note=note)
    try:
        _log_to(Path(request.bundle) / "shim.log")
        server.create(timeline)
    except Exception as err:  # noqa: BLE001 (the daemon gets it, whatever it is)
        daemon.sendall(encode(failed(0, err)))
        return 1
    server.run(daemon, timeline)
    return 0


def note(text: str) -> None:
    """Write one line to the shim's log, which is its standard error."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    os.write(2, f"{stamp} {text}\n".encode(errors="replace"))


def _log_to(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _name_process(name: str) -> None:
    """Set what ps shows; at most 15 characters."""
    Path("/proc/self/comm").write_text(name)


if __name__ == "__main__":
    main(int(sys.argv[1]))
