"""A disk that containers have filled: what runs runs on, nothing is lost, and the way out of it works."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pyengined import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox", "docker_cli")

DISK_BYTES = 64 << 20


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine whose root lies on a small disk of its own."""
    disk = Path(tempfile.mkdtemp(prefix="pe-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "small", disk], check=True)
    try:
        made = Engine()
        made.root = disk / "root"
        try:
            made.start()
            yield made
        finally:
            made.close()
    finally:
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()


def _fill(engine: Engine, container: str) -> None:
    full = engine.docker("exec", container, "sh", "-c", "cat /dev/zero > /big")
    assert full.code == 1
    assert "No space left on device" in full.err
    tail = engine.docker("exec", container, "sh", "-c", "cat /dev/zero >> /tail")
    assert tail.code == 1
    assert shutil.disk_usage(engine.root).free < 64 * 1024


def test_containers_can_be_looked_at_ended_and_removed(engine: Engine) -> None:
    engine.output(
        "run",
        "-d",
        "--name",
        "greedy",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 7' TERM; while :; do sleep 1; done",
    )
    engine.output("run", "-d", "--name", "other", "busybox", "sleep", "1000")
    _fill(engine, "greedy")

    assert engine.output("ps", "-q", "--no-trunc").count("\n") == 1
    assert engine.docker("run", "--rm", "busybox", "true").code in {0, 125}
    engine.output("stop", "-t", "20", "greedy")
    state = engine.inspect("greedy")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 7)
    engine.output("kill", "other")
    assert engine.inspect("other")["State"]["ExitCode"] == 137

    engine.output("rm", "greedy")

    assert engine.output("run", "--rm", "busybox", "echo", "again") == "again"


def test_an_engine_starts_on_a_full_disk_and_has_lost_nothing(engine: Engine) -> None:
    engine.output("run", "-d", "--name", "greedy", "busybox", "sleep", "1000")
    assert engine.docker("run", "--name", "ended", "busybox", "sh", "-c", "echo said; exit 3").code == 3
    pid = engine.inspect("greedy")["State"]["Pid"]
    _fill(engine, "greedy")

    engine.kill()
    engine.start()

    assert engine.inspect("greedy")["State"]["Pid"] == pid
    assert engine.inspect("ended")["State"]["ExitCode"] == 3
    assert engine.output("logs", "ended") == "said"
    assert engine.output("images", "--format", "{{.Repository}}") == "busybox"
    engine.output("rm", "-f", "greedy")
    assert engine.docker("start", "-a", "ended").out == "said\n"


def test_an_image_that_does_not_fit_is_refused_and_leaves_nothing(engine: Engine) -> None:
    engine.output("run", "-d", "--name", "greedy", "busybox", "sleep", "1000")
    _fill(engine, "greedy")
    before = sorted(path.name for path in engine.root.rglob("*"))

    loaded = engine.docker("load", stdin=engine.archive.read_bytes())

    assert loaded.code == 0 or "no space left on device" in loaded.err, loaded
    assert sorted(path.name for path in engine.root.rglob("*") if "reserve" not in path.name) == [
        name for name in before if "reserve" not in name
    ]


def test_a_container_that_fills_the_disk_is_removed_as_asked(engine: Engine) -> None:
    filling = engine.docker("run", "--rm", "busybox", "sh", "-c", "head -c 90m /dev/zero > /big; exit 3")

    assert filling.code == 3
    assert engine.output("ps", "-aq") == ""
    assert engine.output("run", "--rm", "busybox", "echo", "again") == "again"


def test_what_does_not_fit_is_named_and_nothing_half_made_stays(engine: Engine) -> None:
    filler = engine.root.parent / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))

    refused = engine.docker("run", "--rm", "busybox", "true")
    assert (refused.code, "no space left on device" in refused.err) == (125, True)

    filler.unlink()
    assert engine.output("ps", "-aq") == ""
    assert engine.output("run", "--rm", "busybox", "echo", "again") == "again"
