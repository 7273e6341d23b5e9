"""Where the control groups of this machine are mounted.

Three layouts exist: *unified* (cgroup2 at /sys/fs/cgroup), *legacy* (one v1
mount a controller) and *hybrid* (legacy, and a cgroup2 mount that has no
controllers). This module reads which; it makes nothing.

Source: cgroups(7), proc_pid_mountinfo(5).
"""

from pathlib import Path

import msgspec

CONTROLLERS_V1 = (
    "cpu", "cpuacct", "memory", "devices", "freezer", "pids", "blkio", "cpuset",
    "hugetlb", "net_cls", "net_prio", "perf_event", "rdma",
)  # fmt: skip
NAMED_V1 = "name=systemd"
"""The hierarchy without a controller in which service managers, and who asks /proc/self/cgroup, look."""


class Hierarchies(msgspec.Struct, frozen=True):
    """Mount points of the hierarchies."""

    unified: Path | None  # cgroup2; None without one
    legacy: dict[str, Path]  # v1 controller, or NAMED_V1 -> mount point; empty on a unified machine

    @property
    def is_unified(self) -> bool:
        """Tell whether cgroup2 has the controllers."""
        return not self.legacy


def hierarchies(mountinfo: str | None = None) -> Hierarchies:
    """Return the hierarchies that this mount namespace shows.

    Of several mounts of one hierarchy the first that shows its root wins.
    """
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8") if mountinfo is None else mountinfo
    unified: Path | None = None
    legacy: dict[str, Path] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fstype, _, rest = right.partition(" ")
        if not fstype.startswith("cgroup"):
            continue
        mount_point = Path(left.split(" ")[4])
        if fstype == "cgroup2":
            unified = unified or mount_point
            continue
        for option in rest.split(" ")[1].split(","):
            if option in CONTROLLERS_V1 or option == NAMED_V1:
                legacy.setdefault(option, mount_point)
    if set(legacy) == {NAMED_V1}:  # nothing can be limited there
        legacy = {}
    return Hierarchies(unified, legacy)


def unified_path(text: str) -> str:
    """Return the group, in cgroup2, of a process with this /proc/PID/cgroup."""
    return next((line.removeprefix("0::") for line in text.splitlines() if line.startswith("0::")), "/")
