"""What `pyengine env` prints, run by the shells themselves."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostagent.cli.main import run


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address on which somebody listens; it has all that a shell may trip over."""
    monkeypatch.chdir(tmp_path)  # a relative path is short enough for a socket
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("it's a $HOME \\s")
        listener.listen()
        yield "unix://it's a $HOME \\s"


@pytest.mark.parametrize(
    "shell",
    [
        "sh",
        "bash",
        pytest.param("zsh", marks=pytest.mark.requires("zsh")),
        pytest.param("fish", marks=pytest.mark.requires("fish")),
    ],
)
def test_a_shell_that_evaluates_it_has_the_variable_as_it_is(
    address: str, shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--host", address, "env", "--shell", shell]) == 0

    script = f"{capsys.readouterr().out}\nprintenv DOCKER_HOST"
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == f"{address}\n"


@pytest.mark.parametrize(
    ("shell", "set_it", "unset_it"),
    [
        ("sh", "export DOCKER_HOST=", "unset DOCKER_HOST"),
        ("zsh", "export DOCKER_HOST=", "unset DOCKER_HOST"),
        ("fish", "set -gx DOCKER_HOST ", "set -e DOCKER_HOST"),
        ("powershell", "$Env:DOCKER_HOST = ", "Remove-Item Env:DOCKER_HOST"),
        ("cmd", "SET DOCKER_HOST=", "SET DOCKER_HOST="),
    ],
)
def test_each_shell_has_its_own_words(
    address: str, shell: str, set_it: str, unset_it: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--host", address, "env", "--shell", shell]) == 0
    assert capsys.readouterr().out.startswith(set_it)

    assert run(["env", "--shell", shell, "--unset"]) == 0
    assert capsys.readouterr().out == f"{unset_it}\n"


def test_an_engine_that_does_not_answer_is_not_offered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))

    assert run(["--host", f"unix://{stale}", "env"]) == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"unix://{stale}: connection refused" in captured.err


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["env", "--shell", "tcsh"]) == 125
    assert "unknown shell: 'tcsh'" in capsys.readouterr().err
