from pathlib import Path

from engine.runtime.defaults import thermal_paths


def test_every_processors_heat_is_hidden(tmp_path: Path) -> None:
    for name in ("cpu0/thermal_throttle", "cpu1/thermal_throttle", "cpu2/cache", "cpufreq"):
        (tmp_path / "devices/system/cpu" / name).mkdir(parents=True)

    assert thermal_paths(tmp_path) == (
        "/sys/devices/system/cpu/cpu0/thermal_throttle",
        "/sys/devices/system/cpu/cpu1/thermal_throttle",
    )
    assert thermal_paths(tmp_path / "missing") == ()
