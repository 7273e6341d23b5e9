"""The nursery: one warm, single-threaded process that forks a shim for each container.

Everything a shim and the runtime need is imported here, once; the garbage
collector's view of it is frozen, so that the children share its pages. A fork
costs about a millisecond, where starting an interpreter costs fifty.

It ends when the daemon's connection does. Its children do not.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from engine.base.errors import EngineError
from engine.kernel.prctl import set_child_subreaper
from engine.runtime.create import prepare
from engine.shim.answers import Timeline, failed
from engine.shim.foreign import foreign
from engine.shim.jsonrecords import JsonRecords
from engine.shim.localrecords import LocalRecords
from engine.shim.loop import Loop
from engine.shim.peer import close_all, receive
from engine.shim.protocol import (
    AnyRequest,
    Attach,
    Delete,
    Done,
    Exec,
    Exit,
    Exited,
    Failed,
    Hello,
    Kill,
    Reader,
    SpanRecord,
    Spawn,
    SpawnRequest,
    Start,
    Streams,
    encode,
    request_decoder,
)
from engine.shim.server import Prepared, Server, decode_spec, read_spec
from engine.shim.verbs import Runtime
from engine.spec.runtime import OCI_VERSION, Process

_FDS_END = 1 << 20
_WARM_ROUNDS = 20  # enough for the interpreter to have settled on its specialised instructions
_SPEC = (
    b'{"ociVersion":"%s","process":{"cwd":"/","args":["true"],"user":{"uid":0,"gid":0}},"root":{"path":"r"},'
    b'"mounts":[{"destination":"/proc","type":"proc"}],'
    b'"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}],'
    b'"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}}}'
) % OCI_VERSION.encode()


def main(daemon_fd: int) -> None:
    """Serve spawn requests of the daemon at the other end of the socket `daemon_fd`."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for a shim: its socket tells
    set_child_subreaper(True)  # of containers whose shim was killed
    os.chdir("/")
    _name_process("pyengine-nurse")
    daemon = socket.socket(fileno=daemon_fd)
    reader = Reader(request_decoder)
    _warm_up()
    gc.collect()
    gc.freeze()
    while True:
        data, fds = receive(daemon)
        if not data:
            return
        for message, message_fds in reader.feed(data, fds):
            if isinstance(message, Spawn) and len(message_fds) == 1:
                # Kept until the next: what is freed after a fork is written, and then the shim's alone.
                _kept = None
                _kept = _spawn(message, message_fds[0])
            close_all(message_fds)


def _warm_up() -> None:
    """Run once what every shim runs: whatever Python prepares at first use is shared by all then."""
    streams = Streams(stdin=True)
    process = Process(cwd="/", args=("true",), env=("PATH=/bin",))
    requests: list[AnyRequest] = [
        Start(id=1),
        Kill(id=1, signal=signal.SIGTERM),
        Attach(id=1, streams=streams),
        Exec(id=1, exec_id="warm", process=process, streams=streams),
        Delete(id=1),
    ]
    for _ in range(_WARM_ROUNDS):
        with contextlib.suppress(EngineError, OSError):  # of a machine without control groups: the shim tells
            prepare(decode_spec(_SPEC), Path("/"), "warm")
        for request in requests:
            list(Reader(request_decoder).feed(encode(request)))
        ended = Exit(code=0, finished_at_ns=time.time_ns())
        encode(Hello(container_id="warm", shim_pid=1, pid=1, status="created"))
        encode(Exited(exit=ended))
        encode(Done(id=1))
        for form in (JsonRecords({}), LocalRecords({})):
            form.encode("stdout", b"line\n", time.time_ns())
        loop = Loop()
        loop.later(0, loop.stop)
        loop.run()
        loop.close()


def _spawn(message: Spawn, connection_fd: int) -> Prepared | None:
    """Fork a shim; return what it shares with this process."""
    received_ns = time.monotonic_ns()
    timeline = Timeline(message.request.trace)
    if message.request.trace:
        timeline.spans.append(SpanRecord("nursery", "queue", message.sent_ns, received_ns - message.sent_ns))
    prepared = _prepare(message.request)
    planned_ns = timeline.add("nursery", "plan", received_ns)
    try:
        pid = os.fork()  # noqa: TID251 (this is what the nursery is for)
    except OSError as err:
        text = f"cannot fork a shim: {os.strerror(err.errno or 0).lower()}"
        with socket.socket(fileno=os.dup(connection_fd)) as connection:
            connection.sendall(encode(Failed(id=0, kind="Unavailable", message=text)))
        return None
    if pid == 0:
        _become_shim(message, prepared, connection_fd, timeline, planned_ns)
    return prepared


def _prepare(request: SpawnRequest) -> Prepared | None:
    """Decide here what the shim is to make; None: something is wrong, which is the shim's to meet and report.

    What runs in the nursery leaves the shim's memory alone, and what it remembers, such as the seccomp
    filter that nearly all containers share, the next container finds.
    """
    bundle = Path(request.bundle)
    try:
        spec = read_spec(bundle)
        if request.runtime:
            return Prepared(spec, None)
        return Prepared(
            spec, prepare(spec, bundle, request.container_id, rootfs_mounts=request.rootfs_mounts)
        )
    except Exception:  # noqa: BLE001 (whatever it is, containers to come must not suffer)
        return None


def _become_shim(
    message: Spawn, prepared: Prepared | None, connection_fd: int, timeline: Timeline, planned_ns: int
) -> NoReturn:
    """Run the shim to its end in the forked child, and never return into the nursery."""
    code = 1
    try:
        os.setsid()
        os.closerange(3, connection_fd)
        os.closerange(connection_fd + 1, _FDS_END)  # of the nursery, and of requests behind this one
        gc.enable()
        set_child_subreaper(True)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends when its container has
        timeline.add("nursery", "fork", planned_ns)
        code = serve(message, prepared, socket.socket(fileno=connection_fd), timeline)
    except BaseException as err:  # noqa: BLE001 (a child of fork must not unwind into the parent's code)
        note(f"shim failed: {err!r}")
    finally:
        os._exit(code)


def serve(message: Spawn, prepared: Prepared | None, daemon: socket.socket, timeline: Timeline) -> int:
    """Be the shim of one container; return the exit status of this process."""
    request = message.request
    _name_process("pyengine-shim")
    runtime = Runtime()
    if request.runtime:
        runtime = foreign(
            (request.runtime, *request.runtime_args), request.container_id, Path(request.bundle)
        )
    server = Server(request, runtime=runtime, note=note)
    try:
        _log_to(Path(request.bundle) / "shim.log")
        server.create(timeline, prepared)
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
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, name.encode())
    os.close(fd)


if __name__ == "__main__":
    main(int(sys.argv[1]))
