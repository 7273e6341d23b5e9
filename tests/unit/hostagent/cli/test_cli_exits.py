"""Errors to exit codes and lines."""

import errno

import click
import pytest

from engine.base.errors import InvalidArgument, NotFound, Unavailable
from hostagent.cli.exits import ExitWith, describe, start_failure


@pytest.mark.parametrize(
    ("err", "code", "lines"),
    [
        (ExitWith(3), 3, []),
        (ExitWith(3, "why"), 3, ["pyengine: why"]),
        (NotFound("image", "x"), 9, ["pyengine: no such image: x"]),
        (InvalidArgument("bad\nthing.", hint="good"), 125, ["pyengine: bad thing", "hint: good"]),
        (Unavailable("gone"), 9, ["pyengine: gone"]),
        (KeyboardInterrupt(), 130, []),
        (click.Abort(), 130, []),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            9,
            ["pyengine: /x: no space left on device"],
        ),
    ],
)
def test_the_table_of_errors(err: BaseException, code: int, lines: list[str]) -> None:
    assert describe(err, error_exit=9) == (code, lines)


def test_a_defect_says_that_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYENGINE_DEBUG", raising=False)
    code, lines = describe(ZeroDivisionError("oops"))
    assert code == 1
    assert lines[0] == "pyengine: internal error: ZeroDivisionError: oops"

    monkeypatch.setenv("PYENGINE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        describe(ZeroDivisionError("oops"))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("exec: /x: no such file or directory", 127),
        ("exec: /etc/passwd: permission denied", 126),
        ("exec /x: exec format error", 126),
        ("Bind for 0.0.0.0:80 failed: port is already allocated", 125),
    ],
)
def test_a_failed_start_has_dockers_code(text: str, code: int) -> None:
    assert start_failure(text) == code
