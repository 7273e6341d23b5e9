"""Whether the kernel has killed a process of the container for want of memory.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst, "memory.events", and
cgroup-v1/memory.rst, "OOM Control" (`oom_kill` there since 4.13).
"""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def was_oom_killed(cgroup: str, *, root: Path = _ROOT) -> bool:
    """Read the counter of the container's control group, which is still there."""
    if not cgroup:
        return False
    below = cgroup.lstrip("/")
    for path in (root / below / "memory.events", root / "memory" / below / "memory.oom_control"):
        try:
            text = path.read_text()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return any(line.startswith("oom_kill ") and not line.endswith(" 0") for line in text.splitlines())
    return False
