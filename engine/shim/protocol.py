"""What the daemon, the nursery and a shim say to each other; no I/O here.

One message is a frame over a unix stream socket::

    0..3                      4                5..
    length of the JSON,       number of        one JSON object; "op" names
    unsigned, big-endian      descriptors      its kind

The descriptors travel beside the first bytes of the frame (SCM_RIGHTS) and
belong to whoever received the message.

A life, drawn (D daemon, N nursery, S shim)::

    D -> N  spawn + one end of a socketpair      N forks S, which keeps that end
    S -> D  hello (status created, spans)        or failed, and nothing is left
    D -> S  attach + client's socket             done: no later byte is lost
    D -> S  start                                done, or failed and the shim is gone
    S -> D  exited                               log flushed, exit.json durable, clients closed
    D -> S  delete                               done; the shim ends

Whoever connects to the shim's own socket later is greeted by the same hello,
which says all that a new daemon has to know.
"""

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from engine.base.errors import InvalidArgument
from engine.spec.runtime import Mount, Process

_HEADER = struct.Struct(">IB")
MESSAGE_MAX_BYTES = 8 << 20  # an execve(2) may carry 2 MiB and more of arguments and environment
FDS_MAX = 4


class SpawnRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything a shim has to know of its container, beyond the bundle's config.json."""

    container_id: str
    bundle: str  # absolute; holds config.json, and is removed with the shim
    exit_path: str  # where exit.json goes; an old one is removed first
    durable: bool = True  # exit.json and log survive a power cut; needless where `--rm` removes them
    rootfs_mounts: tuple[Mount, ...] = ()  # made in the container's own mount namespace
    open_stdin: bool = False  # without it stdin is /dev/null (a terminal's is always open)
    stdin_once: bool = False  # the first attached client's end of input is the process's
    tty_size: tuple[int, int] | None = None  # width, height; for process.terminal
    log_driver: str = "json-file"  # "json-file", "local" or "none"
    log_path: str = ""
    log_max_bytes: int = 0  # 0: never rotated
    log_max_files: int = 1
    log_compress: bool = False  # rotated files
    log_attrs: dict[str, str] = {}  # in each record
    runtime: str = ""  # the program of another OCI runtime, an absolute path; "": built in
    runtime_args: tuple[str, ...] = ()  # of that program, before the verb
    trace: bool = False  # spans of nursery, shim and runtime come back in hello


class Streams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a client's socket, sent beside the message, is joined to a process."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    framed: bool = True  # 8-byte frame headers; False for a terminal
    prefix: bytes = b""  # input that was read from the socket before it was passed
    greeting: bytes = b""  # written to the client first, once nothing can be lost any more
    detach_keys: bytes = b""  # for a terminal; b"": none


class Exit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a process ended; as JSON also the content of exit.json."""

    code: int  # as docker has it: 128 + n after signal n
    signal: int = 0
    oom_killed: bool = False
    finished_at_ns: int = 0  # wall clock
    error: str = ""  # why it never ran, or why the code is not known


class SpanRecord(msgspec.Struct, frozen=True, array_like=True):
    """One timed step: layer, name, CLOCK_MONOTONIC start, duration."""

    layer: str
    name: str
    started_ns: int
    duration_ns: int


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """What the daemon asks; `id` comes back in the answer."""

    id: int = 0


class Spawn(Request, frozen=True, tag="spawn"):
    """To the nursery, with one end of a socketpair: fork a shim."""

    request: SpawnRequest
    sent_ns: int = 0


class Start(Request, frozen=True, tag="start"):
    """Let the created container run its program."""


class Kill(Request, frozen=True, kw_only=True, tag="kill"):
    """Send a signal to init, to every process of the container, or to one exec process."""

    signal: int
    everyone: bool = False
    exec_id: str = ""


class Attach(Request, frozen=True, kw_only=True, tag="attach"):
    """Join the client's socket (one descriptor) to the container's or an exec's streams."""

    streams: Streams
    exec_id: str = ""


class Exec(Request, frozen=True, kw_only=True, tag="exec"):
    """Run one more process in the container; the client's socket, if any, is one descriptor."""

    exec_id: str
    process: Process
    streams: Streams | None = None
    tty_size: tuple[int, int] | None = None


class Resize(Request, frozen=True, kw_only=True, tag="resize"):
    """Set the size of a terminal."""

    width: int
    height: int
    exec_id: str = ""


class Pause(Request, frozen=True, tag="pause"):
    """Freeze every process of the container."""


class Resume(Request, frozen=True, tag="resume"):
    """Thaw them."""


class Delete(Request, frozen=True, tag="delete"):
    """Kill what still runs, remove the cgroup and end."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag="hello"):
    """A shim's first message on every connection."""

    container_id: str
    shim_pid: int
    pid: int  # of init, in the shim's PID namespace
    status: str  # "created", "running", "paused", "exited"
    exit: Exit | None = None
    execs: dict[str, Exit | None] = {}
    spans: tuple[SpanRecord, ...] = ()


class Done(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag="done"):
    """The request `id` succeeded."""

    id: int
    pid: int = 0  # of an exec process
    spans: tuple[SpanRecord, ...] = ()


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag="failed"):
    """The request `id` did not; nothing of it is left."""

    id: int
    kind: str  # name of a class of engine.base.errors, or "StartFailed"
    message: str
    hint: str = ""
    exit_code: int = 0  # of StartFailed
    step: str = ""
    errno: int = 0


class Exited(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op", tag="exited"):
    """Init (no `exec_id`) or an exec process has ended; all its output is where it belongs."""

    exit: Exit
    exec_id: str = ""


AnyRequest = Spawn | Start | Kill | Attach | Exec | Resize | Pause | Resume | Delete
AnyAnswer = Hello | Done | Failed | Exited
M = TypeVar("M")

_encoder = msgspec.json.Encoder()
request_decoder: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
answer_decoder: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)


def encode(message: AnyRequest | AnyAnswer, fd_count: int = 0) -> bytes:
    """Return the frame of `message`, to be sent together with `fd_count` descriptors.

    Raises:
        InvalidArgument: it is larger than the other side would take.
    """
    body = _encoder.encode(message)
    if len(body) > MESSAGE_MAX_BYTES:
        raise InvalidArgument(f"message to the shim too long: {len(body)} bytes, {MESSAGE_MAX_BYTES} allowed")
    return _HEADER.pack(len(body), fd_count) + body


class Reader(Generic[M]):
    """Turn bytes, cut anywhere, and the descriptors beside them back into messages."""

    def __init__(self, decoder: msgspec.json.Decoder[M]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()
        self._fds: deque[int] = deque()

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> Iterator[tuple[M, list[int]]]:
        """Yield each message that `data` completes, with its descriptors, now the caller's.

        Raises:
            InvalidArgument: the bytes are not this protocol; the connection
                is of no further use.
        """
        self._buffer += data
        self._fds.extend(fds)
        while len(self._buffer) >= _HEADER.size:
            length, fd_count = _HEADER.unpack_from(self._buffer)
            if length > MESSAGE_MAX_BYTES or fd_count > FDS_MAX:
                raise InvalidArgument(f"invalid shim message: {length} bytes, {fd_count} descriptors")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield self._decode(body), self._take(fd_count)

    def drain_fds(self) -> list[int]:
        """Return the descriptors that no message has claimed, for closing."""
        left = list(self._fds)
        self._fds.clear()
        return left

    def _take(self, count: int) -> list[int]:
        if len(self._fds) < count:
            raise InvalidArgument(
                f"invalid shim message: {count} descriptors announced, {len(self._fds)} came"
            )
        return [self._fds.popleft() for _ in range(count)]

    def _decode(self, body: bytes) -> M:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, RecursionError) as err:
            raise InvalidArgument(f"invalid shim message: {err}") from err
