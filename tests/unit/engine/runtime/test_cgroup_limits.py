import pytest

from engine.base import jsonio
from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel.cgroup import hierarchies
from engine.runtime.cgroups.limits_v1 import ignored_v1, writes_v1
from engine.runtime.cgroups.limits_v2 import ignored_v2, weight_of_block_io, weight_of_shares, writes_v2
from engine.spec.runtime import Memory, Resources

WHOLE = b"""{
  "memory": {"limit": 4096000, "reservation": 2048000, "swap": 8192000, "kernel": 1, "kernelTCP": 5,
             "swappiness": 10, "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true},
  "cpu": {"shares": 1024, "quota": 20000, "burst": 1000, "period": 50000, "cpus": "0-1", "mems": "0", "idle": 1},
  "pids": {"limit": 32},
  "blockIO": {"weight": 10, "leafWeight": 20, "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
              "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
              "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}]},
  "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
  "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1}}
}"""  # noqa: E501


def whole() -> Resources:
    return jsonio.decode(WHOLE, Resources, noun="resources")


def lines(writes: object) -> list[str]:
    return [f"{write.file} {write.value}" for write in writes]  # type: ignore[attr-defined]


def test_the_whole_of_v1() -> None:
    assert lines(writes_v1(whole())) == [
        "memory.limit_in_bytes 4096000",
        "memory.memsw.limit_in_bytes 8192000",
        "memory.soft_limit_in_bytes 2048000",
        "memory.kmem.tcp.limit_in_bytes 5",
        "memory.swappiness 10",
        "memory.use_hierarchy 1",
        "memory.oom_control 1",
        "cpu.idle 1",
        "cpu.shares 1024",
        "cpu.cfs_period_us 50000",
        "cpu.cfs_burst_us 1000",
        "cpu.cfs_quota_us 20000",
        "cpuset.cpus 0-1",
        "cpuset.mems 0",
        "pids.max 32",
        "blkio.bfq.weight 10",
        "blkio.leaf_weight 20",
        "blkio.bfq.weight_device 8:0 500",
        "blkio.leaf_weight_device 8:0 300",
        "blkio.throttle.read_bps_device 8:0 600",
        "blkio.throttle.write_iops_device 8:16 0",
        "hugetlb.2MB.limit_in_bytes 4194304",
        "hugetlb.2MB.rsvd.limit_in_bytes 4194304",
        "rdma.max mlx5_1 hca_handle=3 hca_object=10000",
        "rdma.max mlx4_0 hca_object=1",
    ]
    assert [line.partition(":")[0] for line in ignored_v1(whole())] == ["memory.kernel"]


def test_the_whole_of_v2() -> None:
    assert lines(writes_v2(whole())) == [
        "memory.swap.max 4096000",
        "memory.max 4096000",
        "memory.low 2048000",
        "cpu.idle 1",
        "cpu.weight 39",
        "cpu.max.burst 1000",
        "cpu.max 20000 50000",
        "cpuset.cpus 0-1",
        "cpuset.mems 0",
        "pids.max 32",
        "io.bfq.weight 10",
        "io.bfq.weight 8:0 500",
        "io.max 8:0 rbps=600",
        "io.max 8:16 wiops=max",
        "hugetlb.2MB.max 4194304",
        "hugetlb.2MB.rsvd.max 4194304",
        "rdma.max mlx5_1 hca_handle=3 hca_object=10000",
        "rdma.max mlx4_0 hca_object=1",
    ]
    assert [line.partition(":")[0] for line in ignored_v2(whole())] == [
        "memory.kernel",
        "memory.kernelTCP",
        "memory.swappiness",
        "memory.disableOOMKiller",
        "blockIO.leafWeight",
    ]


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000), (1, 1), (1 << 40, 10000)]
)
def test_shares_become_runcs_weights(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


@pytest.mark.parametrize(("old", "new"), [(10, 1), (500, 4950), (1000, 10000)])
def test_weights_of_block_devices_become_runcs(old: int, new: int) -> None:
    assert weight_of_block_io(old) == new


def test_memory_and_swap_together_are_no_less_than_memory() -> None:
    resources = Resources(memory=Memory(swap=1, limit=2))
    for writes in (writes_v1, writes_v2):
        with pytest.raises(InvalidArgument, match=r"^linux\.resources\.memory\.swap: "):
            writes(resources)


@pytest.mark.parametrize(
    "text",
    [
        b'{"network": {"classID": 1}}',
        b'{"network": {"priorities": [{"name": "lo", "priority": 1}]}}',
        b'{"cpu": {"realtimeRuntime": 1}}',
    ],
)
def test_what_v2_does_not_have_is_refused_by_name(text: bytes) -> None:
    resources = jsonio.decode(text, Resources, noun="resources")

    assert writes_v1(resources)
    with pytest.raises(NotSupported, match="control groups v2 do not have"):
        writes_v2(resources)


def test_unified_is_v2s() -> None:
    resources = Resources(unified={"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 rbps=2"})

    assert lines(writes_v2(resources)) == ["memory.high 1000", "io.max 8:0 rbps=1", "io.max 8:16 rbps=2"]
    with pytest.raises(NotSupported, match="unified"):
        writes_v1(resources)


@pytest.mark.parametrize("file", ["cgroup.procs", "cgroup.kill", "cgroup.subtree_control"])
def test_unified_files_that_are_the_runtimes_own_are_refused(file: str) -> None:
    with pytest.raises(InvalidArgument, match="unified"):
        writes_v2(Resources(unified={file: "1"}))


MOUNTINFO = """\
30 20 0:1 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
31 20 0:2 / /sys/fs/cgroup/net_cls,net_prio rw - cgroup cgroup rw,net_cls,net_prio
32 20 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""


def test_the_named_hierarchy_is_one_of_them() -> None:
    found = hierarchies(MOUNTINFO)

    assert set(found.legacy) == {"name=systemd", "net_cls", "net_prio"}
    assert not found.is_unified


def test_a_named_hierarchy_alone_limits_nothing() -> None:
    assert hierarchies(MOUNTINFO.replace("net_cls,net_prio", "none")).is_unified
