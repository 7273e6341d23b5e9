"""One container in another's namespaces: IPC with its shared memory, PID; never in those of a stranger."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.containers import joining
from tests.support.engine import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that is of no container: what has got the number of one that has ended."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


def space(pid: int, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def test_ipc_of_another_container_comes_with_its_shared_memory(engine: Engine) -> None:
    first = engine.begin("sleep", "1000", host={"IpcMode": "shareable", "ShmSize": 1 << 20})
    second = engine.begin("sleep", "1000", host={"IpcMode": f"container:{first}"})
    third = engine.begin("sleep", "1000", host={"IpcMode": f"container:{second}", "ReadonlyRootfs": True})

    assert engine.exec(first, "sh", "-c", "echo shared >/dev/shm/file")[0] == 0
    for other in (second, third):
        assert engine.exec(other, "cat", "/dev/shm/file") == (0, "shared\n", "")
        pids = [engine.state(each)["Pid"] for each in (first, other)]
        assert len({space(pid, "ipc") for pid in pids}) == 1
        assert len({space(pid, "mnt") for pid in pids}) == 2
        assert os.statvfs(f"/proc/{pids[1]}/root/dev/shm").f_blocks * 4096 == 1 << 20
    engine.post(f"/containers/{first}/kill")
    engine.wait(first)
    assert engine.exec(second, "cat", "/dev/shm/file") == (0, "shared\n", "")


@pytest.mark.parametrize("mode", ["private", ""])
def test_ipc_that_is_private_is_not_joined(engine: Engine, mode: str) -> None:
    first = engine.begin("sleep", "1000", host={"IpcMode": mode})
    second = engine.create("true", host={"IpcMode": f"container:{first}"})

    answer = engine.call("POST", f"/containers/{second}/start")

    assert answer.status == 409
    assert answer.message.startswith(f"can't join IPC of container {first}: non-shareable IPC (hint: ")


@pytest.mark.parametrize("link", ["/proc", "../etc", "/canary"])
def test_shared_memory_is_not_found_through_a_link(engine: Engine, link: str) -> None:
    """What lies at /dev/shm of the other is the other's choice, if it may mount."""
    first = engine.begin("sleep", "1000", host={"IpcMode": "shareable", "Privileged": True})
    script = f"busybox umount /dev/shm && busybox rmdir /dev/shm && busybox ln -s {link} /dev/shm"
    assert engine.exec(first, "sh", "-c", script) == (0, "", "")
    second = engine.create("true", host={"IpcMode": f"container:{first}"})

    answer = engine.call("POST", f"/containers/{second}/start")

    assert answer.status >= 400
    assert "mount /dev/shm" in answer.message
    assert "too many levels of symbolic links" in answer.message


def test_processes_of_another_container_are_seen_and_can_be_signalled(engine: Engine) -> None:
    first = engine.begin("sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done", "4321")
    second = engine.begin("sleep", "1000", host={"PidMode": f"container:{first}"})

    assert len({space(engine.state(each)["Pid"], "pid") for each in (first, second)}) == 1
    assert engine.exec(second, "cat", "/proc/1/cmdline")[1].endswith("\0004321\0")
    assert engine.exec(second, "kill", "1") == (0, "", "")
    assert engine.wait(first) == 7


@pytest.mark.parametrize("mode", ["PidMode", "IpcMode", "NetworkMode"])
def test_a_container_that_has_ended_is_not_joined(engine: Engine, mode: str) -> None:
    first = engine.begin("true", host={"IpcMode": "shareable"})
    engine.wait(first)
    second = engine.create("true", host={mode: f"container:{first}"})

    answer = engine.call("POST", f"/containers/{second}/start")

    assert answer.status == 409
    assert answer.message.endswith(f"of a non running container: {first}")


def test_a_number_that_is_another_process_by_now_is_not_joined(engine: Engine, stranger: int) -> None:
    first = engine.begin("sleep", "1000")
    pid = engine.state(first)["Pid"]
    group = f"/pyengine/{first}"

    with joining.held(pid, group) as directory:
        assert space(pid, "pid") == os.readlink(f"{directory}/ns/pid")
        engine.post(f"/containers/{first}/kill")
        engine.wait(first)
        with pytest.raises(ProcessLookupError):
            Path(f"{directory}/stat").read_bytes()
    for other in (stranger, os.getpid(), pid):
        with pytest.raises(ProcessLookupError), joining.held(other, group):
            pass


@pytest.mark.requires("runc")
def test_another_runtime_does_not_share_memory(engine: Engine) -> None:
    first = engine.begin("sleep", "1000", host={"IpcMode": "shareable"})

    host = {"Runtime": "runc", "IpcMode": f"container:{first}"}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    answer = engine.call("POST", "/containers/create", body)

    assert answer.status == 501
    assert f"IPC mode container:{first} is not supported with runtime runc" in answer.message
