"""A streaming reader of tar archives that takes one reading of each byte or none.

Formats: v7, ustar, GNU (long names, base-256 numbers) and PAX. An entry that
two readers could understand in two ways is refused: bad checksums, negative or
contradicting sizes, unknown types, global headers that rename, anything but
zeros after the end. Names are bytes; nothing here touches a file system.

    for entry in reader:            reading on skips what is left of an entry
        while data := reader.read(): ...
    reader.finish()                 to the end of the source, so that digests cover it all

Source: POSIX.1-2017, pax, "pax Interchange Format"; GNU tar manual, "Basic Tar
Format".
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from engine.base.errors import InvalidArgument, NotSupported
from engine.images.limits import DEFAULT, Limits

BLOCK = 512
_READ_BYTES = 256 * 1024
_ZERO_BLOCK = bytes(BLOCK)
_ID_MAX = (1 << 32) - 2  # the highest number that chown(2) takes for an id
_NS = 1_000_000_000
_TIME_MAX_NS = 1 << 62  # 146 years from 1970; a later time is that
_XATTR_PREFIX = b"SCHILY.xattr."
_SPARSE_PREFIX = b"GNU.sparse."


class Source(Protocol):
    """Where the bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none only at the end."""
        ...


class Kind(enum.Enum):
    """What an entry makes."""

    FILE = "file"
    HARDLINK = "hard link"
    SYMLINK = "symbolic link"
    CHAR = "character device"
    BLOCK = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"


@dataclass(slots=True)
class Entry:
    """One entry; `name` and `link` are as they are written in the archive."""

    name: bytes
    kind: Kind
    mode: int = 0o644  # permission bits with setuid, setgid and sticky
    uid: int = 0
    gid: int = 0
    size: int = 0  # of the data that follows; files only
    mtime_ns: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)  # major, minor
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHAR,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_DEVICES = (Kind.CHAR, Kind.BLOCK)


class TarReader:
    """Reads one archive from `source`, once, from start to end.

    Every method may raise `InvalidArgument`, naming what is wrong with the
    archive; the reader is of no use after that.
    """

    def __init__(self, source: Source, limits: Limits = DEFAULT) -> None:
        self._source = source
        self._limits = limits
        self._left = 0  # bytes of the current entry's data not read yet
        self._padding = 0  # zeros after it, up to a whole block
        self._entries = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries in order."""
        while (entry := self._next()) is not None:
            yield entry

    def read(self, size: int = _READ_BYTES) -> bytes:
        """Return at most `size` bytes of the current entry's data; none at its end."""
        if self._left == 0:
            return b""
        data = self._source.read(min(size, self._left))
        if not data:
            raise InvalidArgument("unexpected end of archive")
        self._left -= len(data)
        return data

    def read_all(self, limit: int) -> bytes:
        """Return the current entry's data; refuse more than `limit` bytes."""
        if self._left > limit:
            raise InvalidArgument(f"document of {self._left} bytes is larger than {limit}")
        return self._exactly(self._left, data=True)

    def finish(self) -> None:
        """Read the source to its end, which must hold nothing but zeros."""
        while data := self._source.read(_READ_BYTES):
            if data.count(0) != len(data):
                raise InvalidArgument("data after the end of the archive")

    def _next(self) -> Entry | None:
        extended: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while (header := self._header()) is not None:
            kind = header[156:157]
            if kind == b"x":
                extended.update(_pax_records(self._extension(header)))
            elif kind == b"g":
                _check_global(_pax_records(self._extension(header)))
            elif kind == b"L":
                long_name = self._extension(header).split(b"\0", 1)[0]
            elif kind == b"K":
                long_link = self._extension(header).split(b"\0", 1)[0]
            elif kind == b"V":  # the archive's label
                self._extension(header)
            else:
                return self._entry(header, extended, long_name, long_link)
        if extended or long_name or long_link:
            raise InvalidArgument("extended header without an entry")
        return None

    def _header(self) -> bytes | None:
        """Return the next header block, checked; None at the end of the archive."""
        while self.read():
            pass
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0
        first = self._source.read(BLOCK)
        if not first:
            return None  # an archive without end marker, as docker accepts
        block = first + self._exactly(BLOCK - len(first))
        if block == _ZERO_BLOCK:
            self._expect_end()
            return None
        self._entries += 1
        if self._entries > self._limits.entries:
            raise InvalidArgument(f"more than {self._limits.entries} entries")
        _check_sum(block)
        return block

    def _expect_end(self) -> None:
        """Read the second zero block of the end marker, if there is one."""
        if (second := self._source.read(BLOCK)) and second.count(0) != len(second):
            raise InvalidArgument("data after the end of the archive")

    def _extension(self, header: bytes) -> bytes:
        size = _number(header[124:136], "size")
        if size > self._limits.pax_bytes:
            raise InvalidArgument(f"extended header of {size} bytes")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        return data

    def _entry(self, header: bytes, extended: dict[bytes, bytes], name: bytes, link: bytes) -> Entry:
        kind_flag = header[156:157]
        _refuse_sparse(kind_flag, extended)
        if kind_flag not in _KINDS:
            raise InvalidArgument(f"unknown entry type {kind_flag!r}")
        kind = _KINDS[kind_flag]
        entry = Entry(
            name=name or _ustar_name(header),
            kind=kind,
            mode=_number(header[100:108], "mode") & 0o7777,
            uid=_number(header[108:116], "uid"),
            gid=_number(header[116:124], "gid"),
            size=_number(header[124:136], "size"),
            mtime_ns=_number(header[136:148], "mtime", negative=True) * _NS,
            link=link or _text(header[157:257]),
        )
        if kind in _DEVICES:
            entry.device = (_number(header[329:337], "major"), _number(header[337:345], "minor"))
        _apply_pax(entry, extended)
        self._check(entry)
        self._left = entry.size
        self._padding = -entry.size % BLOCK
        return entry

    def _check(self, entry: Entry) -> None:
        if entry.kind is Kind.FILE and entry.name.endswith(b"/"):  # how v7 writes a directory
            entry.kind = Kind.DIRECTORY
        if entry.kind is not Kind.FILE:
            entry.size = 0  # POSIX: no data follows, whatever the field says
        entry.mtime_ns = max(-_TIME_MAX_NS, min(entry.mtime_ns, _TIME_MAX_NS))
        for text in (entry.name, entry.link):
            if b"\0" in text or len(text) > self._limits.path_bytes:
                raise InvalidArgument(f"bad or too long name {text[:100]!r}")
        if not entry.name:
            raise InvalidArgument("entry without a name")
        if max(entry.uid, entry.gid) > _ID_MAX:
            raise InvalidArgument(f"{show(entry.name)}: owner {entry.uid}:{entry.gid} is out of range")
        if len(entry.xattrs) > self._limits.xattrs:
            raise InvalidArgument(f"{show(entry.name)}: more than {self._limits.xattrs} extended attributes")

    def _exactly(self, size: int, *, data: bool = False) -> bytes:
        """Return `size` bytes, of the entry's data or of the archive around it."""
        parts: list[bytes] = []
        while size:
            part = self.read(size) if data else self._source.read(size)
            if not part:
                raise InvalidArgument("unexpected end of archive")
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_sum(block: bytes) -> None:
    stored = _number(block[148:156], "checksum")
    rest = block[:148] + b"        " + block[156:]
    unsigned = sum(rest)
    if stored == unsigned:
        return
    signed = unsigned - 256 * sum(byte >> 7 for byte in rest)  # as some old programs summed
    if stored != signed:
        raise InvalidArgument("bad header checksum")


def _number(raw: bytes, what: str, *, negative: bool = False) -> int:
    """Return a header's number: octal digits, or GNU's base-256 where the first bit is set."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big") & ((1 << (8 * len(raw) - 1)) - 1)
        if raw[0] & 0x40:
            value -= 1 << (8 * len(raw) - 1)
    else:
        digits = raw.strip(b"\0 ").split(b"\0", 1)[0].strip(b" ")
        if digits.strip(b"01234567"):
            raise InvalidArgument(f"bad {what} {raw!r} in a header")
        value = int(digits, 8) if digits else 0
    if value < 0 and not negative:
        raise InvalidArgument(f"negative {what} in a header")
    return value


def _text(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


def _ustar_name(header: bytes) -> bytes:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        return prefix + b"/" + name
    return name


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """Return the records of an extended header; each is ``<length> <key>=<value>`` and a line feed."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space > at else b""
        if not digits or digits.strip(b"0123456789"):
            raise InvalidArgument("bad length in an extended header")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
            raise InvalidArgument("bad record in an extended header")
        records[key] = value
        at = end
    return records


def _check_global(records: dict[bytes, bytes]) -> None:
    """Ignore a global header, as docker does, unless a reader that honours it would see other files."""
    for key in (b"path", b"linkpath", b"size", b"uid", b"gid"):
        if key in records:
            raise InvalidArgument(f"global header changes {key.decode()}")


def _refuse_sparse(kind: bytes, extended: dict[bytes, bytes]) -> None:
    if kind == b"S" or any(key.startswith(_SPARSE_PREFIX) for key in extended):
        raise NotSupported("sparse files in an archive are not supported", hint="make it with tar without -S")


def _apply_pax(entry: Entry, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key.startswith(_XATTR_PREFIX):
            entry.xattrs[key[len(_XATTR_PREFIX) :]] = value
        elif not value:  # POSIX: as if the record were not there
            continue
        elif key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = _decimal(value, "size")
        elif key == b"uid":
            entry.uid = _decimal(value, "uid")
        elif key == b"gid":
            entry.gid = _decimal(value, "gid")
        elif key == b"mtime":
            entry.mtime_ns = _pax_time(value)


def _decimal(value: bytes, what: str) -> int:
    if not value or len(value) > 20 or value.strip(b"0123456789"):  # noqa: PLR2004 (digits of 2**64)
        raise InvalidArgument(f"bad {what} in an extended header")
    return int(value)


def _pax_time(value: bytes) -> int:
    """Return nanoseconds of a decimal number of seconds; digits beyond are cut off."""
    sign = -1 if value.startswith(b"-") else 1
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    if fraction.strip(b"0123456789"):
        raise InvalidArgument("bad mtime in an extended header")
    return sign * (_decimal(seconds, "mtime") * _NS + int(fraction[:9].ljust(9, b"0")))


def show(name: bytes) -> str:
    """Return `name` for a message: one line, whatever it holds."""
    return ascii(name[:200].decode("utf-8", "backslashreplace")).strip("'\"")
