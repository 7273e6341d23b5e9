"""A control group of cgroup2: one directory; processes are born in it."""

import contextlib
import errno
import os
import select
import signal as signals
import time
from collections.abc import Callable
from pathlib import Path

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel import bpf, process
from engine.kernel.cgroup import unified_path
from engine.runtime.cgroups import devices, files, plan, statistics
from engine.runtime.cgroups.apply import apply
from engine.runtime.cgroups.limits_v2 import ignored_v2, writes_v2
from engine.runtime.cgroups.oom import UnifiedOomWatch
from engine.spec.runtime import Memory, Resources

_NOT_ENABLED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY})
_DELEGATED = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
_WANTED = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma")


class UnifiedCgroup:
    """One directory of cgroup2."""

    def __init__(self, mount_point: Path, names: tuple[str, ...]) -> None:
        self._mount = str(mount_point)
        self._names = names
        self._relative = "/".join(names)

    @property
    def path(self) -> str:
        """Absolute, below the mount point."""
        return "/" + self._relative

    @property
    def directory(self) -> str:
        """The directory itself."""
        return f"{self._mount}/{self._relative}"

    def create(self, resources: Resources) -> list[str]:
        """Make the directory, then the limits and the device program."""
        writes = writes_v2(resources)
        program = devices.program(plan.device_rules(resources))
        try:
            self._make()
            warnings = apply(writes, self._finder())
            self._attach_program(program)
        except BaseException:
            self.remove(timeout_s=1.0)
            raise
        return [*ignored_v2(resources), *warnings]

    def update(self, resources: Resources) -> list[str]:
        """Change the limits."""
        writes = writes_v2(resources)
        if resources.memory and resources.memory.check_before_update:
            self._refuse_below_use(resources.memory)
        return [*ignored_v2(resources), *apply(writes, self._finder())]

    def give(self, owner: int) -> None:
        """Make `owner` the owner of what the kernel says may be; an unprivileged user's it is already."""
        if not process.is_host_root():
            return
        try:
            names = files.read("/sys/kernel/cgroup", "delegate").split()
        except FileNotFoundError:  # a kernel older than 4.15
            names = list(_DELEGATED)
        os.chown(self.directory, owner, -1)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.chown(f"{self.directory}/{name}", owner, -1)

    def _refuse_below_use(self, memory: Memory) -> None:
        """Refuse what would have processes killed at once: cgroup2 takes any limit."""
        used = int(files.read(self.directory, "memory.current"))
        if memory.limit and 0 < memory.limit < used:
            raise InvalidArgument(f"memory limit {memory.limit} is below what is in use: {used}")

    def _make(self) -> None:
        directory = self._mount
        for name in self._names:
            self._enable(directory)
            directory = f"{directory}/{name}"
            files.make(directory)

    def _finder(self) -> Callable[[str], str | None]:
        """Return what knows whether a controller is at hand here."""
        at_hand = frozenset(files.read(self.directory, "cgroup.controllers").split()) | {"cgroup"}
        return lambda controller: self.directory if controller in at_hand else None

    def _enable(self, directory: str) -> None:
        """Turn on what groups below may need; what cannot be is missed by the limit that needs it."""
        available = files.read(directory, "cgroup.controllers").split()
        enabled = files.read(directory, "cgroup.subtree_control").split()
        for controller in _WANTED:
            if controller in available and controller not in enabled:
                try:
                    files.write(directory, "cgroup.subtree_control", f"+{controller}")
                except OSError as err:  # not ours, or the group has processes of its own
                    if err.errno not in _NOT_ENABLED:
                        raise

    def _attach_program(self, program: bytes) -> None:
        """Let the program decide on devices. Who is not root and may not load it can make none either."""
        try:
            program_fd = bpf.load_cgroup_device_program(program)
        except PermissionError:
            if process.is_host_root():
                raise
            return
        try:
            cgroup_fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                bpf.attach_cgroup_device_program(cgroup_fd, program_fd)
            finally:
                os.close(cgroup_fd)
        finally:
            os.close(program_fd)

    def birth_fd(self) -> int | None:
        """Return a descriptor to clone into."""
        return os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def doors(self) -> list[int]:
        """Return none: processes are born here."""
        return []

    def beside(self, pid: int) -> "UnifiedCgroup":
        """Return this; once it is divided it takes no process, and the group of `pid` below is the place."""
        if not files.read(self.directory, "cgroup.subtree_control").strip():
            return self
        path = unified_path(files.read(f"/proc/{pid}", "cgroup"))
        names = tuple(name for name in path.split("/") if name)
        return UnifiedCgroup(Path(self._mount), names) if names[: len(self._names)] == self._names else self

    def processes(self) -> list[int]:
        """Return the pids here and below."""
        return files.processes(self.directory)

    def signal(self, signal_number: int) -> int:
        """Signal all processes; SIGKILL reaches those that are just being forked too."""
        pids = self.processes()
        if signal_number != signals.SIGKILL:
            return files.signal_each(pids, signal_number)
        try:
            files.write(self.directory, "cgroup.kill", "1")
        except FileNotFoundError:  # gone, or a kernel older than 5.14
            return files.signal_each(pids, signal_number)
        return len(pids)

    def freeze(self, frozen: bool, *, timeout_s: float = 5.0) -> None:
        """Stop or let run all processes; return once that is so."""
        files.write(self.directory, "cgroup.freeze", "1" if frozen else "0")
        self._wait_event("frozen", int(frozen), timeout_s)

    def is_frozen(self) -> bool:
        """Tell whether all processes are stopped."""
        try:
            return "frozen 1" in files.read(self.directory, "cgroup.events")
        except FileNotFoundError:
            return False

    def _wait_event(self, key: str, value: int, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        fd = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            while f"{key} {value}" not in os.pread(fd, 256, 0).decode():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"control group {self.path}: {key} is not {value} after {timeout_s} s")
                poll.poll(left_s * 1000)
        finally:
            os.close(fd)

    def statistics(self) -> dict[str, object]:
        """Return what its processes use."""
        return statistics.unified(lambda _, file: files.read_or_empty(self.directory, file))

    def watch_oom(self) -> UnifiedOomWatch:
        """Return what tells that the kernel kills here for want of memory."""
        try:
            return UnifiedOomWatch(self.directory)
        except FileNotFoundError:
            raise NotSupported("this machine has no memory controller") from None

    def remove(self, *, timeout_s: float) -> None:
        """Remove the directory, once its last process has ended."""
        try:
            self._wait_event("populated", 0, timeout_s)
        except (FileNotFoundError, TimeoutError):
            pass
        except OSError as err:
            if err.errno != errno.ENODEV:
                raise
        files.remove_tree(self.directory, timeout_s=min(timeout_s, 1.0))
