"""Decompression of a stream as a `Source`, with every check that the format has.

The format is told by the first bytes, never by a name or a media type. A
stream that ends early, has a bad checksum, or is followed by anything but a
further member of the same format is refused; and no more than a given number
of bytes comes out, so that a small file cannot fill the disk.
"""

import zlib
from typing import Any, Protocol

from engine.base.errors import InvalidArgument, NotSupported
from engine.images.limits import DEFAULT, Limits, too_large
from engine.images.tarstream import Source

_CHUNK_BYTES = 128 * 1024
_OUT_BYTES = 1024 * 1024  # the most that one step may give, whatever the ratio
_GZIP = b"\x1f\x8b"
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\x00"
_ZSTD = b"\x28\xb5\x2f\xfd"
_MAGIC_BYTES = 6
_GZIP_WBITS = 31  # zlib's way to say: a gzip header, and check its CRC and length


class _Member(Protocol):
    """One member of a compressed stream."""

    @property
    def eof(self) -> bool:
        """Whether the member's end, with its checksum, was read."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What followed the end."""
        ...

    def step(self, data: bytes) -> bytes:
        """Take `data` and give some output."""
        ...

    @property
    def pending(self) -> bool:
        """Whether a step without new data may give more."""
        ...


class _Gzip:
    def __init__(self) -> None:
        self._state = zlib.decompressobj(wbits=_GZIP_WBITS)

    def step(self, data: bytes) -> bytes:
        return self._state.decompress(self._state.unconsumed_tail + data, _OUT_BYTES)

    @property
    def pending(self) -> bool:
        return bool(self._state.unconsumed_tail)

    @property
    def eof(self) -> bool:
        return self._state.eof

    @property
    def unused_data(self) -> bytes:
        return self._state.unused_data


class _Buffered:
    """bz2 and lzma: the same interface, with a buffer inside."""

    def __init__(self, state: object) -> None:
        self._state = state

    def step(self, data: bytes) -> bytes:
        return self._state.decompress(data, _OUT_BYTES)  # type: ignore[attr-defined, no-any-return]

    @property
    def pending(self) -> bool:
        return not self.eof and not self._state.needs_input  # type: ignore[attr-defined]

    @property
    def eof(self) -> bool:
        return self._state.eof  # type: ignore[attr-defined, no-any-return]

    @property
    def unused_data(self) -> bytes:
        return self._state.unused_data  # type: ignore[attr-defined, no-any-return]


class Decompressed:
    """The plain bytes of `source`; reads it to its end, and says so when that is not a proper one."""

    def __init__(
        self,
        source: Source,
        max_bytes: int,
        limits: Limits = DEFAULT,
        *,
        digest: Any = None,  # noqa: ANN401
    ) -> None:
        """Read from `source`; `digest` is a hashlib object that is to see the plain bytes."""
        self._source = source
        self._digest = digest
        self._left = max_bytes
        self._max_bytes = max_bytes
        self._limits = limits
        self._head = _head(source)
        self.format = format_of(self._head)
        self._member: _Member | None = None if self.format == "tar" else self._new_member()
        self._ended = False
        self._out = b""
        self._at = 0  # of `_out`, up to where it was handed out

    def read(self, size: int) -> bytes:
        """Return at most `size` plain bytes; none at the end.

        Raises:
            InvalidArgument: the compressed stream is damaged.
            OutOfSpace: it gives more than `max_bytes`.
        """
        if self._at == len(self._out):
            self._refill()
        data = self._out[self._at : self._at + size]
        self._at += len(data)
        return data

    def _refill(self) -> None:
        self._out = self._more()
        self._at = 0
        self._left -= len(self._out)
        if self._left < 0:
            raise too_large(self._max_bytes, self._limits)
        if self._digest is not None:
            self._digest.update(self._out)

    def _more(self) -> bytes:
        if self._member is None:
            return self._raw()
        try:
            while not self._ended:
                if data := self._step(self._member):
                    return data
        except (zlib.error, OSError, EOFError, ValueError) as err:
            raise InvalidArgument(f"damaged {self.format} data: {err}") from err
        except Exception as err:
            if type(err).__name__ != "LZMAError":  # a class of a module that is imported only for xz
                raise
            raise InvalidArgument(f"damaged {self.format} data: {err}") from err
        return b""

    def _step(self, member: _Member) -> bytes:
        if member.eof:
            self._head = member.unused_data + self._head
            if not self._head:
                self._head = self._source.read(_CHUNK_BYTES)
            if self._head:
                self._next_member()
            else:
                self._ended = True
            return b""
        data = b"" if member.pending else self._raw()
        if not data and not member.pending:
            raise InvalidArgument(f"{self.format} data ends early")
        return member.step(data)

    def _next_member(self) -> None:
        while len(self._head) < _MAGIC_BYTES and (more := self._source.read(_CHUNK_BYTES)):
            self._head += more
        if format_of(self._head) != self.format:
            raise InvalidArgument(f"data after the end of the {self.format} data")
        self._member = self._new_member()

    def _raw(self) -> bytes:
        if self._head:
            data, self._head = self._head, b""
            return data
        return self._source.read(_CHUNK_BYTES)

    def _new_member(self) -> _Member:
        if self.format == "gzip":
            return _Gzip()
        if self.format == "bzip2":
            import bz2  # noqa: PLC0415 (rare, and imports are dear in a machine)

            return _Buffered(bz2.BZ2Decompressor())
        if self.format == "xz":
            import lzma  # noqa: PLC0415 (rare)

            return _Buffered(lzma.LZMADecompressor(memlimit=self._limits.window_bytes))
        return _zstd(self._limits)


def _head(source: Source) -> bytes:
    head = b""
    while len(head) < _MAGIC_BYTES and (more := source.read(_MAGIC_BYTES - len(head))):
        head += more
    return head


def format_of(head: bytes) -> str:
    """Return the format that data beginning with `head` has: ``tar`` stands for none of the others."""
    for magic, name in ((_GZIP, "gzip"), (_BZIP2, "bzip2"), (_XZ, "xz"), (_ZSTD, "zstd")):
        if head.startswith(magic):
            return name
    return "tar"


def _zstd(limits: Limits) -> _Member:
    """Return a zstd member where the standard library has zstd (Python 3.14)."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
    except ImportError as err:
        raise NotSupported(
            "zstd compression needs Python 3.14", hint="compress the image with gzip instead"
        ) from err
    options = {zstd.DecompressionParameter.window_log_max: limits.window_bytes.bit_length() - 1}
    return _Buffered(zstd.ZstdDecompressor(options=options))
