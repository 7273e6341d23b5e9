import pytest

from engine.spec.accounts import Account, Group, accounts, groups, home_of

PASSWD = b"""# a comment:x:0:0::/no:/no
root:x:0:0:root:/root:/bin/sh
two:x:7:8::/first:/bin/sh
twice:x:7:8::/second:/bin/sh
homeless:x:9:9:::/bin/sh
short:x:10
word:x:eleven:11::/no:/bin/sh
huge:x:99999999999:1::/no:/bin/sh
"""


@pytest.mark.parametrize(
    ("uid", "home"), [(0, "/root"), (7, "/first"), (9, "/"), (10, "/"), (11, "/"), (12345, "/")]
)
def test_home_is_that_of_the_first_entry_or_the_root(uid: int, home: str) -> None:
    assert home_of(uid, PASSWD) == home


def test_lines_that_are_malformed_are_no_entries() -> None:
    assert [account.name for account in accounts(PASSWD)] == ["root", "two", "twice", "homeless"]
    assert next(accounts(PASSWD)) == Account("root", 0, 0, "/root")
    assert list(groups(b"a:x:1:b,,c\nd:x:\n:x:2:\n")) == [Group("a", 1, ("b", "c"))]


def test_any_bytes_can_be_read() -> None:
    assert home_of(5, b"\xff\xfe:x:5:5::/\xff:\n\0:x:6:6::/:\n") == "/\ufffd"
