import errno

import pytest

from engine.runtime.errors import StartFailed
from engine.runtime.handshake import decode_error, encode_error
from engine.runtime.program import find, parse_environment, refuse_own_executable


@pytest.mark.parametrize(
    ("step", "number", "code"),
    [
        ("look up", errno.ENOENT, 127),
        ("exec", errno.ENOENT, 127),
        ("exec", errno.EACCES, 126),
        ("exec", errno.ENOEXEC, 126),
        ("mount /proc", errno.ENOENT, 125),
    ],
)
def test_exit_codes_are_dockers(step: str, number: int, code: int) -> None:
    assert StartFailed(step, number, "x").exit_code == code


def test_an_error_survives_the_line_whatever_is_in_it() -> None:
    text = "bad \udcff name " + "x" * 5000

    error = decode_error(encode_error("mount /a", errno.EPERM, text))

    assert (error.step, error.errno) == ("mount /a", errno.EPERM)
    assert error.text.startswith("bad ")


def test_of_two_values_for_a_name_the_last_wins() -> None:
    assert parse_environment(("A=1", "B", "A=2=3")) == {"A": "2=3", "B": ""}


def test_a_program_is_found_in_the_path_that_the_process_gets() -> None:
    assert find("sh", {"PATH": "/nowhere:/bin"}) == "/bin/sh"
    with pytest.raises(FileNotFoundError):
        find("sh", {"PATH": "/nowhere"})
    with pytest.raises(PermissionError):
        find("/etc/passwd", {})


def test_the_engines_own_interpreter_is_refused() -> None:
    import os

    found = os.stat("/proc/self/exe")
    with pytest.raises(PermissionError, match="own executable"):
        refuse_own_executable("/proc/self/exe", (found.st_dev, found.st_ino))
