import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base.errors import AlreadyExists, Conflict, EngineError, InvalidArgument, NotFound
from hostagent.machine import store
from hostagent.machine.model import Accel, Machine
from hostagent.paths import MachinePaths, host_paths


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PYENGINE_HOME", str(tmp_path))
    yield tmp_path
    shutil.rmtree(host_paths().run, ignore_errors=True)  # elsewhere: `tmp_path` is too long


def test_what_was_created_is_loaded_again() -> None:
    made = store.create(Machine("web", cpus=4, memory_mib=512, accel=Accel.TCG))

    assert store.load("web") == made
    assert made.created.endswith("Z")
    assert store.names() == ["web"]


def test_a_taken_name_is_refused_and_the_old_settings_stay() -> None:
    made = store.create(Machine("web", cpus=4))

    with pytest.raises(AlreadyExists, match="machine web already exists"):
        store.create(Machine("web"))
    assert store.load("web") == made


def test_of_many_that_create_one_machine_at_once_one_wins() -> None:
    outcomes: list[str] = []

    def create() -> None:
        try:
            store.create(Machine("web"))
            outcomes.append("made")
        except EngineError:
            outcomes.append("refused")

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["made"] + ["refused"] * 7


def test_a_missing_machine_says_how_to_make_it() -> None:
    with pytest.raises(NotFound, match="no such machine: web") as caught:
        store.load("web")

    assert caught.value.hint == "pyengine machine init web"


def test_a_bad_name_never_becomes_a_path(home: Path) -> None:
    for name in ("../x", "/etc", ""):
        with pytest.raises(InvalidArgument):
            store.load(name)
        with pytest.raises(InvalidArgument):
            store.create(Machine(name))
    assert not (home / "data").exists()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"version": 2}, Conflict, "version 2, this pyengine knows 1"),
        ({"cpus": "many"}, InvalidArgument, "machine.json"),
        ({"cpus": 0}, InvalidArgument, "invalid cpus"),
        ({"name": "other"}, InvalidArgument, "it is for machine other"),
        ({"accel": "warp"}, InvalidArgument, "accel"),
        ({"extra": 1}, InvalidArgument, "extra"),
    ],
)
def test_a_file_that_is_not_what_was_written_is_refused(
    change: dict[str, object], error: type[EngineError], text: str
) -> None:
    store.create(Machine("web"))
    path = MachinePaths("web").settings
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(error, match=text):
        store.load("web")


def test_a_truncated_file_is_refused_by_name() -> None:
    store.create(Machine("web"))
    path = MachinePaths("web").settings
    path.write_bytes(path.read_bytes()[:20])

    with pytest.raises(InvalidArgument, match=r"invalid .*machine\.json"):
        store.load("web")


def test_removing_leaves_nothing_of_the_machine() -> None:
    store.create(Machine("web"))
    MachinePaths("web").data_disk.write_bytes(b"x")

    store.remove("web")

    assert store.names() == []
    assert not MachinePaths("web").directory.exists()
    assert not MachinePaths("web").logs.exists()
    with pytest.raises(NotFound):
        store.remove("web")


def test_a_machine_is_removed_after_the_host_was_booted_again() -> None:
    store.create(Machine("web"))
    shutil.rmtree(MachinePaths("web").run.parent)

    store.remove("web")

    assert store.names() == []


def test_settings_and_directories_are_private() -> None:
    store.create(Machine("web"))
    paths = MachinePaths("web")

    assert paths.settings.stat().st_mode & 0o077 == 0
    for directory in (paths.directory, paths.run, paths.logs):
        assert directory.stat().st_mode & 0o077 == 0
