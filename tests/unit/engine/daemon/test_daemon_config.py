import tomllib
from pathlib import Path

import pytest

from engine.base.errors import InvalidArgument
from engine.base.version import VERSION
from engine.containers.security import Mode
from engine.daemon import config, main

_PROJECT = Path(__file__).parents[4] / "pyproject.toml"


def test_without_flags_the_engine_is_the_machine_s_own() -> None:
    chosen = config.parse([])

    assert (str(chosen.root), str(chosen.run)) == ("/var/lib/pyengine", "/run/pyengine")
    assert str(chosen.host) == "/run/pyengine/pyengine.sock"
    assert chosen.bridge == "pyengine0"
    assert chosen.mode is Mode.STRICT


def test_flags_are_taken_in_both_forms() -> None:
    chosen = config.parse(
        [
            "--root",
            "/r",
            "--run=/x",
            "--host",
            "unix:///s",
            "--security",
            "compat",
            "--ready-fd=5",
            "--isolate-host",
        ]
    )

    assert (chosen.root, chosen.run, chosen.host) == (Path("/r"), Path("/x"), Path("/s"))
    assert (chosen.mode, chosen.ready_fd, chosen.isolate_host) == (Mode.COMPAT, 5, True)


def test_engines_side_by_side_have_bridges_of_their_own() -> None:
    one, other = config.parse(["--root", "/one"]).bridge, config.parse(["--root", "/other"]).bridge

    assert len({one, other, "pyengine0"}) == 3
    assert max(len(one), len(other)) <= 15
    assert config.parse(["--root", "/one", "--bridge", "br7"]).bridge == "br7"


def test_the_socket_lies_in_the_run_directory_unless_told_otherwise() -> None:
    assert config.parse(["--run", "/x"]).host == Path("/x/pyengine.sock")
    assert config.parse(["--host", "/plain/path"]).host == Path("/plain/path")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--nothing"], "option --nothing not recognized"),
        (["--root"], "option --root requires argument"),
        (["--root", ""], "--root: a directory is needed"),
        (["extra"], "unexpected argument: extra"),
        (["--host", "tcp://127.0.0.1:2375"], "invalid --host"),
        (["--host", "unix://relative"], "invalid --host"),
        (["--host", "/" + "x" * 107], "longer than the 107 bytes"),
        (["--run", "/" + "x" * 60], "longer than 60 characters"),
        (["--security", "none"], "invalid --security 'none'"),
        (["--log-level", "loud"], "invalid --log-level 'loud'"),
        (["--ready-fd", "-1"], "invalid --ready-fd"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidArgument, match=error):
        config.parse(arguments)

    assert main.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("pyengined: ")
    assert said.count("\n") == 1


def test_a_host_s_path_may_have_107_bytes() -> None:
    assert len(str(config.parse(["--host", "/" + "x" * 106]).host)) == 107


def test_help_names_every_flag_and_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in (*config._VALUES, *config._SWITCHES):
        assert f"--{name}" in text
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pyengined {VERSION}\n"
    assert tomllib.loads(_PROJECT.read_text())["project"]["version"] == VERSION
