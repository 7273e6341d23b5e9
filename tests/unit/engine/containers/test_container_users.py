"""USER in all its forms, by the image's own files: an id is an id, a name is a name, nothing is guessed."""

import pytest

from engine.base.errors import InvalidArgument
from engine.containers.users import resolve
from engine.spec.accounts import ID_MAX

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
user:x:1000:1000::/home/user:/bin/sh
user:x:1:1:the second of a name does not count:/:/bin/sh
1000:x:0:0:a name of digits:/root:/bin/sh
4294967296:x:0:0::/root:/bin/sh
wide:x:4294967295:0::/root:/bin/sh
minus:x:-1:0::/root:/bin/sh
full:x:\xef\xbc\x91:0::/root:/bin/sh
torn:x:1000
:x:0:0::/root:/bin/sh
"""
GROUP = b"""root:x:0:
wheel:x:10:root,user
user:x:1000:
staff:x:50:user,other
0050:x:0:
wide:x:4294967296:user
torn:x
"""


def resolved(user: str, *more: str) -> tuple[int, int, tuple[int, ...]]:
    found = resolve(user, PASSWD, GROUP, group_add=more)
    return found.uid, found.gid, found.additional_gids


@pytest.mark.parametrize(
    ("user", "more", "expected"),
    [
        ("", (), (0, 0, (0, 10))),
        ("0", (), (0, 0, (0, 10))),
        ("root", (), (0, 0, (0, 10))),
        ("user", (), (1000, 1000, (1000, 10, 50))),
        ("1000", (), (1000, 1000, (1000, 10, 50))),
        ("00", (), (0, 0, (0, 10))),
        ("1", (), (1, 1, (1, 10, 50))),
        ("1:1", (), (1, 1, (1,))),
        ("1000:0", (), (1000, 0, (0,))),
        ("user:wheel", (), (1000, 10, (10,))),
        ("user:0050", (), (1000, 50, (50,))),
        ("4711", (), (4711, 0, (0,))),
        ("4711:4712", ("staff", "7", "staff"), (4711, 4712, (4712, 50, 7))),
        (":50", (), (0, 50, (50,))),
        (str(ID_MAX), (), (ID_MAX, 0, (0,))),
    ],
)
def test_ids_and_groups(user: str, more: tuple[str, ...], expected: tuple[int, int, tuple[int, ...]]) -> None:
    """CVE-2022-36109, CVE-2023-25173: the primary group is among the groups, always."""
    assert resolved(user, *more) == expected


@pytest.mark.parametrize(
    "user",
    [
        "4294967296",
        "4294967295",
        "2147483648",
        "-1",
        "-0",
        "9" * 5000,
        "0:4294967296",
        "0:-1",
        "user:2147483648",
    ],
)
def test_an_id_out_of_range_is_no_name_and_not_cut(user: str) -> None:
    """CVE-2024-40635: 4294967296 was root; and the image has a user of that name."""
    with pytest.raises(InvalidArgument, match="must be in range 0-2147483647"):
        resolved(user)


@pytest.mark.parametrize(
    "user", ["0x0", "\uff11", "\u00b2", "1_0", " 0", "0 ", "1e3", "nobody", "full", "wide", "minus"]
)
def test_what_is_not_made_of_digits_is_a_name(user: str) -> None:
    with pytest.raises(InvalidArgument, match="no matching entries in passwd file"):
        resolved(user)


@pytest.mark.parametrize("group", ["0x0", "\uff11", "nogroup", "torn", "wide"])
def test_a_group_that_is_not_there_is_none(group: str) -> None:
    with pytest.raises(InvalidArgument, match="no matching entries in group file"):
        resolved("0", group)
