"""Compress a rotated log file in a child process, while the container's output goes on.

The child turns the bytes of one open file into gzip in another, and has no
part in names: when it has said that all is written, the shim gives the new
file its name and takes the old one away. So a child that is killed, or that
outlives a killed shim by a moment, changes nothing that anybody reads.

The gzip header's extra field is JSON. `lastTime` is docker's: by it a reader
that wants later records leaves the file closed. `source` names the file that
was compressed, for followers that still have it open.

Source: RFC 1952; moby, daemon/logger/loggerutils/logfile.go, rotateFileMetadata.
"""

import contextlib
import os
import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.kernel.prctl import set_pdeathsig
from engine.shim.jsonrecords import Clock
from engine.shim.loop import READ, Loop

SUFFIX = ".gz"
_HEADER = struct.Struct("<4sIBBH")  # magic with method and flags; time; extra flags; system; size of extra
_MAGIC_EXTRA = b"\x1f\x8b\x08\x04"
_UNIX = 3
_TRAILER = struct.Struct("<II")  # CRC-32; size modulo 2**32
_BLOCK_BYTES = 256 * 1024
_FDS_END = 1 << 20
_NICE = 10
_DONE = b"1"


class Extra(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the header says of the file that was compressed."""

    last_time: str = msgspec.field(default="", name="lastTime")
    source: tuple[int, int] | None = None  # device and inode


class Compressor:
    """Compresses one file at a time."""

    def __init__(self, loop: Loop, *, warn: Callable[[str], None]) -> None:
        """Compress nothing yet.

        Args:
            loop: that watches for the child's end.
            warn: gets a line when a file could not be compressed; it stays as it is then.
        """
        self.when_free: Callable[[], None] | None = None
        self._loop = loop
        self._warn = warn
        self._done_fd = -1
        self._source_fd = -1
        self._pid = 0
        self._path = self._fresh = Path()

    @property
    def is_busy(self) -> bool:
        """Whether a child is at work."""
        return self._done_fd >= 0

    def start(self, path: Path, last_ns: int) -> None:
        """Let a child compress `path`, whose last record is of `last_ns`; waits for the one before."""
        self.settle()
        self._path = path
        self._fresh = path.with_name(f".{path.name}{SUFFIX}.new")
        try:
            self._source_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._fork(last_ns)
        except OSError as err:
            self._failed(os.strerror(err.errno or 0).lower())

    def settle(self) -> None:
        """Wait for the child, and put its file in place; harmless when there is none."""
        if self._done_fd < 0:
            return
        self._loop.unwatch(self._done_fd)
        done = os.read(self._done_fd, 1) == _DONE
        os.close(self._done_fd)
        self._done_fd = -1
        with contextlib.suppress(ChildProcessError):  # whoever waits for all children was faster
            os.waitpid(self._pid, 0)
        if not done:
            self._failed("the process that compresses it has failed")
            return
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._source_fd)):
                os.rename(self._fresh, self._path.with_name(self._path.name + SUFFIX))
                os.unlink(self._path)
        except OSError as err:
            self._failed(os.strerror(err.errno or 0).lower())
        else:
            self._close_source()

    def _fork(self, last_ns: int) -> None:
        self._fresh.unlink(missing_ok=True)  # of a shim that was killed
        target_fd = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            source = os.fstat(self._source_fd)
            extra = Extra(Clock().stamp(last_ns).decode(), (source.st_dev, source.st_ino))
            parent = os.getpid()
            self._pid = os.fork()  # noqa: TID251 (the shim has one thread)
            if self._pid == 0:
                _be_child(self._source_fd, target_fd, writer, extra, parent)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(target_fd)
            os.close(writer)
        self._done_fd = reader
        self._loop.watch(reader, READ, self._ready)

    def _ready(self, _events: int) -> None:
        self.settle()
        if self.when_free is not None:
            self.when_free()

    def _failed(self, reason: str) -> None:
        self._warn(f"log {self._path}: not compressed: {reason}")
        with contextlib.suppress(OSError):
            self._fresh.unlink(missing_ok=True)
        self._close_source()

    def _close_source(self) -> None:
        if self._source_fd >= 0:
            os.close(self._source_fd)
            self._source_fd = -1


def gzip_header(extra: Extra) -> bytes:
    """Return the header of a gzip member with `extra` in it."""
    data = msgspec.json.encode(extra)
    return _HEADER.pack(_MAGIC_EXTRA, 0, 0, _UNIX, len(data)) + data


def gzip_extra(head: bytes) -> Extra:
    """Return what the first bytes of a compressed log say of it; nothing, where they are not of that form."""
    if len(head) < _HEADER.size or not head.startswith(_MAGIC_EXTRA):
        return Extra()
    size = _HEADER.unpack_from(head)[-1]
    try:
        return msgspec.json.decode(head[_HEADER.size : _HEADER.size + size], type=Extra)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Extra()


def _be_child(source_fd: int, target_fd: int, done_fd: int, extra: Extra, parent: int) -> None:
    """Compress, say so, and end; never returns."""
    try:
        set_pdeathsig(signal.SIGKILL)
        if os.getppid() == parent:
            _close_all_but(source_fd, target_fd, done_fd)
            os.nice(_NICE)
            _compress(source_fd, target_fd, extra)
            os.write(done_fd, _DONE)
    finally:
        os._exit(0)


def _close_all_but(*fds: int) -> None:
    """Close what a client or a daemon would take for still open."""
    begin = 3
    for fd in sorted(fds):
        os.closerange(begin, fd)
        begin = fd + 1
    os.closerange(begin, _FDS_END)


def _compress(source_fd: int, target_fd: int, extra: Extra) -> None:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    crc = size = 0
    _write_all(target_fd, gzip_header(extra))
    while block := os.read(source_fd, _BLOCK_BYTES):
        crc = zlib.crc32(block, crc)
        size += len(block)
        _write_all(target_fd, deflate.compress(block))
    _write_all(target_fd, deflate.flush() + _TRAILER.pack(crc, size & 0xFFFFFFFF))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
