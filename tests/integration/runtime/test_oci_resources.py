"""Limits by `pyengine-oci`: what config.json asks for, and what `update` makes of it."""

import json
from pathlib import Path

import pytest

from tests.support.ocibundle import Bundles

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

MIB = 1 << 20
legacy = pytest.mark.skipif(
    not Path("/sys/fs/cgroup/memory").is_dir(), reason="these are files of the legacy layout"
)


@legacy
def test_every_flag_of_update_arrives(bundles: Bundles) -> None:
    bundles.start("c", resources={"memory": {"limit": 64 * MIB, "swap": 64 * MIB}})

    bundles.ok(
        "update", "--memory", "96m", "--memory-swap", "128m", "--memory-reservation", "32m",
        "--kernel-memory-tcp", "8m", "--cpu-share", "512", "--cpu-period", "50000", "--cpu-quota", "25000",
        "--cpu-burst", "10000", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "40", "c",
    )  # fmt: skip

    wanted = {
        ("memory", "memory.limit_in_bytes"): 96 * MIB,
        ("memory", "memory.memsw.limit_in_bytes"): 128 * MIB,
        ("memory", "memory.soft_limit_in_bytes"): 32 * MIB,
        ("memory", "memory.kmem.tcp.limit_in_bytes"): 8 * MIB,
        ("cpu", "cpu.shares"): 512,
        ("cpu", "cpu.cfs_period_us"): 50000,
        ("cpu", "cpu.cfs_quota_us"): 25000,
        ("cpu", "cpu.cfs_burst_us"): 10000,
        ("cpuset", "cpuset.cpus"): 0,
        ("cpuset", "cpuset.mems"): 0,
        ("pids", "pids.max"): 40,
    }
    assert {where: int(bundles.file("c", *where)) for where in wanted} == wanted

    # What is not named stays, and a value below a limit of before is put in the right order.
    bundles.ok("update", "--memory", "16m", "--memory-swap", "16m", "c")
    assert bundles.file("c", "memory", "memory.memsw.limit_in_bytes") == str(16 * MIB)
    bundles.ok("update", "--memory", "-1", "--memory-swap", "-1", "--pids-limit", "-1", "c")
    assert int(bundles.file("c", "memory", "memory.limit_in_bytes")) > 1 << 60
    assert bundles.file("c", "pids", "pids.max") == "max"
    assert bundles.file("c", "cpu", "cpu.shares") == "512"


@legacy
def test_update_reads_a_file_or_its_input_and_zeros_change_nothing(bundles: Bundles, tmp_path: Path) -> None:
    bundles.start("c", resources={"pids": {"limit": 20}, "cpu": {"shares": 100}})
    change = {"cpu": {"shares": 0, "quota": 20000}, "memory": {"limit": 0}, "pids": {"limit": 30}}
    (tmp_path / "r.json").write_text(json.dumps(change))

    bundles.ok("update", "--resources", str(tmp_path / "r.json"), "c")
    assert bundles.file("c", "pids", "pids.max") == "30"
    assert bundles.file("c", "cpu", "cpu.shares") == "100"
    assert bundles.file("c", "cpu", "cpu.cfs_quota_us") == "20000"

    bundles.ok("update", "-r", "-", "c", stdin=b'{"pids": {"limit": 35}}')
    assert bundles.file("c", "pids", "pids.max") == "35"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--memory", "lots"), "--memory: not a size"),
        (("--cpu-share", "x"), "--cpu-share: not a number"),
        (("--l3-cache-schema", "x"), "Intel RDT"),
        (("--cpuset-cpus", "4000"), "cpuset.cpus"),
        (("--memory", "8m", "--memory-swap", "4m"), "memory"),
        (("--pids-limit", "3", "-r", "-"), "at once"),
        (("-r", "/nowhere"), "/nowhere"),
    ],
)
def test_a_wrong_update_is_refused_by_name(bundles: Bundles, words: tuple[str, ...], reason: str) -> None:
    bundles.start("c")

    done = bundles.call("update", *words, "c")

    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_update_of_what_has_ended_is_refused(bundles: Bundles) -> None:
    bundles.start("c", "true")
    bundles.ended("c")

    done = bundles.call("update", "--pids-limit", "3", "c")

    assert "container not running" in done.stderr


@legacy
@pytest.mark.skipif(not Path("/sys/fs/cgroup/systemd").is_dir(), reason="no named hierarchy here")
def test_a_process_is_in_the_named_hierarchy_too(bundles: Bundles) -> None:
    """Programs look there for the id of their container, as in docker's and runc's."""
    bundles.start("c")

    lines = Path(f"/proc/{bundles.state('c')['pid']}/cgroup").read_text().splitlines()

    assert [line.partition(":")[2] for line in lines if "name=systemd" in line] == [
        f"name=systemd:{bundles.cgroup}/c"
    ]


@legacy
def test_what_this_machine_lacks_is_refused_or_warned_of_by_name(bundles: Bundles) -> None:
    refused = bundles.bundle("a", resources={"unified": {"memory.high": "1000000"}})
    done = bundles.call("run", "--detach", "--bundle", str(refused), "a")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "unified resources need control groups v2" in done.stderr

    warned = bundles.bundle("b", resources={"memory": {"kernel": 1000000}})
    done = bundles.call("run", "--detach", "--bundle", str(warned), "b")
    assert done.returncode == 0
    assert "warning: memory.kernel: ignored" in done.stderr
