import os
import signal
import subprocess

from engine.shim.loop import READ, Loop


def test_timers_fire_in_order_of_time_and_not_when_cancelled() -> None:
    loop = Loop()
    fired: list[str] = []
    loop.later(0.02, lambda: fired.append("late"))
    loop.later(0.001, lambda: fired.append("early"))
    loop.later(0.002, lambda: fired.append("never")).cancel()
    loop.later(0.03, loop.stop)

    loop.run()
    loop.close()

    assert fired == ["early", "late"]


def test_an_unwatched_descriptor_gets_no_event_that_was_already_fetched() -> None:
    loop = Loop()
    pipes = [os.pipe() for _ in range(2)]
    seen: list[int] = []

    def woken(fd: int, other: int) -> None:
        seen.append(fd)
        loop.unwatch(other)
        loop.unwatch(fd)
        loop.stop()

    (first, _), (second, _) = pipes
    for reader, other in ((first, second), (second, first)):
        loop.watch(reader, READ, lambda _events, fd=reader, away=other: woken(fd, away))  # type: ignore[misc]
    for _, writer in pipes:
        os.write(writer, b"x")
    loop.run()
    loop.close()

    assert len(seen) == 1
    for fds in pipes:
        for fd in fds:
            os.close(fd)


def test_a_fault_at_a_childs_end_does_not_hide_the_next_one() -> None:
    told: list[Exception] = []
    loop = Loop(told.append)
    children = [subprocess.Popen(["true"]) for _ in range(2)]
    reaped: list[int] = []

    def reap() -> None:
        pid, _ = os.waitpid(children[len(reaped)].pid, 0)
        reaped.append(pid)
        if len(reaped) == len(children):
            loop.stop()
        else:
            os.kill(os.getpid(), signal.SIGCHLD)  # as if the other one ended only now
        raise RuntimeError("wrong")

    before = signal.getsignal(signal.SIGCHLD)
    try:
        loop.watch_children(reap)
        os.kill(os.getpid(), signal.SIGCHLD)
        loop.later(10, loop.stop)
        loop.run()
    finally:
        os.close(signal.set_wakeup_fd(-1))
        signal.signal(signal.SIGCHLD, before)
        loop.close()

    assert [str(err) for err in told] == ["wrong", "wrong"]
    for child in children:
        child.returncode = 0
