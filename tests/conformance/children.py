"""Run one program of a suite with a deadline, and leave none of its processes behind.

A suite's test that fails leaves containers running, frozen ones among them. This process is
their subreaper: what a test leaves is a child of it, thawed and killed before the next test.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.kernel import prctl

_FREEZER = Path("/sys/fs/cgroup/freezer")
_UNIFIED = "/sys/fs/cgroup/unified"
_HIDE = f'umount -l {_UNIFIED} && exec "$@"'


def adopt_orphans() -> None:
    """Become the parent of all that tests leave."""
    prctl.set_child_subreaper(value=True)


def run(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float, without_unified: bool
) -> tuple[int, str, str]:
    """Return exit status (negative: the signal), standard output and errors of `argv`.

    `without_unified` hides the v2 half of a hybrid hierarchy, in a mount namespace of its own.
    """
    if without_unified and os.path.ismount(_UNIFIED):
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _HIDE, "sh", *argv]
    # Files, not pipes: a container that a test leaves holds its streams open.
    with (cwd / "stdout").open("w+b") as out, (cwd / "stderr").open("w+b") as err:
        child = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        _end_orphans()
        out.seek(0)
        err.seek(0)
        return child.returncode, out.read().decode(errors="replace"), err.read().decode(errors="replace")


def _end_orphans() -> None:
    own = Path("/proc/self/task") / str(os.getpid()) / "children"
    while pids := [int(word) for word in own.read_text(encoding="ascii").split()]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _thaw(pid)
        # Whichever ends first: the first process of a PID namespace waits for the others to be reaped.
        os.waitpid(-1, 0)


def _thaw(pid: int) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "freezer" and group != "/":
                (_FREEZER / group.lstrip("/") / "freezer.state").write_text("THAWED", encoding="ascii")
