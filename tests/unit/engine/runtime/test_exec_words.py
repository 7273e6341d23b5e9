import pytest

from engine.base.errors import InvalidArgument
from engine.runtime import arguments
from engine.runtime.commands import signal_number
from engine.runtime.execute import exec_process
from engine.spec.runtime import OCI_VERSION, Process, Spec, User

_SPEC = Spec(oci_version=OCI_VERSION, process=Process(cwd="/", args=("sh",), user=User(uid=5, gid=6)))


def user_of(text: str) -> User:
    flags = arguments.parse(["exec", "--user", text, "name", "true"], "version")
    return exec_process(flags, _SPEC).user


@pytest.mark.parametrize(
    ("text", "ids"), [("1", (1, 6)), ("1:1", (1, 1)), ("1000:0", (1000, 0)), ("0", (0, 6))]
)
def test_a_user_is_numbers(text: str, ids: tuple[int, int]) -> None:
    """CVE-2026-30892: `-u 1` made a process of root."""
    found = user_of(text)
    assert (found.uid, found.gid) == ids


@pytest.mark.parametrize(
    "text", ["-1", "1:", ":1", "1:x", "root", "\uff11", "1:\u0661", "\u00b2", "0x1", " 1", "1_0"]
)
def test_what_is_no_number_of_ascii_digits_is_no_user(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid user"):
        user_of(text)


@pytest.mark.parametrize("text", ["\uff19", "0", "65", "-9", "SIGNOTHING", ""])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unknown signal"):
        signal_number(text)
