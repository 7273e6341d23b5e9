import os

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
