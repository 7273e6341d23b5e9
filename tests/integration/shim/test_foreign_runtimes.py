"""Containers of runc and crun under our shim: what a user sees is what the built-in runtime gives."""

import os
import platform
import shutil
import signal
from collections.abc import Iterator

import msgspec
import pytest

from engine.base.errors import Conflict
from engine.containers.shims import StartFailed, read_exit
from engine.containers.syscalls import default_profile
from engine.spec.runtime import Spec
from tests.support.attacker import install_attacker
from tests.support.shimlab import Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


@pytest.fixture(params=["", "runc", "crun"], ids=["built-in", "runc", "crun"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    program = shutil.which(request.param) if request.param else ""
    if program is None:
        pytest.skip(f"this machine lacks: {request.param}")
    made = Lab(program)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("echo out; echo err >&2; exit 255", 255)]
)
def test_exit_code_and_log_are_the_containers(lab: Lab, script: str, code: int) -> None:
    async def story() -> None:
        got, text = await lab.run_to_end("sh", "-c", script)
        assert got == code
        assert sorted(text.splitlines()) == (["err", "out"] if "out" in script else [])

    lab.go(story)


@pytest.mark.parametrize(
    ("program", "code"), [("no-such-program", 127), ("/bin/nowhere", 127), ("/bin/not-a-program", 126)]
)
def test_a_program_that_cannot_run_leaves_nothing(lab: Lab, program: str, code: int) -> None:
    async def story() -> None:
        with pytest.raises(StartFailed) as caught:
            await (await lab.spawn(program)).start()
        assert caught.value.exit_code == code
        assert list(lab.run.shims.iterdir()) == []

    lab.go(story)


def test_a_created_container_waits_for_start_and_is_killed_by_a_signal(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        assert os.readlink(f"/proc/{shim.pid}/root/bin/sleep") == "busybox"
        await shim.kill(signal.SIGKILL)
        ended = await shim.wait()
        assert (ended.code, ended.signal) == (137, 9)
        assert read_exit(lab.exit_path(shim)) == ended
        await shim.delete()

    lab.go(story)


def test_delete_ends_what_still_runs(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        await shim.delete()

    lab.go(story)


def test_pause_stops_and_resume_lets_go_on(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("cat", open_stdin=True, stdin_once=True)
        client = await lab.attach(shim, stdin=True, framed=False)
        await shim.start()
        await shim.pause()
        with pytest.raises(Conflict):
            await shim.pause()
        await shim.resume()
        client.send(b"on\n")
        client.half_close()
        assert await client.everything() == b"on\n"
        assert (await shim.wait()).code == 0
        await client.close()
        await shim.delete()

    lab.go(story)


def test_an_exec_process_has_streams_and_an_exit_code_of_its_own(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        client = await lab.exec(shim, "one", "sh", "-c", "echo out; echo err >&2; exit 7")
        assert await client.streams() == (b"out\n", b"err\n")
        assert (await shim.exec_wait("one")).code == 7
        await client.close()
        await shim.delete()

    lab.go(story)


def test_a_terminal_has_a_size_and_takes_another(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "read x; stty size", terminal=True, tty_size=(100, 30))
        client = await lab.attach(shim, stdin=True, framed=False)
        await shim.start()
        await shim.resize(90, 20)
        client.send(b"\n")
        assert b"20 90" in await client.everything()
        await shim.wait()
        await client.close()
        await shim.delete()

    lab.go(story)


def test_a_kill_for_want_of_memory_is_recorded(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "tail /dev/zero", memory_bytes=16 << 20)
        await shim.start()
        ended = await shim.wait()
        assert ended.oom_killed
        await shim.delete()

    lab.go(story)


def test_the_next_daemon_adopts(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "read x; exit 4", open_stdin=True, stdin_once=True)
        await shim.start()
        await lab.restart()
        again = await lab.shims.adopt(shim.container_id, exit_path=lab.exit_path(shim))
        assert again is not None
        assert again.pid == shim.pid
        client = await lab.attach(again, stdin=True)
        client.send(b"\n")
        assert (await again.wait()).code == 4
        await client.close()
        await again.delete()

    lab.go(story)


def test_a_killed_shim_takes_its_container_with_it(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        os.kill(shim.shim_pid, signal.SIGKILL)
        assert (await shim.wait()).code == 255
        await shim.delete()

    lab.go(story)


@pytest.mark.requires("compiler")
def test_characters_are_kept_out_of_terminals(lab: Lab) -> None:
    """Whatever the upper half of the request, at which the kernel does not look."""
    install_attacker(lab.rootfs / "bin/attacker")

    def edit(spec: Spec) -> Spec:
        profile = default_profile((), platform.machine())
        return msgspec.structs.replace(spec, linux=msgspec.structs.replace(spec.linux, seccomp=profile))

    async def story() -> None:
        assert await lab.run_to_end("attacker", "terminal", edit=edit) == (0, "ENOTTY\n" + "EPERM\n" * 4)
        assert await lab.run_to_end("attacker", "terminal") == (0, "ENOTTY\n" * 5)  # the control

    lab.go(story)
