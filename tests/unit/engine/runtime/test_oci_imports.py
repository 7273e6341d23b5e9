"""What `pyengine-oci` loads before it does anything: each verb waits for it."""

import subprocess
import sys

SCRIPT = "import sys; from engine.runtime.entry import main; sys.argv[1:] = ['--version']; main()"
UNWANTED = {
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
}


def test_the_runtime_starts_without_modules_that_take_long() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "engine.runtime.commands" in loaded
    assert UNWANTED.isdisjoint(loaded)
