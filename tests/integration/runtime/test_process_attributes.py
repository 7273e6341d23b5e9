"""How the program of a container is scheduled, limited and named, as the kernel tells it."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.runtime.validate import RLIMITS
from tests.support.ocilab import OciLab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")
_SPACES = ("pid", "network", "mount", "ipc", "uts")


def _stat_of(oci: OciLab, **process: Any) -> list[str]:
    """Return the fields of /proc/self/stat from the third on."""
    ran = oci.run("cat", "/proc/self/stat", process=process)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.rpartition(")")[2].split()


@pytest.mark.parametrize(
    ("wanted", "policy", "nice", "priority"),
    [
        ({"policy": "SCHED_OTHER", "nice": 5}, 0, 5, 0),
        ({"policy": "SCHED_FIFO", "priority": 3}, 1, 0, 3),
        ({"policy": "SCHED_RR", "priority": 9, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, 2, 0, 9),
        ({"policy": "SCHED_BATCH", "nice": 7}, 3, 7, 0),
        ({"policy": "SCHED_IDLE"}, 5, 0, 0),
        ({"policy": "SCHED_DEADLINE", "runtime": 10**6, "deadline": 10**8, "period": 10**8}, 6, 0, 0),
    ],
)
def test_the_scheduler_is_the_one_asked_for(
    oci: OciLab, wanted: dict[str, Any], policy: int, nice: int, priority: int
) -> None:
    if priority and any(Path("/sys/fs/cgroup").glob("*/cpu.rt_runtime_us")):
        pytest.skip("a new control group has no real-time processor time here")

    fields = _stat_of(oci, scheduler=wanted)

    assert (int(fields[38]), int(fields[37])) == (policy, priority)
    if policy in (0, 3):
        assert int(fields[16]) == nice


def test_a_scheduler_that_cannot_be_is_named_before_anything_is_made(oci: OciLab) -> None:
    made = oci.create("true", process={"scheduler": {"policy": "SCHED_FIFO"}})

    assert made.returncode == 1
    assert made.stderr == "pyengine-oci: process.scheduler.priority is out of range: 0\n"
    assert not list(oci.root.iterdir())


def test_the_priority_of_input_and_output_is_the_one_asked_for(oci: OciLab) -> None:
    (oci.rootfs / "bin/ionice").symlink_to("busybox")

    ran = oci.run("ionice", process={"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6}})

    assert ran.stdout == "best-effort: prio 6\n"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="not every processor has 32 bits")
def test_a_personality_of_32_bits_is_of_the_container_and_its_execs(oci: OciLab) -> None:
    (oci.rootfs / "bin/uname").symlink_to("busybox")

    assert oci.create("sleep", "1000", linux={"personality": {"domain": "LINUX32"}}).returncode == 0
    assert oci.oci("start", oci.id).returncode == 0
    assert oci.oci("exec", oci.id, "uname", "-m").stdout == "i686\n"
    oci.oci("delete", "--force", oci.id)
    assert oci.run("uname", "-m", linux={"personality": {"domain": "LINUX"}}).stdout == "x86_64\n"


def test_every_resource_limit_can_be_set(oci: OciLab) -> None:
    assert len(Path("/proc/self/limits").read_text().splitlines()) == len(RLIMITS) + 1
    limits = [
        {"type": f"RLIMIT_{name}", "soft": 0, "hard": 0} for name in ("NICE", "RTPRIO", "LOCKS", "CORE")
    ]

    ran = oci.run("cat", "/proc/self/limits", process={"rlimits": limits})

    assert ran.returncode == 0, ran.stderr
    got = {line[:26].strip(): line[26:].split()[:2] for line in ran.stdout.splitlines()}
    for name in ("Max nice priority", "Max realtime priority", "Max file locks", "Max core file size"):
        assert got[name] == ["0", "0"]


def test_names_are_of_the_containers_namespace(oci: OciLab) -> None:
    for name in ("hostname", "uname"):
        (oci.rootfs / "bin" / name).symlink_to("busybox")

    ran = oci.run(
        "cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", hostname="h", domainname="d"
    )

    assert ran.stdout == "h\nd\n"


def test_a_joined_namespace_is_named_and_the_hosts_own_is_not(oci: OciLab) -> None:
    host = os.uname().nodename
    show = ("cat", "/proc/sys/kernel/hostname")
    with subprocess.Popen(["unshare", "--uts", "sh", "-c", "echo; read x"], stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        spaces = [{"type": kind} for kind in _SPACES if kind != "uts"]
        joined = [*spaces, {"type": "uts", "path": f"/proc/{holder.pid}/ns/uts"}]
        assert oci.run(*show, hostname="joined", linux={"namespaces": joined}).stdout == "joined\n"
        holder.communicate(b"\n")

    own = [*spaces, {"type": "uts", "path": "/proc/self/ns/uts"}]
    refused = oci.run(*show, hostname="evil", linux={"namespaces": own})
    assert refused.returncode == 1
    assert "it is the host's own, which is not to be renamed" in refused.stderr
    assert os.uname().nodename == host


@pytest.mark.skipif(
    not os.path.exists("/proc/self/timens_offsets"), reason="the kernel has no time namespaces"
)
def test_clocks_of_a_time_namespace_are_shifted_for_the_container_and_its_execs(oci: OciLab) -> None:
    offsets = {"monotonic": {"secs": 1, "nanosecs": 2}, "boottime": {"secs": 86400 * 400}}
    spaces = [{"type": kind} for kind in (*_SPACES, "time")]
    linux = {"namespaces": spaces, "timeOffsets": offsets}

    assert oci.create("sleep", "1000", linux=linux).returncode == 0
    assert oci.oci("start", oci.id).returncode == 0

    shown = oci.oci("exec", oci.id, "cat", "/proc/self/timens_offsets", "/proc/uptime").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["monotonic", "1", "2"]
    assert lines[1] == ["boottime", str(86400 * 400), "0"]
    assert float(lines[2][0]) > 86400 * 400
    pid = oci.state()["pid"]
    assert os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")


@pytest.mark.skipif(
    not os.path.exists("/proc/self/timens_offsets"), reason="the kernel has no time namespaces"
)
def test_a_time_namespace_is_joined_by_its_path(oci: OciLab) -> None:
    shifted = ["unshare", "--time", "--boottime", "864000000", "--fork", "sh", "-c", "echo; read x"]
    with subprocess.Popen(shifted, stdin=-1, stdout=-1) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        path = f"/proc/{holder.pid}/ns/time_for_children"
        spaces = [*({"type": kind} for kind in _SPACES), {"type": "time", "path": path}]
        ran = oci.run("cat", "/proc/uptime", linux={"namespaces": spaces})
        holder.communicate(b"\n")

    assert float(ran.stdout.split()[0]) > 864000000, ran.stderr
