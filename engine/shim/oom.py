"""Whether the kernel has killed a process of the container for want of memory.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst, "memory.events", and
cgroup-v1/memory.rst, "OOM Control" (`oom_kill` there since 4.13).
"""

from pathlib import Path

from engine.runtime.cgroups import files

_ROOT = Path("/sys/fs/cgroup")


def was_oom_killed(cgroup: str, *, root: Path = _ROOT) -> bool:
    """Read the counters of the container's control group, which is still there.

    cgroup2 counts a kill in every group above as well; v1 only where the process was, which may be a
    group that the container has made.
    """
    if not cgroup:
        return False
    below = cgroup.lstrip("/")
    if _counted(f"{root}/{below}/memory.events"):
        return True
    groups = files.tree(f"{root}/memory/{below}")
    return any(_counted(f"{group}/memory.oom_control") for group in groups)


def _counted(path: str) -> bool:
    try:
        text = Path(path).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return any(line.startswith("oom_kill ") and not line.endswith(" 0") for line in text.splitlines())
