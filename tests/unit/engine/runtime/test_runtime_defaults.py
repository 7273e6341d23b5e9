from pathlib import Path

from engine.runtime.defaults import MASKED_PATHS, READONLY_PATHS, thermal_paths


def test_every_processors_heat_is_hidden(tmp_path: Path) -> None:
    for name in ("cpu0/thermal_throttle", "cpu1/thermal_throttle", "cpu2/cache", "cpufreq"):
        (tmp_path / "devices/system/cpu" / name).mkdir(parents=True)

    assert thermal_paths(tmp_path) == (
        "/sys/devices/system/cpu/cpu0/thermal_throttle",
        "/sys/devices/system/cpu/cpu1/thermal_throttle",
    )
    assert thermal_paths(tmp_path / "missing") == ()


def test_all_that_anybody_hides_is_hidden() -> None:
    """The union of what docker, podman, CRI-O and containerd hide, and what tells the kernel's addresses."""
    proc = "acpi asound interrupts kallsyms kcore keys kmsg latency_stats sched_debug scsi"
    proc += " timer_list timer_stats"
    sys = "devices/virtual/powercap firmware fs/bpf kernel/debug kernel/notes kernel/security kernel/tracing"
    wanted = {f"/proc/{name}" for name in proc.split()} | {f"/sys/{name}" for name in sys.split()}

    assert wanted | set(thermal_paths()) == set(MASKED_PATHS)
    assert set(READONLY_PATHS) == {f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")}
