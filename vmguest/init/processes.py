"""Programs that PID 1 starts. posix_spawn and no `subprocess`: that import alone is a tenth of the boot."""

import fcntl
import os

from vmguest.init.console import say

TYPE_CHECKING = False  # and no import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmguest.init.loop import Loop

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
_FIRST_FREE_FD = 64  # above the descriptors that children are given


def spawn(
    argv: "Sequence[str]", *, fds: "Mapping[int, int] | None" = None, env: "Mapping[str, str]" = ENV
) -> int:
    """Start `argv` in a session of its own and return its pid.

    `fds` maps a number in the child to a descriptor here (made with `high`);
    all others are closed. Standard input is /dev/null, output the console.

    Raises:
        OSError: the program cannot be started.
    """
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
    ]
    actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in (fds or {}).items()]
    return os.posix_spawn(
        argv[0], list(argv), dict(env), file_actions=actions, setsid=True, setsigdef=range(1, 32)
    )


def high(fd: int) -> int:
    """Return `fd` moved out of the way of the numbers that children use."""
    moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_FD)
    os.close(fd)
    return moved


def run(argv: "Sequence[str]", loop: "Loop") -> int:
    """Run `argv` to its end and return its exit code, or minus the number of the signal that ended it.

    `loop` serves what else happens meanwhile.
    """
    try:
        pid = spawn(argv)
    except OSError as err:
        say(f"{argv[0]}: {err.strerror}")
        return 127
    ended: list[int] = []
    loop.on_exit(pid, ended.append)
    while not ended:
        loop.step()
    return os.waitstatus_to_exitcode(ended[0])
