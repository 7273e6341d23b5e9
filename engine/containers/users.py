"""Who a container's process is: docker's `user[:group]` looked up in the image's own files; pure.

Nothing of the image is run for it, and no C library of the host is asked:
the text of /etc/passwd and /etc/group comes in, numbers come out.

Source: passwd(5), group(5); docker's rules for USER.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.base.errors import InvalidArgument
from engine.spec import accounts
from engine.spec.accounts import ID_MAX, Account, Group

_DIGITS_MAX = 10


@dataclass(frozen=True, slots=True)
class Identity:
    """Ids of a process, and its home directory."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...]  # the primary group is one of them
    home: str


def resolve(user: str, passwd: bytes, group: bytes, *, group_add: Sequence[str] = ()) -> Identity:
    """Return who `user` is, by the texts of the image's /etc/passwd and /etc/group.

    Digits are always an id, never a name. Of duplicate entries the first counts.

    Raises:
        InvalidArgument: a name without an entry, or an id out of range; docker's words.
    """
    user_part, colon, group_part = user.partition(":")
    groups = list(accounts.groups(group))
    account = _account(user_part or "0", passwd)
    gid = account.gid
    additional: list[int] = []
    if colon and group_part:
        gid = _gid(group_part, groups)
    elif account.name:
        additional = [entry.gid for entry in groups if account.name in entry.members]
    additional += [_gid(name, groups) for name in group_add]
    return Identity(account.uid, gid, tuple(dict.fromkeys([gid, *additional])), account.home or "/")


def _account(user: str, passwd: bytes) -> Account:
    number = _number(user, "uid")
    for account in accounts.accounts(passwd):
        if account.uid == number if number is not None else account.name == user:
            return account
    if number is None:
        raise InvalidArgument(f"unable to find user {user}: no matching entries in passwd file")
    return Account("", number, 0, "/")


def _gid(name: str, groups: Sequence[Group]) -> int:
    number = _number(name, "gid")
    if number is not None:
        return number
    for entry in groups:
        if entry.name == name:
            return entry.gid
    raise InvalidArgument(f"unable to find group {name}: no matching entries in group file")


def _number(text: str, noun: str) -> int | None:
    """Return `text` as an id when it is made of ASCII digits; None when it is a name."""
    if text.isascii() and text.removeprefix("-").isdigit():
        if text.startswith("-") or len(text) > _DIGITS_MAX or int(text) > ID_MAX:
            raise InvalidArgument(f"invalid {noun} {text}: uids and gids must be in range 0-{ID_MAX}")
        return int(text)
    return None
