"""What a container gets that asks for nothing else, from the engine and from `pyengine-oci spec` alike.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Default Filesystems".
"""

from pathlib import Path

from engine.spec.runtime import Mount

SAFE = ("nosuid", "noexec", "nodev")
DEV_MOUNT = Mount(
    destination="/dev",
    type="tmpfs",
    source="tmpfs",
    options=("nosuid", "strictatime", "mode=755", "size=65536k"),
)
PTS_MOUNT = Mount(
    destination="/dev/pts",
    type="devpts",
    source="devpts",
    options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
)


def thermal_paths(sysfs: Path = Path("/sys")) -> tuple[str, ...]:
    """Return where each processor of this machine counts how often it was too hot: a side channel."""
    found = sorted(sysfs.glob("devices/system/cpu/cpu*/thermal_throttle"))
    return tuple(f"/sys/{path.relative_to(sysfs)}" for path in found)


MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/kernel/debug",
    "/sys/kernel/notes",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    *thermal_paths(),
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
