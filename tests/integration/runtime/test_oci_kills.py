"""SIGKILL of `pyengine-oci`, or of the process it makes, at each step: `delete --force` leaves nothing.

A step is a system call at whose entry strace ends the process: what was done
before is there, what follows is not. The steps are all those that make, join
or change something, and those that pass words between the two processes; of a
call that is made many times some.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import ocibundle, tracing
from tests.support.ocibundle import Bundles, Config

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "strace")

# The parent, in `create`: directories of state and of control groups, sockets, the child, words, state.json.
_CREATE = [
    ("execveat", 1), ("mkdir", 1), ("mkdir", 2), ("bind", 1), ("mkdir", 3), ("mkdir", 4), ("mkdir", 8),
    ("mkdir", 12), ("socketpair", 1), ("clone3", 1), ("recvmsg", 1), ("rename", 1),
]  # fmt: skip
# Init, in `run`: the parent makes fewer of these calls, or later.
_INIT = [
    ("setsid", 1), ("sethostname", 1), ("mount_setattr", 2), ("open_tree", 2), ("move_mount", 1),
    ("fsopen", 1), ("mkdirat", 1), ("fsmount", 2), ("mknodat", 1), ("symlinkat", 1), ("fsopen", 6),
    ("move_mount", 10), ("open_tree", 12), ("mount_setattr", 12), ("move_mount", 20), ("mkdirat", 8),
    ("pivot_root", 1), ("umount2", 1), ("chdir", 1), ("unshare", 1), ("setgroups", 1), ("setresuid", 1),
    ("capset", 1), ("chdir", 2), ("sendto", 1), ("recvfrom", 1), ("seccomp", 1),
]  # fmt: skip
# The parent, in `start`; and the init that waits for it.
_START = [("connect", 1), ("sendto", 1), ("recvmsg", 1), ("rename", 1), ("unlink", 1)]
_STARTED = [("seccomp", 1), ("execve", 1)]
# The parent, in `exec`, which joins what it can itself; and its child.
_EXEC = [
    ("execveat", 1), ("pidfd_open", 1), ("setns", 1), ("setns", 2), ("clone3", 1), ("recvmsg", 1),
    ("sendto", 1), ("recvmsg", 2), ("wait4", 1),
]  # fmt: skip
_EXEC_CHILD = [
    ("setsid", 1), ("setgroups", 1), ("setresuid", 1), ("capset", 1), ("chdir", 1), ("sendto", 1),
    ("recvfrom", 1), ("seccomp", 1),
]  # fmt: skip
_EXECS = [(step, False) for step in _EXEC] + [(step, True) for step in _EXEC_CHILD]


@pytest.fixture(scope="module")
def lab() -> Iterator[Bundles]:
    """A lab for all steps, with a bundle that has a seccomp filter."""
    for made in ocibundle.bundles():
        made.bundle("c", edit=_filtered)
        yield made


@pytest.fixture
def swept(lab: Bundles) -> Iterator[Bundles]:
    """The lab without a container, before and after."""
    yield lab
    if (lab.root / "c").exists():  # the test has failed; the next one need not
        lab.call("delete", "--force", "c")


def _filtered(config: Config) -> None:
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}],
    }


def nothing_left(bundles: Bundles, name: str) -> None:
    """`list` and `state` can be asked; `delete --force` takes it all away, also a second time."""
    bundles.ok("list")
    bundles.call("state", name)
    bundles.call("kill", "--all", name, "KILL")
    bundles.ok("delete", "--force", name)
    deleted(bundles, name)
    assert bundles.ok("list", "--quiet") == ""


def deleted(bundles: Bundles, name: str) -> None:
    """`delete --force` takes it all away."""
    bundles.ok("delete", "--force", name)
    assert not (bundles.root / name).exists()
    assert [*bundles.groups(), *bundles.mounts(), *bundles.processes()] == []


def killed(
    bundles: Bundles, tmp_path: Path, step: tuple[str, int], *words: str, follow: bool = False
) -> None:
    tracing.run_killed(bundles.argv(*words), *step, tmp_path / "trace", follow=follow)


@pytest.mark.parametrize("step", _CREATE, ids=str)
def test_the_maker_is_killed(swept: Bundles, tmp_path: Path, step: tuple[str, int]) -> None:
    killed(swept, tmp_path, step, "create", "--bundle", f"{swept.base}/c", "c")

    deleted(swept, "c")


@pytest.mark.parametrize("step", _INIT, ids=str)
def test_the_process_that_is_made_is_killed(swept: Bundles, tmp_path: Path, step: tuple[str, int]) -> None:
    words = ("run", "--detach", "--bundle", f"{swept.base}/c", "c")
    killed(swept, tmp_path, step, *words, follow=True)

    deleted(swept, "c")


@pytest.mark.parametrize("step", _START, ids=str)
def test_the_starter_is_killed(swept: Bundles, tmp_path: Path, step: tuple[str, int]) -> None:
    swept.ok("create", "--bundle", f"{swept.base}/c", "c")

    killed(swept, tmp_path, step, "start", "c")

    deleted(swept, "c")


@pytest.mark.parametrize("step", _STARTED, ids=str)
def test_the_process_that_is_started_is_killed(swept: Bundles, step: tuple[str, int]) -> None:
    swept.ok("create", "--bundle", f"{swept.base}/c", "c")

    with tracing.killing(swept.state("c")["pid"], *step):
        swept.call("start", "c")  # says it has: whether killed before or after execve, nobody can tell

    deleted(swept, "c")


@pytest.fixture(scope="module")
def running(lab: Bundles) -> Iterator[tuple[Bundles, int]]:
    """The lab with a container that runs, and the pid of its init."""
    lab.ok("run", "--detach", "--bundle", f"{lab.base}/c", "c")
    yield lab, lab.state("c")["pid"]
    deleted(lab, "c")


@pytest.mark.parametrize(("step", "child"), _EXECS, ids=str)
def test_an_exec_is_killed_and_the_container_runs_on(
    running: tuple[Bundles, int], tmp_path: Path, step: tuple[str, int], child: bool
) -> None:
    lab, init = running

    killed(lab, tmp_path, step, "exec", "c", "true", follow=child)

    lab.ok("exec", "c", "true")
    assert lab.processes() == [init]


def test_the_name_of_a_killed_container_is_free_once_it_is_deleted(bundles: Bundles, tmp_path: Path) -> None:
    bundle = str(bundles.bundle("c"))
    killed(bundles, tmp_path, ("recvmsg", 1), "create", "--bundle", bundle, "c")

    nothing_left(bundles, "c")

    bundles.ok("run", "--bundle", bundle, "--detach", "c")
    assert Path(bundle).is_dir()


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
