"""The users and groups of a system, as its own files have them.

Source: passwd(5), group(5). Lines that are malformed are no entries.
"""

from collections.abc import Iterator

import msgspec

ID_MAX = 2**31 - 1
FILE_MAX_BYTES = 1 << 20  # of a file that is read at all
_PASSWD_FIELDS = 7
_GROUP_FIELDS = 4
_DIGITS_MAX = 10


class Account(msgspec.Struct, frozen=True):
    """One line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str


class Group(msgspec.Struct, frozen=True):
    """One line of group(5)."""

    name: str
    gid: int
    members: tuple[str, ...]


def accounts(passwd: bytes) -> Iterator[Account]:
    """Yield the entries of the text `passwd`, in its order."""
    for fields in _lines(passwd, _PASSWD_FIELDS):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None:
            yield Account(fields[0], uid, gid, fields[5])


def groups(group: bytes) -> Iterator[Group]:
    """Yield the entries of the text `group`, in its order."""
    for fields in _lines(group, _GROUP_FIELDS):
        gid = _number(fields[2])
        if gid is not None:
            yield Group(fields[0], gid, tuple(name for name in fields[3].split(",") if name))


def home_of(uid: int, passwd: bytes) -> str:
    """Return the home directory of `uid`: of its first entry; the root without one."""
    return next((account.home for account in accounts(passwd) if account.uid == uid), "") or "/"


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX and int(text) <= ID_MAX:
        return int(text)
    return None


def _lines(data: bytes, fields: int) -> Iterator[list[str]]:
    for line in data.decode("utf-8", "replace").split("\n"):
        parts = line.strip().split(":")
        if len(parts) >= fields and parts[0] and not parts[0].startswith("#"):
            yield parts
