"""The set-up script, with a Python that does as the test says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
case "$*" in
    "-m venv"*) echo "Traceback: a page of text" >&2; {venv};;
    *) exec {real} "$@";;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that needs no system packages."""
    for name in ("bootstrap", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "system-packages.txt").touch()
    return tmp_path


def bootstrap(checkout: Path, venv: str) -> "subprocess.CompletedProcess[str]":
    """Run the script with an interpreter that runs the shell words `venv` to make an environment."""
    python = checkout / "python"
    python.write_text(PYTHON.format(venv=venv, real=sys.executable))
    python.chmod(0o755)
    return subprocess.run(
        [checkout / "bootstrap"],
        env={**os.environ, "PYTHON": str(python), "PYENGINE_NO_APT": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,  # the signal of the test is for the script's group
    )


def test_an_interrupt_ends_it_with_one_line(checkout: Path) -> None:
    done = bootstrap(checkout, "kill -INT 0")

    assert done.returncode == 130
    assert done.stderr == ""
    assert done.stdout.endswith("bootstrap: interrupted; run it again to go on\n")
    assert not (checkout / ".venv/.bootstrapped").exists()


def test_a_failure_is_shown_whole(checkout: Path) -> None:
    done = bootstrap(checkout, "exit 7")

    assert done.returncode == 7
    assert done.stderr == "Traceback: a page of text\n"
