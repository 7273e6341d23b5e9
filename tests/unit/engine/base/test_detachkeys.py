import pytest

from engine.base import detachkeys
from engine.base.detachkeys import DetachKeys
from engine.base.errors import InvalidArgument

KEYS = b"\x10\x11"


@pytest.mark.parametrize(
    ("typed", "passed", "left"),
    [
        ([b"abc"], b"abc", False),
        ([b"ab\x10\x11cd"], b"ab", True),
        ([b"ab\x10", b"\x11"], b"ab", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10", b"\x10", b"\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_the_sequence_is_found_however_it_is_cut(typed: list[bytes], passed: bytes, left: bool) -> None:
    keys = DetachKeys(KEYS)
    got, found = b"", False
    for data in typed:
        out, found = keys.feed(data)
        got += out

    assert (got, found) == (passed, left)


def test_one_key_is_a_sequence_too() -> None:
    assert DetachKeys(b"q").feed(b"aqb") == (b"a", True)


def test_no_keys_mean_no_detaching() -> None:
    assert DetachKeys(b"").feed(KEYS) == (KEYS, False)


@pytest.mark.parametrize(
    ("text", "keys"), [("", b"\x10\x11"), ("ctrl-a", b"\x01"), ("ctrl-[,x", b"\x1bx"), ("a,b,c", b"abc")]
)
def test_detach_keys_become_bytes(text: str, keys: bytes) -> None:
    assert detachkeys.parse(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "a,,b", ",".join("a" * 33)])
def test_other_detach_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        detachkeys.parse(text)
