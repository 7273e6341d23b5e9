"""The limits as files of the legacy controllers; pure.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Control groups"; Linux
admin-guide, cgroup-v1/; scheduler/sched-bwc.rst, sched-rt-group.rst.
"""

from collections.abc import Iterator

from engine.base.errors import NotSupported
from engine.runtime.cgroups.plan import (
    Write,
    limit_text,
    rdma,
    swap_of,
    throttles,
)
from engine.spec.runtime import BlockIO, Cpu, HugepageLimit, Memory, NetworkResources, Resources


def writes_v1(resources: Resources) -> tuple[Write, ...]:
    """Return what to write into the legacy controllers, without the device rules.

    Raises:
        InvalidArgument: a value can never be written.
        NotSupported: it is asked for files of cgroup2.
    """
    if resources.unified:
        raise NotSupported("unified resources need control groups v2, this machine has v1")
    found: list[Write] = []
    if resources.memory:
        found += _memory(resources.memory)
    if resources.cpu:
        found += _cpu(resources.cpu)
    if resources.pids:
        found.append(Write("pids", "pids.max", limit_text(resources.pids.limit)))
    if resources.block_io:
        found += _block_io(resources.block_io)
    for limit in resources.hugepage_limits:
        found += _hugepages(limit)
    if resources.network:
        found += _network(resources.network)
    found += rdma(resources)
    return tuple(found)


def limits_anything(resources: Resources) -> bool:
    """Tell whether anything but devices is limited."""
    return bool(resources.unified or writes_v1(resources))


def ignored_v1(resources: Resources) -> tuple[str, ...]:
    """Return what is asked for and has no effect in any kernel that is supported, one line each."""
    memory = resources.memory
    if memory is None:
        return ()
    found = []
    if memory.kernel is not None:
        found.append("memory.kernel: ignored, the kernel has no such limit since 5.16")
    if memory.use_hierarchy is False:
        found.append("memory.useHierarchy: ignored, the kernel always counts the groups below since 5.11")
    return tuple(found)


def _memory(memory: Memory) -> Iterator[Write]:
    swap = swap_of(memory)
    if memory.limit:
        # The kernel holds limit <= memory and swap together: which may come first depends on what is there.
        yield Write("memory", "memory.limit_in_bytes", str(memory.limit), retry=bool(swap))
    if swap:
        yield Write("memory", "memory.memsw.limit_in_bytes", str(swap), required=swap > 0, retry=True)
    if memory.reservation:
        yield Write("memory", "memory.soft_limit_in_bytes", str(memory.reservation))
    if memory.kernel_tcp is not None:
        yield Write("memory", "memory.kmem.tcp.limit_in_bytes", str(memory.kernel_tcp), required=False)
    if memory.swappiness is not None:
        yield Write("memory", "memory.swappiness", str(memory.swappiness), required=False)
    if memory.use_hierarchy:
        yield Write("memory", "memory.use_hierarchy", "1", required=False)
    if memory.disable_oom_killer:
        yield Write("memory", "memory.oom_control", "1")


def _cpu(cpu: Cpu) -> Iterator[Write]:
    if cpu.realtime_period:
        yield Write("cpu", "cpu.rt_period_us", str(cpu.realtime_period), retry=True)
    if cpu.realtime_runtime is not None:
        yield Write("cpu", "cpu.rt_runtime_us", str(cpu.realtime_runtime))
    if cpu.idle is not None:
        yield Write("cpu", "cpu.idle", str(cpu.idle))
    if cpu.shares:
        yield Write("cpu", "cpu.shares", str(cpu.shares))
    if cpu.period:
        yield Write("cpu", "cpu.cfs_period_us", str(cpu.period), retry=bool(cpu.quota))
    if cpu.burst is not None:
        yield Write("cpu", "cpu.cfs_burst_us", str(cpu.burst), retry=bool(cpu.quota))
    if cpu.quota:
        yield Write("cpu", "cpu.cfs_quota_us", str(cpu.quota), retry=True)
    if cpu.cpus:
        yield Write("cpuset", "cpuset.cpus", cpu.cpus)
    if cpu.mems:
        yield Write("cpuset", "cpuset.mems", cpu.mems)


def _block_io(block_io: BlockIO) -> Iterator[Write]:
    if block_io.weight:
        yield _weight("weight", str(block_io.weight))
    if block_io.leaf_weight:
        yield Write("blkio", "blkio.leaf_weight", str(block_io.leaf_weight), required=False)
    for device in block_io.weight_device:
        number = f"{device.major}:{device.minor}"
        if device.weight:
            yield _weight("weight_device", f"{number} {device.weight}")
        if device.leaf_weight:
            value = f"{number} {device.leaf_weight}"
            yield Write("blkio", "blkio.leaf_weight_device", value, required=False)
    for name, _, throttle in throttles(block_io):
        value = f"{throttle.major}:{throttle.minor} {throttle.rate}"
        yield Write("blkio", f"blkio.throttle.{name}_device", value)


def _weight(file: str, value: str) -> Write:
    """Return a weight, for the scheduler that has weights: bfq, or cfq of kernels before 5.0."""
    plain = Write("blkio", f"blkio.{file}", value, required=False)
    return Write("blkio", f"blkio.bfq.{file}", value, required=False, instead=plain)


def _hugepages(limit: HugepageLimit) -> Iterator[Write]:
    size = limit.page_size
    yield Write("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(limit.limit))
    yield Write("hugetlb", f"hugetlb.{size}.rsvd.limit_in_bytes", str(limit.limit), required=False)


def _network(network: NetworkResources) -> Iterator[Write]:
    if network.class_id is not None:
        yield Write("net_cls", "net_cls.classid", str(network.class_id))
    for each in network.priorities:
        yield Write("net_prio", "net_prio.ifpriomap", f"{each.name} {each.priority}")
