"""`pyengine-oci events` and `ps`."""

import json
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.ocibundle import TIMEOUT_S, Bundles

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

MIB = 1 << 20


class Events:
    """The lines of `events`, each with a deadline."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], TIMEOUT_S)[0]
        return dict(json.loads(self.process.stdout.readline()))


@contextmanager
def following(bundles: Bundles, *words: str) -> Iterator[Events]:
    with subprocess.Popen(bundles.argv("events", *words), stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            yield Events(process)
        finally:
            process.kill()


def test_statistics_are_told_once_or_again_and_again(bundles: Bundles) -> None:
    bundles.start("c", resources={"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}})

    once = json.loads(bundles.ok("events", "--stats", "c"))
    assert (once["type"], once["id"]) == ("stats", "c")
    assert once["data"]["pids"] == {"current": 1, "limit": 9}
    assert once["data"]["memory"]["usage"]["limit"] == 64 * MIB
    assert once["data"]["cpu"]["usage"]["total"] > 0

    with following(bundles, "--interval", "20ms", "c") as events:
        first, second = events.next(), events.next()
        assert first["data"]["cpu"]["usage"]["total"] <= second["data"]["cpu"]["usage"]["total"]
        bundles.ok("kill", "c", "KILL")
        assert events.process.wait(TIMEOUT_S) == 0  # it ends with the container


def test_a_want_of_memory_is_told(bundles: Bundles) -> None:
    eat = "read _; dd if=/dev/zero of=/dev/null bs=64M count=1; exec sleep 1000"
    feed = bundles.base / "feed"
    subprocess.run(["mkfifo", str(feed)], check=True)

    def edit(config: dict[str, Any]) -> None:
        config["mounts"].append(
            {"destination": "/tmp", "type": "bind", "source": str(bundles.base), "options": ["bind"]}
        )

    limits = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    bundles.start("c", "sh", "-c", f"exec </tmp/feed; {eat}", resources=limits, edit=edit)

    with following(bundles, "--interval", "50ms", "c") as events:
        assert events.next()["type"] == "stats"  # it listens
        feed.write_text("go\n")
        kinds = set()
        while "oom" not in kinds:
            kinds.add(events.next()["type"])


@pytest.mark.parametrize("interval", ["0", "-1s", "soon"])
def test_an_interval_that_is_none_is_refused(bundles: Bundles, interval: str) -> None:
    bundles.start("c")

    assert bundles.call("events", f"--interval={interval}", "c").returncode == 1


def test_ps_prints_a_table_or_numbers(bundles: Bundles) -> None:
    bundles.start("c", "sh", "-c", "sleep 1000 & wait")
    pid = bundles.state("c")["pid"]

    assert pid in json.loads(bundles.ok("ps", "--format", "json", "c"))
    head, *lines = bundles.ok("ps", "c").splitlines()
    assert head.split()[:3] == ["UID", "PID", "PPID"]
    assert str(pid) in [line.split()[1] for line in lines]
    # With arguments of ps of one's own, as podman and docker top give them.
    assert bundles.ok("ps", "c", "-o", "pid,args").splitlines()[0].split() == ["PID", "COMMAND"]


def test_pause_stops_and_resume_goes_on(bundles: Bundles) -> None:
    bundles.start("c")

    bundles.ok("pause", "c")
    assert bundles.state("c")["status"] == "paused"
    assert "it is paused" in bundles.call("pause", "c").stderr
    bundles.ok("update", "--pids-limit", "20", "c")
    bundles.ok("resume", "c")
    assert bundles.state("c")["status"] == "running"
    assert bundles.call("resume", "c").returncode == 1
