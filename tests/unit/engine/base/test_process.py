import sys

import pytest

from engine.base.errors import NotSupported
from engine.base.process import ProcessFailed, run


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
