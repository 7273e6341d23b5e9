"""Every system call that the machine's own kernel headers name has a class."""

import re
from pathlib import Path

import pytest

from engine.containers import calltable
from engine.containers.calltable import CALLS, CallClass, names_of
from engine.kernel import capabilities
from engine.kernel.syscalls import all_names, numbers

INCLUDE = Path("/usr/include")
DEFINE = re.compile(r"^#\s*define __NR(?P<wide>3264)?_(?P<name>\w+)\s+(?P<number>\d+)$")
CONDITION = re.compile(r"^#\s*(?P<word>if|ifdef|ifndef|elif|else|endif)\b(?P<text>.*)$")
# In the generic header and none of a 64-bit machine's: a range for others, the count, ARM's other order.
NO_CALLS = {"arch_specific_syscall", "syscalls", "sync_file_range2"}


def calls_of(text: str) -> dict[str, int]:
    """Return names and numbers of a header, without what only 32-bit machines have."""
    found: dict[str, int] = {}
    narrow: list[bool] = []
    for line in text.splitlines():
        condition = CONDITION.match(line)
        if condition and condition["word"].startswith("if"):
            narrow.append("__BITS_PER_LONG == 32" in condition["text"])
        elif condition and condition["word"] == "endif":
            narrow.pop()
        elif condition:
            narrow[-1] = False
        define = DEFINE.match(line)
        if define and not any(narrow) and define["name"] not in NO_CALLS:
            name = "newfstatat" if define["name"] == "fstatat" else define["name"]
            found[name] = int(define["number"])
    return found


@pytest.mark.requires("kernel_headers")
@pytest.mark.parametrize(
    ("architecture", "headers"),
    [
        ("x86_64", ("x86_64-linux-gnu/asm/unistd_64.h", "asm/unistd_64.h")),
        ("aarch64", ("asm-generic/unistd.h",)),
    ],
)
def test_every_call_of_the_kernel_headers_is_known(architecture: str, headers: tuple[str, ...]) -> None:
    path = next((INCLUDE / name for name in headers if (INCLUDE / name).exists()), None)
    if path is None:
        pytest.skip(f"no headers for {architecture}")

    known = numbers(architecture)
    calls = calls_of(path.read_text(encoding="utf-8"))

    assert len(calls) > 250
    assert {name: number for name, number in calls.items() if known.get(name) != number} == {}
    assert sorted(calls.keys() - CALLS.keys()) == []


def test_a_call_that_nobody_has_classified_is_found() -> None:
    text = (
        "#define __NR_read 0\n#if __BITS_PER_LONG == 32\n#define __NR_old 9\n#endif\n#define __NR_fresh 999\n"
    )

    assert calls_of(text).keys() - CALLS.keys() == {"fresh"}


def test_the_table_and_the_numbers_have_the_same_calls() -> None:
    assert CALLS.keys() == all_names()


def test_every_row_is_whole() -> None:
    for call in CALLS.values():
        assert re.fullmatch(r"[2-9]\.\d+(\.\d+)?", call.since), call
        assert call.reason, call
        assert bool(call.capabilities) == (call.call_class is CallClass.GATED), call
        assert call.capabilities <= set(capabilities.NAMES), call


def test_a_name_is_in_one_class() -> None:
    rows = [line for line in calltable._TABLE.splitlines() if line.startswith(" ")]
    assert sorted(token.partition("@")[0] for line in rows for token in line.split()) == sorted(CALLS)
    assert "io_uring_setup" in names_of(CallClass.REFUSED)
    assert CALLS["io_uring_setup"].since == "5.1"
    assert CALLS["syslog"].capabilities == {"CAP_SYS_ADMIN", "CAP_SYSLOG"}
