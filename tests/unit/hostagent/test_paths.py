import os
import re
import stat
from pathlib import Path

import pytest

from engine.base.errors import Denied
from hostagent import paths
from hostagent.paths import MachinePaths

SUN_PATH_MAX = 104
LONGEST_NAME = "n" * paths.NAME_MAX_CHARS


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYENGINE_HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_one_variable_puts_everything_under_one_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENGINE_HOME", "/h")
    machine = MachinePaths("web")

    assert machine.settings == Path("/h/data/machines/web/machine.json")
    assert machine.console_log == Path("/h/state/machines/web/console.log")
    assert machine.docker_socket == Path("/h/run/web/docker.sock")


def test_the_locks_stay_with_the_disk_whatever_the_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = MachinePaths("web")
    monkeypatch.setenv("HOME", str(tmp_path))
    without = (machine.docker_socket, machine.agent_lock, machine.machine_lock)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    assert machine.docker_socket != without[0]
    assert (machine.agent_lock, machine.machine_lock) == without[1:]
    assert machine.machine_lock.parent == machine.data_disk.parent


def test_the_xdg_variables_are_honoured_and_relative_ones_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/u")

    assert paths.host_paths().data == tmp_path / "d" / "pyengine"
    assert paths.host_paths().state == Path("/home/u/.local/state/pyengine")


def test_without_a_runtime_directory_root_uses_run_and_others_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert re.fullmatch("/run/pyengine-machines-[0-9a-f]{8}", str(paths.host_paths().run))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert re.fullmatch("/tmp/pyengine-1000-[0-9a-f]{8}", str(paths.host_paths().run))


@pytest.mark.parametrize("variable", ["HOME", "XDG_DATA_HOME"])
@pytest.mark.parametrize("runtime", [True, False])
def test_two_homes_of_one_user_do_not_share_a_run_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, runtime: bool
) -> None:
    if runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    seen = set()
    for home in ("/one", "/two", "/one"):
        monkeypatch.setenv(variable, home)
        seen.add(paths.host_paths().run)

    assert len(seen) == 2


@pytest.mark.parametrize("home", ["/h", "/a/very" + "/long" * 30 + "/home"])
def test_every_socket_fits_into_an_address(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.setenv("PYENGINE_HOME", home)
    machine = MachinePaths(LONGEST_NAME)

    for path in (machine.docker_socket, machine.agent_socket, machine.qmp_socket, machine.control_socket):
        assert len(os.fsencode(path)) < SUN_PATH_MAX


def test_two_deep_homes_do_not_share_a_run_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for end in ("one", "two"):
        monkeypatch.setenv("PYENGINE_HOME", "/deep" * 30 + end)
        seen.add(paths.host_paths().run)

    assert len(seen) == 2


def test_a_directory_that_others_may_read_is_closed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)

    paths.make_private(tmp_path / "run")

    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Denied, match="not a directory"):
        paths.make_private(tmp_path / "run")


def test_another_users_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    owner = (tmp_path / "run").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(Denied, match=f"owned by user {owner}"):
        paths.make_private(tmp_path / "run")
