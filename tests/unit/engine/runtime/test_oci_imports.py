"""What `pyengine-oci` loads before it does anything: each verb waits for it."""

import subprocess
import sys

SCRIPT = "import sys; from engine.runtime.entry import main; sys.argv[1:] = ['--root', '/no', 'list']; main()"
UNWANTED = {
    *(
        "asyncio",
        "ast",
        "dataclasses",
        "email",
        "http",
        "inspect",
        "json",
        "logging",
        "subprocess",
        "threading",
    ),
    *(
        "decimal",
        "engine.runtime.update",
        "gettext",
        "msgspec.inspect",
        "platform",
        "selectors",
        "string",
        "textwrap",
        "urllib.parse",
        "uuid",
    ),
}


def python(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", *options, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )


def test_the_runtime_starts_without_modules_that_take_long() -> None:
    done = python(SCRIPT, "-X", "importtime")

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "engine.runtime.commands" in loaded
    assert UNWANTED.isdisjoint(loaded)


def test_a_start_that_only_executes_itself_again_loads_next_to_nothing() -> None:
    done = python("from engine.runtime import entry, ownimage", "-X", "importtime")

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"typing", "re", "enum", "pathlib"}.isdisjoint(loaded)


def test_modules_that_were_stood_in_for_are_real_afterwards() -> None:
    script = """
from engine.runtime import lean
lean.load()
import decimal, pathlib, uuid
from engine.base import jsonio
print(decimal.Decimal("1.5"), len(str(uuid.uuid4())), pathlib.Path("/a b").as_uri(), jsonio.decode(b"3", int))
"""

    assert python(script).stdout == "1.5 36 file:///a%20b 3\n"


def test_a_library_that_needs_more_than_a_stand_in_gets_the_real_one() -> None:
    script = """
from engine.runtime import lean
lean._FOR_MSGSPEC = {**lean._FOR_MSGSPEC, "uuid": {}}
lean.load()
import msgspec, uuid
print(msgspec.json.decode(b'"00000000-0000-0000-0000-000000000001"', type=uuid.UUID).int)
"""

    assert python(script).stdout == "1\n"
