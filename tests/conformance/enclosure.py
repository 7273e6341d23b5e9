"""A place of its own for a run, so that whatever suites leave goes with it.

Tests that fail leave mounts, control groups, state below /run and files. So a run is a child of the
command, in a mount namespace and a control group namespace of its own:

    mounts           are private, and gone with the last process
    control groups   of each hierarchy only a part is seen, which the command removes at the end
    /run             is an overlay: what is written there is in the scratch directory
    TMPDIR           is in the scratch directory, which the command removes: outside, where no mount
                     that was left leads anywhere

Source: cgroup_namespaces(7); Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint".
"""

import contextlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from engine.kernel import mount as mounts
from engine.kernel import process
from engine.kernel.mount import AT_FDCWD, MountFlag, UmountFlag
from engine.kernel.process import CloneFlag

_ROOT = "/sys/fs/cgroup"
_TYPES = frozenset({"cgroup", "cgroup2"})
_PLAIN = frozenset({"rw", "ro"})
_CPUSET = ("cpuset.cpus", "cpuset.mems")
_OWN = "conformance"  # inside: where the run's own processes are, for v2 wants none beside groups
_END_TIMEOUT_S = 30.0
_END_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy of control groups."""

    path: Path
    fstype: str
    options: str  # for a new mount of the same


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """Return those that are mounted below /sys/fs/cgroup; pure.

    Args:
        mountinfo: the text of proc_pid_mountinfo(5).
    """
    found = []
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        fstype, _, options = tail.split(" ", 2)
        path = head.split(" ")[4]
        if fstype in _TYPES and (path == _ROOT or path.startswith(f"{_ROOT}/")):
            words = [word for word in options.split(",") if word not in _PLAIN] if fstype == "cgroup" else []
            named = any(word.startswith("name=") for word in words)
            found.append(Hierarchy(Path(path), fstype, ",".join([*(["none"] if named else []), *words])))
    return found


def run(body: Callable[[Path], int]) -> int:
    """Run `body` in such a place, with a scratch directory; return what it returned."""
    found = hierarchies(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="conformance-") as scratch:
        os.chmod(scratch, 0o755)
        groups = [each.path / Path(scratch).name for each in found]
        try:
            for group in groups:
                _make(group)
            pid = os.fork()
            if pid == 0:
                _live(body, Path(scratch), list(zip(found, groups, strict=True)))
            _, status = os.waitpid(pid, 0)
        finally:
            _remove(groups)
    return os.waitstatus_to_exitcode(status)


def _make(group: Path) -> None:
    group.mkdir()
    for name in _CPUSET:
        with contextlib.suppress(FileNotFoundError):  # another controller, or v2, where they are inherited
            if not (group / name).read_text(encoding="ascii").strip():
                (group / name).write_text((group.parent / name).read_text(encoding="ascii"), encoding="ascii")


def _live(body: Callable[[Path], int], scratch: Path, groups: Sequence[tuple[Hierarchy, Path]]) -> NoReturn:
    code = 1
    try:
        _enter(scratch, groups)
        code = body(scratch)
    except SystemExit as err:
        sys.stderr.write(f"{err.code}\n")
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001 (a child of fork must not unwind into the parent's code)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _enter(scratch: Path, groups: Sequence[tuple[Hierarchy, Path]]) -> None:
    for _, group in groups:
        (group / "cgroup.procs").write_text("0", encoding="ascii")
    process.unshare(CloneFlag.NEWNS | CloneFlag.NEWCGROUP)
    mounts.mount_setattr(AT_FDCWD, "/", propagation=MountFlag.PRIVATE, recursive=True)
    for hierarchy, _ in groups:
        mounts.umount2(hierarchy.path, UmountFlag.DETACH)  # the same may not be mounted over itself
        mounts.mount("cgroup", hierarchy.path, hierarchy.fstype, MountFlag.NONE, hierarchy.options or None)
        if hierarchy.fstype == "cgroup2":
            (hierarchy.path / _OWN).mkdir()
            (hierarchy.path / _OWN / "cgroup.procs").write_text("0", encoding="ascii")
    run, temporary = scratch / "run", scratch / "tmp"
    run.mkdir()
    mounts.mount("tmpfs", run, "tmpfs")
    for name in ("upper", "work"):
        (run / name).mkdir()
    data = f"lowerdir=/run,upperdir={run}/upper,workdir={run}/work"
    mounts.mount("overlay", "/run", "overlay", MountFlag.NONE, data)
    temporary.mkdir()
    temporary.chmod(0o1777)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)


def _remove(groups: Sequence[Path]) -> None:
    """Kill what is in the groups, and remove them."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    for group in groups:
        while group.is_dir():
            for directory, _, _ in os.walk(group, topdown=False):
                _end(Path(directory))
                with contextlib.suppress(OSError):  # a process is on its way out
                    os.rmdir(directory)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{group}: cannot be removed within {_END_TIMEOUT_S} s")
            if group.is_dir():
                time.sleep(_END_POLL_S)  # no file of a control group of v1 can be waited for


def _end(group: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if (group / "freezer.state").exists():
            (group / "freezer.state").write_text("THAWED", encoding="ascii")
