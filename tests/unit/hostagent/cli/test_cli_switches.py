"""Flags as docker takes them: `--rm=false`, `-it=true`, words after the image left alone."""

from pathlib import Path

import click
import pytest

from hostagent.cli import createflags
from hostagent.cli.command import rewrite_switches
from hostagent.cli.main import COMMANDS, run

PARAMS = [*createflags.run_only(), *createflags.shared()]


def rewritten(*words: str) -> list[str]:
    return list(rewrite_switches(words, PARAMS, interspersed=False))


@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["--rm=true", "img"], ["--rm", "img"]),
        (["--rm=false", "img"], ["img"]),
        (["--sig-proxy=false", "img"], ["--no-sig-proxy", "img"]),
        (["-it=false", "img"], ["-i", "img"]),
        (["-it=1", "img"], ["-it", "img"]),
        (["--name", "--rm=true", "img"], ["--name", "--rm=true", "img"]),
        (["-e", "--rm=true", "img"], ["-e", "--rm=true", "img"]),
        (["-eA=1", "img"], ["-eA=1", "img"]),
        (["-e=A=1", "-w=/etc", "img"], ["--env=A=1", "--workdir=/etc", "img"]),
        (["-ite=A=1", "img", "-e=B"], ["-it", "--env=A=1", "img", "-e=B"]),
        (["-e", "-w=/etc", "img"], ["-e", "-w=/etc", "img"]),
        (["-w=", "img"], ["--workdir=", "img"]),
        (["-z=1", "img"], ["-z=1", "img"]),
        (["img", "--rm=false"], ["img", "--rm=false"]),
        (["--", "--rm=false"], ["--", "--rm=false"]),
    ],
)
def test_switches_take_a_value(words: list[str], result: list[str]) -> None:
    assert rewritten(*words) == result


def test_another_value_is_refused() -> None:
    with pytest.raises(click.BadOptionUsage, match="want true or false"):
        rewritten("--rm=maybe", "img")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run([name, "--help"]) == 0

    out = capsys.readouterr().out
    assert f"pyengine {name}" in out
    assert "--help" in out


def test_the_list_of_commands_is_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0

    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nosuch"], 1, "pyengine: unknown command: pyengine nosuch"),
        (["x" * 1000], 1, f"pyengine: unknown command: pyengine {'x' * 40}\n"),
        (["image", "nosuch"], 1, "pyengine: unknown command: pyengine image nosuch"),
        (["volume", "nosuch"], 1, "pyengine: unknown command: pyengine volume nosuch"),
        (["machine", "nosuch"], 1, "pyengine: unknown command: pyengine machine nosuch"),
        (["run"], 1, "pyengine: missing argument 'IMAGE'"),
        (["stop", "-t", "x", "c"], 125, "pyengine: invalid value for '-t'"),
        (["run", "--rm=maybe", "img"], 125, 'pyengine: invalid argument "maybe" for "--rm"'),
        (["machine", "start", ""], 125, "pyengine: invalid machine name: ''"),
        (["machine", "rm", ""], 125, "pyengine: invalid machine name: ''"),
        (["run", "--nosuch", "img"], 125, "pyengine: "),
        (["run", "-p", "x", "img"], 125, "pyengine: "),
        (["--host", "nowhere", "ps"], 125, "pyengine: invalid --host 'nowhere'"),
        (["--host", "unix:///nonexistent/sock", "ps"], 1, "pyengine: "),
        (["--host", "unix:///nonexistent/sock", "run", "img"], 125, "pyengine: "),
        (["--host", "unix:///a", "--native", "ps"], 125, "pyengine: --host and --native exclude each other"),
    ],
)
def test_a_bad_line_is_one_line_and_a_code(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, text: str
) -> None:
    assert run(words) == code

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(text)
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("words", [["--version"], ["-v"]])
def test_the_version_is_a_flag_too(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run(words) == 0
    assert capsys.readouterr().out.startswith("pyengine version ")


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "ps"]) == 0
    assert "Usage: pyengine ps" in capsys.readouterr().out
    assert run(["help"]) == 0
    assert "Usage: pyengine [OPTIONS]" in capsys.readouterr().out


def test_usage_has_dockers_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--help"]) == 0
    assert "Usage: pyengine run [OPTIONS] IMAGE [COMMAND] [ARG...]" in capsys.readouterr().out
    assert run(["stop", "--help"]) == 0
    assert "Usage: pyengine stop [OPTIONS] CONTAINER [CONTAINER...]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["container", "ls"], "pyengine container ls [OPTIONS]"),
        (["container", "run"], "pyengine container run [OPTIONS] IMAGE [COMMAND] [ARG...]"),
        (["container", "inspect"], "pyengine container inspect [OPTIONS] CONTAINER [CONTAINER...]"),
        (["image", "list"], "pyengine image list [OPTIONS] [REPOSITORY[:TAG]]"),
        (["image", "rm"], "pyengine image rm [OPTIONS] IMAGE [IMAGE...]"),
        (["system", "info"], "pyengine system info [OPTIONS]"),
    ],
)
def test_commands_have_dockers_long_names(
    capsys: pytest.CaptureFixture[str], words: list[str], usage: str
) -> None:
    assert run([*words, "--help"]) == 0
    assert f"Usage: {usage}\n" in capsys.readouterr().out


def test_a_noun_lists_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["container", "--help"]) == 0
    out = capsys.readouterr().out
    assert "  ls " in out
    assert "List containers" in out
    assert "Display detailed information on one or more containers" in out


def test_a_file_that_is_not_there_starts_no_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DOCKER_HOST", "PYENGINE_MODE", "PYENGINE_INSTANCE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("PYENGINE_HOME", str(home))

    assert run(["load", "-i", f"{tmp_path}/none.tar"]) == 1
    assert run(["run", "--env-file", f"{tmp_path}/none.env", "busybox"]) == 125

    assert "none.tar: no such file or directory" in capsys.readouterr().err
    assert not home.exists()
