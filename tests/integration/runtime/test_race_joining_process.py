"""What comes into a container shows nothing of the outside while it does, and runs nothing of the image.

CVE-2016-9962: a process that joined was traced, and what it had open was taken, before it became the program.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.kernel.process import pidfd_open
from tests.support.attacker import install_attacker
from tests.support.shimlab import Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "compiler")

_TIMEOUT_S = 60.0
_ROUNDS = 200
# Joins with all it has, an open directory and its environment, without capabilities: readable, as not sealed.
_NAIVE = """
import os, sys
from engine.kernel.capabilities import capset
from engine.kernel.process import CloneFlag, clone3, setns
os.open("/root", os.O_RDONLY | os.O_DIRECTORY)
setns(int(sys.argv[1]), CloneFlag.NEWPID)
pid, _ = clone3()
if pid == 0:
    setns(int(sys.argv[1]), CloneFlag.NEWNS)
    capset(0, 0, 0)
    sys.stdin.read()
    os._exit(0)
os.waitpid(pid, 0)
"""


@pytest.fixture
def found(lab: Lab) -> Iterator[int]:
    """A descriptor from which comes what the attacker has found."""
    place = lab.rootfs / "found"
    os.mkfifo(place)
    fd = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def waits(fd: int, timeout_s: float) -> bool:
    return bool(select.select([fd], [], [], timeout_s)[0])


def test_two_hundred_processes_come_in_and_show_nothing(
    lab: Lab, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTSIDE", "secret")
    install_attacker(lab.rootfs / "bin/attacker")

    async def story() -> None:
        shim = await lab.spawn("attacker", "scan")
        client = await lab.attach(shim, framed=False)
        await shim.start()
        assert await client.until(b"ready\n")
        await client.close()
        for number in range(_ROUNDS):
            await shim.exec_start(f"e{number}", lab.process("true"))
            assert (await shim.exec_wait(f"e{number}")).code == 0
        await shim.delete()

    lab.go(story)
    assert not waits(found, 0), os.read(found, 4096)


def test_a_process_that_comes_in_unprotected_shows_all(
    lab: Lab, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setenv("OUTSIDE", "secret")
    install_attacker(lab.rootfs / "bin/attacker")
    seen: set[bytes] = set()

    async def story() -> None:
        shim = await lab.spawn("attacker", "scan")
        client = await lab.attach(shim, framed=False)
        await shim.start()
        assert await client.until(b"ready\n")
        await client.close()
        pidfd = pidfd_open(shim.pid)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        argv = [sys.executable, "-c", _NAIVE, str(pidfd)]
        with subprocess.Popen(  # noqa: ASYNC220 (nothing else waits here)
            argv, stdin=subprocess.PIPE, pass_fds=[pidfd], env=environment, cwd=Path("/root")
        ) as naive:
            while not {b"fd", b"exe", b"environ"} <= seen and waits(found, _TIMEOUT_S):
                seen.update(os.read(found, 4096).split())
            assert naive.stdin is not None
            naive.stdin.close()
            naive.wait(_TIMEOUT_S)
        os.close(pidfd)
        await shim.delete()

    lab.go(story)
    assert {b"fd", b"exe", b"environ"} <= seen
