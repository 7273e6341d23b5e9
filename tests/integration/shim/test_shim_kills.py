"""SIGKILL of nursery, shim, init or an exec's process at each step: nothing is left, and the next one works.

As in `tests/integration/runtime/test_oci_kills.py`, a step is a system call at whose entry strace ends its
caller. `Lab.close` fails on a process, control group, mount, socket or directory that is left.
"""

import contextlib
from collections.abc import Iterator

import pytest

from engine.base.errors import EngineError, Unavailable
from engine.containers.shim import Shim
from engine.containers.shims import StartFailed
from tests.support.shimlab import Lab, parent_of
from tests.support.tracing import killing

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "strace")

Step = tuple[str, int]
# A shim, from the nursery's fork to its hello; init and nursery make these calls less often, or later.
_SPAWN = [
    ("setsid", 1), ("bind", 1), ("listen", 1), ("mkdir", 1), ("mkdir", 2), ("mkdir", 10), ("socketpair", 1),
    ("clone3", 1), ("rename", 1), ("sendto", 1),
]  # fmt: skip
_INIT = [
    ("sethostname", 1), ("mount_setattr", 1), ("fsopen", 1), ("move_mount", 2), ("mknodat", 1),
    ("pivot_root", 1), ("umount2", 1), ("setgroups", 1), ("setresuid", 1), ("capset", 1),
]  # fmt: skip
_START = [("recvmsg", 2), ("sendto", 1), ("sendto", 2)]
_STARTED = [("execve", 1)]
_EXEC = [
    ("pipe2", 1), ("socketpair", 1), ("setns", 1), ("setns", 2), ("clone3", 1), ("recvmsg", 3), ("sendto", 1),
    ("sendto", 2),
]  # fmt: skip
_EXEC_CHILD = [
    ("setsid", 1), ("setgroups", 1), ("setresuid", 1), ("capset", 1), ("chdir", 1), ("execve", 1),
]  # fmt: skip
_END = [("wait4", 1), ("fsync", 1), ("rename", 1), ("fsync", 2), ("sendto", 1)]


async def works(lab: Lab) -> None:
    assert await lab.run_to_end("echo", "hi") == (0, "hi\n")


async def nursery(lab: Lab) -> int:
    """Return the pid of the nursery, warm."""
    shim = await lab.spawn("true")
    pid = parent_of(shim.shim_pid)
    await shim.delete()
    return pid


@contextlib.contextmanager
def failing() -> Iterator[None]:
    """What was asked may be answered with an error, and need not be."""
    with contextlib.suppress(EngineError):
        yield


def test_a_nursery_that_is_killed_as_it_forks_is_replaced_and_asked_again(lab: Lab) -> None:
    async def story() -> None:
        with killing(await nursery(lab), "clone", 1):
            await works(lab)

    lab.go(story)


@pytest.mark.parametrize("step", _SPAWN + _INIT, ids=str)
def test_whoever_is_killed_while_a_container_is_made_leaves_nothing(lab: Lab, step: Step) -> None:
    async def story() -> None:
        with killing(await nursery(lab), *step, follow=True), failing():
            await (await lab.spawn("sleep", "1000")).delete()
        assert list(lab.run.shims.iterdir()) == []
        await works(lab)

    lab.go(story)


@pytest.mark.parametrize("step", _START, ids=str)
def test_a_shim_that_is_killed_as_it_starts_takes_its_container_along(lab: Lab, step: Step) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        with killing(shim.shim_pid, *step), failing():
            await shim.start()
            await shim.delete()
        assert (await shim.wait()).code == 255
        await shim.delete()
        await works(lab)

    lab.go(story)


@pytest.mark.parametrize("step", _STARTED, ids=str)
def test_an_init_that_is_killed_before_its_program_runs_has_ended(lab: Lab, step: Step) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        with killing(shim.pid, *step), failing():
            await shim.start()
        assert (await shim.wait()).code == 137
        await shim.delete()

    lab.go(story)


async def started(lab: Lab) -> Shim:
    shim = await lab.spawn("sleep", "1000")
    await shim.start()
    return shim


@pytest.mark.parametrize("step", _EXEC, ids=str)
def test_a_shim_that_is_killed_in_an_exec_takes_all_along(lab: Lab, step: Step) -> None:
    async def story() -> None:
        shim = await started(lab)
        with killing(shim.shim_pid, *step), contextlib.suppress(Unavailable):
            client = await lab.exec(shim, "e", "sleep", "1000")
            await client.everything()
            await client.close()
        assert (await shim.wait()).code == 255
        await shim.delete()
        await works(lab)

    lab.go(story)


@pytest.mark.parametrize("step", _EXEC_CHILD, ids=str)
def test_an_exec_that_is_killed_before_its_program_runs_fails_alone(lab: Lab, step: Step) -> None:
    async def story() -> None:
        shim = await started(lab)
        with killing(shim.shim_pid, *step, follow=True), contextlib.suppress(StartFailed):
            await (await lab.exec(shim, "e", "sleep", "1000")).close()
        client = await lab.exec(shim, "next", "echo", "hi")
        assert await client.streams() == (b"hi\n", b"")
        assert (await shim.exec_wait("next")).code == 0
        await client.close()
        await shim.delete()

    lab.go(story)


@pytest.mark.parametrize("step", _END, ids=str)
def test_a_shim_that_is_killed_at_the_containers_end_leaves_its_exit_or_none(lab: Lab, step: Step) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "read x; exit 4", open_stdin=True, stdin_once=True)
        await shim.start()
        client = await lab.attach(shim, stdin=True)
        with killing(shim.shim_pid, *step):
            client.send(b"\n")
            ended = await shim.wait()
        recorded = step not in (("wait4", 1), ("fsync", 1), ("rename", 1))
        assert ended.code == (4 if recorded else 255)
        await client.close()
        await shim.delete()
        assert lab.exit_path(shim).exists() == recorded

    lab.go(story)


def test_a_nursery_that_is_killed_with_an_exec_in_flight_hurts_neither(lab: Lab) -> None:
    async def story() -> None:
        shim = await started(lab)
        client = await lab.exec(shim, "e", "sh", "-c", "cat; exit 3", stdin=True)
        with killing(parent_of(shim.shim_pid), "clone", 1):
            await works(lab)
        client.send(b"still here")
        client.half_close()
        assert await client.streams() == (b"still here", b"")
        assert (await shim.exec_wait("e")).code == 3
        await client.close()
        await shim.delete()

    lab.go(story)
