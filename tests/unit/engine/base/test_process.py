import sys
from pathlib import Path

import pytest

from engine.base.errors import NotSupported
from engine.base.process import ProcessFailed, module_argv, run, spawn


def test_output_and_only_the_given_environment() -> None:
    done = run([sys.executable, "-c", "import os; print(sorted(os.environ))"], timeout_s=30, env={"A": "1"})

    assert b"'A'" in done.stdout
    assert b"HOME" not in done.stdout


def test_a_failure_names_the_command_the_status_and_the_last_words() -> None:
    with pytest.raises(ProcessFailed, match="exit status 3: sorry") as caught:
        run(
            [sys.executable, "-c", "import sys; sys.exit(print('sorry', file=sys.stderr) or 3)"], timeout_s=30
        )
    assert caught.value.returncode == 3


def test_a_program_that_is_not_installed_is_not_supported() -> None:
    with pytest.raises(NotSupported, match="program not found: no-such-program"):
        run(["no-such-program"], timeout_s=1)


def test_a_program_that_does_not_end_is_killed() -> None:
    with pytest.raises(TimeoutError, match=r"still running after 0\.2 s"):
        run(["sleep", "60"], timeout_s=0.2)


def test_a_module_is_not_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "engine"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('taken from the working directory')")
    monkeypatch.chdir(tmp_path)

    assert run(module_argv("engine.daemon.main", "--version"), timeout_s=30).stdout


def test_a_long_lived_process_does_not_hold_the_working_directory() -> None:
    process = spawn([sys.executable, "-c", "import os, sys; sys.exit(os.getcwd() != os.sep)"])

    assert process.wait(30) == 0
