"""`events`: what a container uses, again and again, and when the kernel kills in it for want of memory.

Source: runc-events(8).
"""

import contextlib
import select
import time
from collections.abc import Callable

from engine.runtime.cgroups.model import Cgroup
from engine.runtime.store import Container

Teller = Callable[[dict[str, object]], None]


def statistics(container: Container, group: Cgroup) -> dict[str, object]:
    """Return one event of statistics."""
    return {"type": "stats", "id": container.id, "data": group.statistics()}


def follow(container: Container, group: Cgroup, tell: Teller, *, interval_s: float) -> None:
    """Tell statistics every `interval_s` seconds and each want of memory, until the container's end."""
    with contextlib.ExitStack() as undo:
        pidfd = undo.enter_context(container.pidfd())
        watch = group.watch_oom()
        undo.callback(watch.close)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(watch.fd, watch.poll_events)
        next_at = time.monotonic() + interval_s
        while True:
            left_s = max(0.0, next_at - time.monotonic())
            ended = any(fd == pidfd for fd, _ in poll.poll(left_s * 1000))
            for _ in range(watch.take()):
                tell({"type": "oom", "id": container.id})
            if ended:
                return
            if time.monotonic() >= next_at:
                tell(statistics(container, group))
                next_at += interval_s
