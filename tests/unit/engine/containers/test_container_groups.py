import pytest

from engine.containers.joining import is_within

_LEGACY = "12:pids:/pyengine/abc\n3:cpu,cpuacct:/\n0::/init.scope\n"


@pytest.mark.parametrize(
    ("text", "group", "within"),
    [
        ("0::/pyengine/abc\n", "/pyengine/abc", True),
        ("0::/pyengine/abc/inner\n", "/pyengine/abc", True),
        (_LEGACY, "/pyengine/abc", True),
        ("0::/pyengine/abcd\n", "/pyengine/abc", False),
        ("0::/other/pyengine/abc\n", "/pyengine/abc", False),
        ("0::/\n", "/pyengine/abc", False),
        ("", "/pyengine/abc", False),
        ("0::/with:colon/abc\n", "/with:colon/abc", True),
    ],
)
def test_a_process_is_of_a_group_or_below(text: str, group: str, within: bool) -> None:
    assert is_within(text, group) is within
