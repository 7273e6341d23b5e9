"""A container under a real shim: its start, its end, and all that can go wrong with either."""

import asyncio
import contextlib
import os
import signal
import stat
from pathlib import Path

import pytest

from engine.base.errors import Conflict, InvalidArgument, Unavailable
from engine.containers.logs import read
from engine.containers.shims import Exit, SpawnRequest, StartFailed, read_exit
from tests.support.engine import eventually
from tests.support.shimlab import EACH_RUNTIME, Lab
from tests.support.tracing import watched

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


@EACH_RUNTIME
@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("exit 0", 0, 0), ("exit 3", 3, 0), ("exit 255", 255, 0), ("kill -9 $$; sleep 100", 0, 0)],
)
def test_the_exit_code_is_reported_and_durable(lab: Lab, script: str, code: int, number: int) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", script)
        await shim.start()
        if script.startswith("kill"):  # init is immune to its own signals
            await shim.kill(signal.SIGKILL)
            expected = (137, 9)
        else:
            expected = (code, number)
        ended = await shim.wait()
        assert (ended.code, ended.signal) == expected
        assert read_exit(lab.exit_path(shim)) == ended
        assert not ended.oom_killed
        await shim.delete()
        await shim.delete()  # again is harmless

    lab.go(story)


@EACH_RUNTIME
@pytest.mark.parametrize(
    ("program", "code"),
    [("no-such-program", 127), ("/bin/nowhere", 127), ("/bin/not-a-program", 126), ("/etc", 126)],
)
def test_a_program_that_cannot_run_leaves_nothing(lab: Lab, program: str, code: int) -> None:
    async def story() -> None:
        with pytest.raises(StartFailed) as caught:
            await (await lab.spawn(program)).start()
        assert caught.value.exit_code == code
        assert list(lab.run.shims.iterdir()) == []

    lab.go(story)


def test_a_container_that_cannot_be_created_leaves_nothing(lab: Lab) -> None:
    async def story() -> None:
        lab.rootfs = Path("/nowhere")
        with pytest.raises(StartFailed) as caught:
            await lab.spawn("true")
        assert caught.value.exit_code == 125
        assert list(lab.run.shims.iterdir()) == []

    lab.go(story)


def test_a_bundle_without_config_is_refused_and_removed(lab: Lab) -> None:
    async def story() -> None:
        bundle = lab.run.shim("x").path
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text('{"ociVersion": 7}')
        with pytest.raises(InvalidArgument, match=r"invalid .*config.json"):
            await lab.shims.spawn(
                SpawnRequest(
                    container_id="x", bundle=str(bundle), exit_path=str(lab.base / "e"), log_driver="none"
                )
            )
        assert not bundle.exists()

    lab.go(story)


@EACH_RUNTIME
def test_a_created_container_waits_for_start(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("echo", "ran")
        assert shim.status == "created"
        with pytest.raises(Conflict, match="it is created"):
            await shim.pause()
        assert lab.log_text(shim) == ""
        await shim.start()
        with pytest.raises(Conflict):
            await shim.start()
        await shim.wait()
        assert lab.log_text(shim) == "ran\n"
        with pytest.raises(Conflict):
            await shim.kill(signal.SIGTERM)
        await shim.delete()

    lab.go(story)


@EACH_RUNTIME
def test_delete_ends_what_still_runs(lab: Lab) -> None:
    async def story() -> None:
        created = await lab.spawn("sleep", "1000")
        running = await lab.spawn("sh", "-c", "sleep 1000 & sleep 1000")
        paused = await lab.spawn("sleep", "1000")
        await running.start()
        await paused.start()
        await paused.pause()
        for shim in (created, running, paused):
            await shim.delete()

    lab.go(story)


def test_the_socket_is_roots_alone_and_its_path_may_be_long(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        path = lab.run.shim(shim.container_id).socket
        assert len(str(path)) > 100
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await shim.delete()

    lab.go(story)


@EACH_RUNTIME
def test_pause_stops_the_container_and_resume_lets_it_go_on(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("cat", open_stdin=True, stdin_once=True)
        client = await lab.attach(shim, stdin=True)
        await shim.start()
        await shim.pause()
        client.send(b"while paused")
        client.half_close()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await shim.wait()
        await shim.resume()
        assert (await client.streams())[0] == b"while paused"
        assert (await shim.wait()).code == 0
        await client.close()
        await shim.delete()

    lab.go(story)


def test_sigkill_ends_a_paused_container(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        await shim.pause()
        await shim.kill(signal.SIGKILL)
        assert (await shim.wait()).code == 137
        await shim.delete()

    lab.go(story)


@EACH_RUNTIME
def test_a_kill_for_want_of_memory_is_recorded(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "head -c 200m /dev/zero | tail", memory_bytes=20 << 20)
        await shim.start()
        ended = await shim.wait()
        assert ended.oom_killed
        assert read_exit(lab.exit_path(shim)) == ended
        await shim.delete()

    lab.go(story)


def test_without_a_pid_namespace_of_its_own_nothing_survives_init(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "trap '' HUP; sleep 1000 & echo $!", host_pids=True)
        await shim.start()
        await shim.wait()
        assert not is_running(int(lab.log_text(shim)))
        await shim.delete()

    lab.go(story)


@EACH_RUNTIME
def test_the_daemon_ends_and_the_next_one_adopts(lab: Lab) -> None:
    async def story() -> None:
        before = await lab.spawn("sh", "-c", "cat; exit 7", open_stdin=True, stdin_once=True)
        client = await lab.attach(before, stdin=True)
        await before.start()
        waiting = asyncio.ensure_future(before.wait())
        await asyncio.sleep(0)
        await lab.restart()
        with pytest.raises(Unavailable):
            await waiting

        after = await lab.shims.adopt(before.container_id, exit_path=lab.exit_path(before))

        assert after is not None
        assert (after.pid, after.shim_pid, after.status) == (before.pid, before.shim_pid, "running")
        client.send(b"still attached")
        client.half_close()
        assert (await client.streams())[0] == b"still attached"
        assert (await after.wait()).code == 7
        await client.close()
        await after.delete()

    lab.go(story)


@EACH_RUNTIME
def test_a_created_container_can_be_adopted_and_started(lab: Lab) -> None:
    async def story() -> None:
        before = await lab.spawn("echo", "hello")
        await lab.restart()
        after = await lab.shims.adopt(before.container_id, exit_path=lab.exit_path(before))
        assert after is not None
        assert after.status == "created"
        await after.start()
        assert (await after.wait()).code == 0
        await after.delete()

    lab.go(story)


def test_orphans_of_a_container_are_the_shims_and_reaped(lab: Lab) -> None:
    script = "sh -c \"sh -c 'echo \\$\\$; exec sleep 1000' &\"; read x"

    async def story() -> None:
        shim = await lab.spawn("sh", "-c", script, host_pids=True, open_stdin=True)
        await shim.start()
        lines = read(lab.root.container(shim.container_id).log, follow=True, ended=shim.wait())
        orphan = int((await anext(lines)).text)
        await lines.aclose()
        await asyncio.to_thread(eventually, lambda: parent_of(orphan) == shim.shim_pid, "it is the shim's")
        os.kill(orphan, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: not is_there(orphan), "it is reaped")
        await shim.delete()

    lab.go(story)


@pytest.mark.requires("strace")
def test_the_exit_is_on_disk_before_anything_of_the_container_is_closed(lab: Lab, tmp_path: Path) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "read x; exit 4", open_stdin=True, stdin_once=True)
        client = await lab.attach(shim, stdin=True)
        await shim.start()
        with watched(shim.shim_pid, "fsync,rename,shutdown,sendto", tmp_path / "trace"):
            client.send(b"\n")
            assert (await shim.wait()).code == 4
            await client.everything()
        await client.close()
        await shim.delete()

    lab.go(story)
    lines = (tmp_path / "trace").read_text().splitlines()
    lines = [line for line in lines if "(" in line]  # no signals
    calls = [line.split("(")[0] for line in lines]
    assert calls[:3] == ["fsync", "rename", "fsync"]
    assert {"shutdown", "sendto"} <= set(calls[3:])
    assert ".exit.json.new" in lines[0]


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def gone(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    async with asyncio.timeout(20):
        await ended.wait()
    loop.remove_reader(pidfd)
    os.close(pidfd)


@EACH_RUNTIME
def test_an_exit_while_no_daemon_lives_is_kept(lab: Lab) -> None:
    async def story() -> None:
        before = await lab.spawn("sh", "-c", "echo last words; exit 9")
        await before.start()
        await lab.restart()
        await gone(before.shim_pid)  # it has nobody to wait for

        assert await lab.shims.adopt(before.container_id, exit_path=lab.exit_path(before)) is None
        kept = read_exit(lab.exit_path(before))
        assert kept is not None
        assert kept.code == 9
        assert lab.log_text(before) == "last words\n"

    lab.go(story)


@EACH_RUNTIME
def test_a_killed_shim_takes_its_container_with_it(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        os.kill(shim.shim_pid, signal.SIGKILL)
        ended = await shim.wait()
        assert (ended.code, ended.error) == (255, "exit status lost: shim lost")
        await gone(shim.pid)
        await shim.delete()

    lab.go(story)


def test_a_killed_shim_leaves_the_exit_that_it_had_recorded(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        recorded = Exit(code=5, finished_at_ns=1)
        lab.exit_path(shim).write_bytes(b'{"code":5,"finished_at_ns":1}')
        os.kill(shim.shim_pid, signal.SIGKILL)
        assert await shim.wait() == recorded
        await shim.delete()

    lab.go(story)


def test_shim_and_daemon_killed_together_leave_nothing_after_adopt(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        await lab.shims.close()
        os.kill(shim.shim_pid, signal.SIGKILL)
        await gone(shim.shim_pid)
        await lab.restart()
        assert await lab.shims.adopt(shim.container_id, exit_path=lab.exit_path(shim)) is None
        await gone(shim.pid)
        assert not lab.exit_path(shim).exists()

    lab.go(story)


def test_a_killed_nursery_is_replaced_and_containers_live_on(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        parent = parent_of(shim.shim_pid)
        os.kill(parent, signal.SIGKILL)
        await gone(parent)
        code, _ = await lab.run_to_end("true")
        assert code == 0
        await shim.kill(signal.SIGKILL)
        assert (await shim.wait()).code == 137
        await shim.delete()

    lab.go(story)


def test_a_cancelled_spawn_leaves_nothing(lab: Lab) -> None:
    async def story() -> None:
        await lab.run_to_end("true")
        for delay_s in (0.0, 0.001, 0.003, 0.006, 0.01):
            task = asyncio.ensure_future(lab.spawn("sleep", "1000"))
            await asyncio.sleep(delay_s)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await task).delete()
            assert list(lab.run.shims.iterdir()) == []

    lab.go(story)


def test_thirty_containers_at_once_keep_their_codes(lab: Lab) -> None:
    async def story() -> None:
        got = await asyncio.gather(*(lab.run_to_end("sh", "-c", f"echo {n}; exit {n}") for n in range(30)))
        assert got == [(n, f"{n}\n") for n in range(30)]

    lab.go(story)


def test_a_restarted_container_does_not_show_its_former_exit(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "exit 4")
        await shim.start()
        await shim.wait()
        await shim.delete()
        assert lab.exit_path(shim).exists()
        again = await lab.spawn("sleep", "1000", container_id=shim.container_id)
        assert not lab.exit_path(shim).exists()
        await again.delete()

    lab.go(story)


def test_spans_come_back_when_asked_for(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("true", trace=True)
        layers = {span.layer for span in shim.spans}
        assert {"nursery", "shim", "runtime"} <= layers
        assert all(span.duration_ns >= 0 for span in shim.spans)
        await shim.delete()
        quiet = await lab.spawn("true")
        assert quiet.spans == ()
        await quiet.delete()

    lab.go(story)
