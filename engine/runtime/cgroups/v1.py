"""A control group of the legacy layout: the same path in one hierarchy a controller.

A process that is moved by another waits for an RCU grace period, some 10 ms on
a stock kernel: the kernel keeps all processes from forking meanwhile. One that
moves itself, and itself only (`0` in `tasks`, not in `cgroup.procs`), does not.

Source: Linux, kernel/cgroup/cgroup.c, cgroup_procs_write_start, since 5.5.
"""

import contextlib
import os
import signal as signals

from engine.base.errors import NotSupported
from engine.kernel.cgroup import Hierarchies
from engine.runtime.cgroups import files, plan, statistics
from engine.runtime.cgroups.apply import apply
from engine.runtime.cgroups.limits_v1 import ignored_v1, writes_v1
from engine.runtime.cgroups.oom import LegacyOomWatch
from engine.spec.runtime import DeviceRule, Resources

_FREEZE_TIMEOUT_S = 5.0


def _fill_cpuset(parent: str, directory: str) -> None:
    """Give a cpuset that is empty what its parent has: an empty one takes no process.

    Not only one that was made here: whoever made it at the same moment may not have come to this yet.
    """
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not files.read(directory, file).strip():
            files.write(directory, file, files.read(parent, file).strip())


class LegacyCgroup:
    """One path in every legacy hierarchy."""

    def __init__(self, hierarchies: Hierarchies, names: tuple[str, ...]) -> None:
        self._names = names
        self._relative = "/".join(names)
        self._mounts = {controller: str(point) for controller, point in hierarchies.legacy.items()}

    @property
    def path(self) -> str:
        """Absolute, below the root of every hierarchy."""
        return "/" + self._relative

    def directory(self, controller: str) -> str:
        """Return the directory of one controller."""
        return f"{self._mounts[controller]}/{self._relative}"

    def binds(self) -> dict[str, str]:
        """Return what to bind into the container's /sys/fs/cgroup: name -> directory."""
        return {os.path.basename(point): f"{point}/{self._relative}" for point in set(self._mounts.values())}

    def create(self, resources: Resources) -> list[str]:
        """Make the directories, then the limits and the device rules."""
        writes = writes_v1(resources)
        rules = plan.device_rules(resources)
        try:
            for controller in self._mounts:
                self._make(controller)
            warnings = apply(writes, self._found)
            if "devices" in self._mounts:
                self._set_devices(rules)
        except BaseException:
            self.remove(timeout_s=1.0)
            raise
        return [*ignored_v1(resources), *warnings]

    def give(self, owner: int) -> None:
        """Do nothing: who may write here may leave."""

    def update(self, resources: Resources) -> list[str]:
        """Change the limits; a limit of memory below what is in use is refused by the kernel."""
        return [*ignored_v1(resources), *apply(writes_v1(resources), self._found)]

    def _found(self, controller: str) -> str | None:
        return self.directory(controller) if controller in self._mounts else None

    def _make(self, controller: str) -> None:
        directory = self._mounts[controller]
        for name in self._names:
            parent, directory = directory, f"{directory}/{name}"
            files.make(directory)
            if controller == "cpuset":
                _fill_cpuset(parent, directory)

    def _set_devices(self, rules: tuple[DeviceRule, ...]) -> None:
        directory = self.directory("devices")
        if rules and rules[0].type == "a":
            files.write(directory, "devices.allow", "a")
            rules = rules[1:]
        else:
            files.write(directory, "devices.deny", "a")
        for rule in rules:
            numbers = ":".join("*" if n is None or n < 0 else str(n) for n in (rule.major, rule.minor))
            kind = "c" if rule.type == "u" else rule.type
            files.write(
                directory,
                "devices.allow" if rule.allow else "devices.deny",
                f"{kind} {numbers} {rule.access}",
            )

    def birth_fd(self) -> None:
        """Return None: only cgroup2 can be cloned into."""
        return

    def doors(self) -> list[int]:
        """Return one for each hierarchy."""
        found: list[int] = []
        try:
            for point in dict.fromkeys(self._mounts.values()):
                found.append(os.open(f"{point}/{self._relative}/tasks", os.O_WRONLY | os.O_CLOEXEC))  # noqa: PERF401
        except BaseException:
            for fd in found:
                os.close(fd)
            raise
        return found

    def beside(self, pid: int) -> "LegacyCgroup":
        """Return this: here groups with and without others below take processes."""
        del pid
        return self

    def processes(self) -> list[int]:
        """Return the pids here and below."""
        return files.processes(self.directory(next(iter(self._mounts))))

    def signal(self, signal_number: int) -> int:
        """Signal all processes, frozen meanwhile so that none escapes by forking."""
        can_freeze = signal_number == signals.SIGKILL and "freezer" in self._mounts
        if can_freeze:
            self._set_freezer("FROZEN")
        try:
            return files.signal_each(self.processes(), signal_number)
        finally:
            if can_freeze:
                self._set_freezer("THAWED")

    def _set_freezer(self, state: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            files.write(self.directory("freezer"), "freezer.state", state)

    def freeze(self, frozen: bool, *, timeout_s: float = _FREEZE_TIMEOUT_S) -> None:
        """Stop or let run all processes; return once that is so."""
        wanted = "FROZEN" if frozen else "THAWED"
        directory = self.directory("freezer")

        def done() -> bool:
            # The state is written each time: a process that forks meanwhile leaves it at FREEZING.
            files.write(directory, "freezer.state", wanted)
            return files.read(directory, "freezer.state").strip() == wanted

        files.until(done, timeout_s=timeout_s, what=f"control group {self.path}: {wanted.lower()}")

    def is_frozen(self) -> bool:
        """Tell whether all processes are stopped."""
        try:
            return files.read(self.directory("freezer"), "freezer.state").strip() == "FROZEN"
        except (FileNotFoundError, KeyError):  # it is gone, or this machine cannot freeze
            return False

    def statistics(self) -> dict[str, object]:
        """Return what its processes use."""

        def read(controller: str, file: str) -> str:
            directory = self._found(controller)
            return files.read_or_empty(directory, file) if directory else ""

        return statistics.legacy(read)

    def watch_oom(self) -> LegacyOomWatch:
        """Return what tells that the kernel kills here for want of memory."""
        if "memory" not in self._mounts:
            raise NotSupported("this machine has no memory controller")
        return LegacyOomWatch(self.directory("memory"))

    def remove(self, *, timeout_s: float) -> None:
        """Remove the directories of all controllers."""
        for controller in self._mounts:
            files.remove_tree(self.directory(controller), timeout_s=timeout_s)
