"""SIGKILL of `pyengine-oci`, or of the process it makes, at each step: `delete --force` leaves nothing.

A step is a system call at which strace ends the process: what was done before is there, what follows is not.
"""

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.ocibundle import TIMEOUT_S, Bundles

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "strace")

# (calls that end whoever makes them, at which of them)
_PARENT = [
    ("mkdir", 1), ("mkdir", 2), ("mkdir", 4), ("mkdir", 8),
    ("clone3", 1), ("rename", 1), ("sendto", 1), ("recvmsg", 1),
]  # fmt: skip
_CHILD = ["setsid", "fsmount", "move_mount", "pivot_root", "umount2", "capset"]


def traced(bundles: Bundles, inject: str, *words: str, follow: bool) -> None:
    """Run the runtime with a fault; what it says and how it ends is of no matter."""
    argv = ["strace", *(["-f"] if follow else []), "-o", "/dev/null", "-e", f"inject={inject}"]
    with subprocess.Popen(
        [*argv, *bundles.argv(*words)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            process.wait(TIMEOUT_S)
        finally:
            process.kill()


def nothing_left(bundles: Bundles, name: str) -> None:
    """`list` and `state` can be asked; `delete --force` takes it all away, also a second time."""
    bundles.ok("list")
    bundles.call("state", name)
    bundles.call("kill", "--all", name, "KILL")
    bundles.ok("delete", "--force", name)
    bundles.ok("delete", "--force", name)
    assert bundles.ok("list", "--quiet") == ""
    assert [*bundles.groups(), *bundles.mounts(), *bundles.processes()] == []


@pytest.mark.parametrize(("call", "nth"), _PARENT)
def test_the_maker_is_killed(bundles: Bundles, call: str, nth: int) -> None:
    bundle = str(bundles.bundle("c"))

    traced(bundles, f"{call}:signal=SIGKILL:when={nth}", "create", "--bundle", bundle, "c", follow=False)

    nothing_left(bundles, "c")
    bundles.ok("run", "--bundle", bundle, "--detach", "c")  # the name and the control group are free again


@pytest.mark.parametrize("call", _CHILD)
def test_the_process_that_is_made_is_killed(bundles: Bundles, call: str) -> None:
    bundle = str(bundles.bundle("c"))

    inject = f"{call}:signal=SIGKILL:when=1"  # of these calls the parent makes none
    traced(bundles, inject, "run", "--detach", "--bundle", bundle, "c", follow=True)

    nothing_left(bundles, "c")


def test_a_container_with_processes_of_their_own_sessions_is_killed_whole(bundles: Bundles) -> None:
    bundles.start("c", "sh", "-c", "for n in 1 2 3; do setsid sleep 1000 & done; wait")

    bundles.ok("kill", "--all", "c", "KILL")

    bundles.ended("c")
    bundles.ok("delete", "c")
    assert bundles.processes() == []


def test_who_outlives_init_in_the_hosts_pid_namespace_is_reached_by_kill_all(bundles: Bundles) -> None:
    def share(config: dict[str, Any]) -> None:
        spaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]

    bundles.start("c", "sh", "-c", "setsid sleep 1000 & exit 3", edit=share)
    bundles.ended("c")
    assert len(bundles.file("c", "pids", "cgroup.procs").split()) == 1

    bundles.ok("kill", "--all", "c", "KILL")

    bundles.ok("delete", "c")
    assert bundles.processes() == []


def test_a_paused_container_is_deleted(bundles: Bundles) -> None:
    bundles.start("c")
    bundles.ok("pause", "c")

    nothing_left(bundles, "c")


def test_an_init_that_was_killed_from_outside_leaves_a_stopped_container(bundles: Bundles) -> None:
    bundles.start("c", "sh", "-c", "setsid sleep 1000 & wait")
    with contextlib.suppress(ProcessLookupError):
        os.kill(bundles.state("c")["pid"], signal.SIGKILL)

    bundles.ended("c")
    assert [found["status"] for found in json.loads(bundles.ok("list", "--format", "json"))] == ["stopped"]
    bundles.ok("delete", "c")
    nothing_left(bundles, "c")


def test_a_start_that_was_killed_can_be_deleted(bundles: Bundles) -> None:
    bundle = str(bundles.bundle("c"))
    bundles.ok("create", "--bundle", bundle, "c")

    traced(bundles, "recvfrom:signal=SIGKILL:when=1", "start", "c", follow=False)

    nothing_left(bundles, "c")
    assert Path(bundle).is_dir()
