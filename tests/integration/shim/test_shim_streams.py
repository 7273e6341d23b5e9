"""What goes into and out of a container: attached clients, terminals, exec processes, the log."""

import asyncio
import hashlib
import os
import signal
import socket
from pathlib import Path

import pytest

from engine.base.errors import Conflict, InvalidArgument, NotFound
from engine.containers.logs import read
from engine.containers.shims import StartFailed
from tests.support.shimlab import EACH_RUNTIME, TIMEOUT_S, Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


@EACH_RUNTIME
def test_both_streams_are_framed_and_logged(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "echo out; echo err >&2; echo -n end")
        client = await lab.attach(shim, greeting=b"HTTP/1.1 101 UPGRADED\r\n\r\n")
        await shim.start()
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 101 UPGRADED\r\n\r\n"
        assert await client.streams() == (b"out\nend", b"err\n")
        await shim.wait()
        assert sorted(lab.log_text(shim).splitlines()) == ["end", "err", "out"]
        await client.close()
        await shim.delete()

    lab.go(story)


def test_each_client_gets_the_streams_it_asked_for(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "echo out; echo err >&2")
        clients = [
            await lab.attach(shim),
            await lab.attach(shim, stderr=False),
            await lab.attach(shim, stdout=False),
            await lab.attach(shim, stdout=False, framed=False),
        ]
        await shim.start()
        got = [await client.everything() for client in clients]
        assert got[1] == b"\x01\0\0\0\0\0\0\x04out\n"
        assert got[2] == b"\x02\0\0\0\0\0\0\x04err\n"
        assert got[3] == b"err\n"
        assert sorted(got[0]) == sorted(got[1] + got[2])
        for client in clients:
            await client.close()
        await shim.delete()

    lab.go(story)


def test_the_exit_is_durable_before_the_client_sees_the_end(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "echo x; exit 6")
        client = await lab.attach(shim)
        await shim.start()
        await client.everything()
        assert b'"code":6' in lab.exit_path(shim).read_bytes()
        assert lab.log_text(shim) == "x\n"
        await client.close()
        await shim.delete()

    lab.go(story)


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_the_end_of_input_reaches_the_process(lab: Lab, size: int) -> None:
    async def story() -> None:
        data = os.urandom(size)
        shim = await lab.spawn("cat", open_stdin=True, stdin_once=True, log_driver="none")
        client = await lab.attach(shim, stdin=True, prefix=data[:10])
        await shim.start()
        reading = asyncio.ensure_future(client.streams())
        client.send(data[10:])
        client.half_close()
        assert (await reading)[0] == data
        assert (await shim.wait()).code == 0
        await client.close()
        await shim.delete()

    lab.go(story)


def test_without_stdin_once_the_input_stays_open(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("cat", open_stdin=True)
        await shim.start()
        for text in (b"first", b"second"):
            client = await lab.attach(shim, stdin=True)
            client.send(text)
            assert await client.until(text)
            client.half_close()
            await client.close()
        await shim.kill(signal.SIGKILL)
        assert (await shim.wait()).code == 137
        await shim.delete()

    lab.go(story)


def test_without_stdin_the_process_reads_the_end_at_once(lab: Lab) -> None:
    async def story() -> None:
        assert await lab.run_to_end("wc", "-c") == (0, "0\n")

    lab.go(story)


def test_unread_input_at_the_end_is_no_error_for_the_client(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("echo", "done", open_stdin=True, stdin_once=True)
        client = await lab.attach(shim, stdin=True)
        client.send(b"x" * 500_000)
        await shim.start()
        assert await client.streams() == (b"done\n", b"")
        await client.close()
        await shim.delete()

    lab.go(story)


def test_fifty_megabytes_arrive_whole_at_client_and_log(lab: Lab) -> None:
    size = 50 << 20

    async def story() -> None:
        shim = await lab.spawn("sh", "-c", f"head -c {size} /dev/zero | tr '\\0' 'x' | fold -w 127")
        client = await lab.attach(shim)
        await shim.start()
        out, _ = await client.streams()
        assert (await shim.wait()).code == 0
        logged = hashlib.sha256(lab.log_text(shim).encode()).digest()
        assert out.count(b"x") == size
        assert hashlib.sha256(out).digest() == logged
        await client.close()
        await shim.delete()

    lab.go(story)


def test_a_slow_client_holds_the_container_and_a_gone_one_does_not(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "yes | head -c 8000000", log_driver="none")
        ours, theirs = socket.socketpair()
        with theirs:
            await shim.attach(theirs, stdin=False, stdout=True, stderr=True, framed=True)
        other = await lab.attach(shim)
        await shim.start()
        reading = asyncio.ensure_future(other.streams())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await shim.wait()
        assert not reading.done()
        ours.close()  # never read a byte
        assert len((await reading)[0]) == 8_000_000
        assert (await shim.wait()).code == 0
        await other.close()
        await shim.delete()

    lab.go(story)


def test_a_client_that_never_reads_does_not_hide_the_end(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "yes | head -c 3000000", log_driver="none")
        ours, theirs = socket.socketpair()
        with theirs:
            await shim.attach(theirs, stdin=False, stdout=True, stderr=True, framed=True)
        await shim.start()
        await shim.kill(signal.SIGKILL)
        assert (await shim.wait()).code == 137
        ours.close()
        await shim.delete()

    lab.go(story)


def test_many_clients_come_and_go_without_a_leak(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("cat", open_stdin=True)
        await shim.start()
        fds = Path(f"/proc/{shim.shim_pid}/fd")
        client = await lab.attach(shim, stdin=True)
        before = len(os.listdir(fds))
        for _ in range(200):
            other = await lab.attach(shim, stdin=True)
            await other.close()
        client.send(b"still here\n")
        await client.until(b"here\n")
        assert len(os.listdir(fds)) == before
        await client.close()
        await shim.delete()

    lab.go(story)


@EACH_RUNTIME
def test_a_terminal_has_a_size_and_takes_another(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", terminal=True, open_stdin=True, tty_size=(77, 33))
        client = await lab.attach(shim, stdin=True, framed=False)
        await shim.start()
        client.send(b"stty size\n")
        await client.until(b"33 77\r\n")
        await shim.resize(101, 44)
        client.send(b"stty size; exit 3\n")
        assert b"44 101\r\n" in await client.everything()
        assert (await shim.wait()).code == 3
        assert "44 101\r\n" in lab.log_text(shim)
        await client.close()
        await shim.delete()

    lab.go(story)


def test_without_a_terminal_there_is_nothing_to_resize(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        with pytest.raises(Conflict, match="no terminal"):
            await shim.resize(1, 1)
        await shim.delete()

    lab.go(story)


@pytest.mark.parametrize("size", [(65536, 1), (1, 70000), (-1, 5)])
def test_an_absurd_size_of_a_terminal_is_refused_and_leaves_nothing(lab: Lab, size: tuple[int, int]) -> None:
    async def story() -> None:
        with pytest.raises(InvalidArgument, match="invalid terminal size"):
            await lab.spawn("sleep", "1000", terminal=True, tty_size=size)
        shim = await lab.spawn("sh", terminal=True, open_stdin=True)
        await shim.start()
        fds = len(os.listdir(f"/proc/{shim.shim_pid}/fd"))
        with pytest.raises(InvalidArgument, match="invalid terminal size"):
            await shim.resize(*size)
        with pytest.raises(InvalidArgument, match="invalid terminal size"):
            await lab.exec(shim, "e", "sleep", "1001", terminal=True, tty_size=size)
        client = await lab.exec(shim, "f", "ps", framed=False)
        assert b"1001" not in await client.everything()
        await client.close()
        await shim.exec_wait("f")
        assert len(os.listdir(f"/proc/{shim.shim_pid}/fd")) == fds
        await shim.delete()

    lab.go(story)


def test_detach_keys_close_the_client_and_leave_the_container(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", terminal=True, open_stdin=True)
        client = await lab.attach(shim, stdin=True, framed=False)
        await shim.start()
        client.send(b"echo on\n\x10")
        await client.until(b"on\r\n")
        client.send(b"\x11")
        await client.everything()  # its end
        await client.close()
        again = await lab.attach(shim, stdin=True, framed=False, detach_keys=b"")
        again.send(b"exit 8\n")
        assert (await shim.wait()).code == 8
        await again.close()
        await shim.delete()

    lab.go(story)


@EACH_RUNTIME
def test_an_exec_process_has_streams_and_an_exit_code_of_its_own(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        client = await lab.exec(shim, "e", "sh", "-c", "cat; echo err >&2; exit 4", stdin=True, prefix=b"in")
        client.send(b"put")
        client.half_close()
        assert await client.streams() == (b"input", b"err\n")
        assert (await shim.exec_wait("e")).code == 4
        assert lab.log_text(shim) == ""
        await client.close()
        with pytest.raises(NotFound):
            await shim.exec_wait("other")
        with pytest.raises(Conflict, match="already"):
            await shim.exec_start("e", lab.process("true"))
        await shim.delete()

    lab.go(story)


def test_an_exec_process_sees_the_containers_world(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        client = await lab.exec(
            shim, "e", "sh", "-c", "ps | grep -c 'sleep 1000$'; cat /proc/sys/kernel/hostname"
        )
        assert await client.streams() == (b"1\nlab\n", b"")
        await client.close()
        await shim.delete()

    lab.go(story)


def test_an_exec_process_without_client_runs_to_its_end(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        await shim.exec_start("e", lab.process("sh", "-c", "cat; echo nobody hears; exit 2"))
        assert (await shim.exec_wait("e")).code == 2
        await shim.delete()

    lab.go(story)


@EACH_RUNTIME
@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/bin/not-a-program", 126)])
def test_an_exec_that_cannot_run_says_why_and_hurts_nobody(lab: Lab, program: str, code: int) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        fds = len(os.listdir(f"/proc/{shim.shim_pid}/fd"))
        for number in range(3):
            with pytest.raises(StartFailed) as caught:
                await lab.exec(shim, f"e{number}", program)
            assert caught.value.exit_code == code
        assert len(os.listdir(f"/proc/{shim.shim_pid}/fd")) == fds
        await shim.delete()

    lab.go(story)


def test_an_exec_with_a_terminal_is_resized_and_killed_alone(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        client = await lab.exec(shim, "e", "sh", terminal=True, stdin=True, framed=False, tty_size=(90, 30))
        client.send(b"stty size\n")
        await client.until(b"30 90\r\n")
        await shim.resize(120, 40, exec_id="e")
        client.send(b"stty size\n")
        await client.until(b"40 120\r\n")
        await shim.kill(signal.SIGKILL, exec_id="e")
        assert (await shim.exec_wait("e")).code == 137
        await client.everything()
        await client.close()
        await shim.kill(signal.SIGKILL)
        assert (await shim.wait()).code == 137
        await shim.delete()

    lab.go(story)


def test_an_exec_ends_with_its_container(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        client = await lab.exec(shim, "e", "sleep", "1000")
        await shim.kill(signal.SIGKILL)
        assert (await shim.wait()).code == 137
        assert (await shim.exec_wait("e")).code == 137
        assert await client.streams() == (b"", b"")
        await client.close()
        with pytest.raises(Conflict, match="exited"):
            await shim.exec_start("f", lab.process("true"))
        await shim.delete()

    lab.go(story)


def test_an_exec_that_ended_while_no_daemon_lived_is_told_to_the_next(lab: Lab) -> None:
    async def story() -> None:
        before = await lab.spawn("sleep", "1000")
        await before.start()
        client = await lab.exec(before, "e", "sh", "-c", "cat; exit 5", stdin=True)
        await lab.restart()
        client.half_close()
        assert await client.streams() == (b"", b"")
        await client.close()
        after = await lab.shims.adopt(before.container_id, exit_path=lab.exit_path(before))
        assert after is not None
        assert (await after.exec_wait("e")).code == 5
        await after.delete()

    lab.go(story)


def test_output_kept_open_by_a_child_of_an_exec_does_not_hold_its_end(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        client = await lab.exec(shim, "e", "sh", "-c", "sleep 1000 & echo started")
        assert await client.streams() == (b"started\n", b"")
        assert (await shim.exec_wait("e")).code == 0
        await client.close()
        await shim.delete()

    lab.go(story)


def test_the_log_is_followed_to_the_containers_end(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("cat", open_stdin=True, stdin_once=True)
        client = await lab.attach(shim, stdin=True)
        await shim.start()
        lines = read(lab.root.container(shim.container_id).log, follow=True, ended=shim.wait())
        async with asyncio.timeout(TIMEOUT_S):
            for text in (b"one\n", b"two\n"):
                client.send(text)
                assert (await anext(lines)).text == text
            client.send(b"last")
            client.half_close()
            assert [line.text async for line in lines] == [b"last"]
        await client.everything()
        await client.close()
        await shim.delete()

    lab.go(story)


def test_a_rotated_log_is_followed_without_loss(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "seq 1 20000", log_max_bytes=300_000, log_max_files=10)
        lines = read(lab.root.container(shim.container_id).log, follow=True, ended=shim.wait())
        collecting = asyncio.ensure_future(collect(lines))
        await shim.start()
        assert await collecting == [b"%d\n" % number for number in range(1, 20001)]
        await shim.delete()

    lab.go(story)


async def collect(lines: object) -> list[bytes]:
    return [line.text async for line in lines]  # type: ignore[attr-defined]
