"""The limits as files of cgroup2; pure.

The specification speaks v1's language; weights and shares are converted with
the formulas that runc and systemd use, so that a container gets the same
whichever runtime makes it.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Control groups"; Linux
admin-guide, cgroup-v2.rst.
"""

from collections.abc import Iterator

from engine.base.errors import InvalidArgument, NotSupported
from engine.runtime.cgroups.plan import (
    Write,
    limit_text,
    rdma,
    swap_of,
    throttles,
)
from engine.spec.runtime import BlockIO, Cpu, HugepageLimit, Memory, Resources

_SHARES_MIN, _SHARES_MAX = 2, 262144
_BLOCK_MIN, _BLOCK_MAX = 10, 1000
_WEIGHT_MAX = 10000
_PERIOD_US = 100000
_OWN_FILES = frozenset({"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"})


def writes_v2(resources: Resources) -> tuple[Write, ...]:
    """Return what to write into the unified hierarchy, `unified` entries last.

    Raises:
        InvalidArgument: a value can never be written.
        NotSupported: it is asked for what cgroup2 does not have and what a container may rely on.
    """
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
    if resources.network and (resources.network.class_id is not None or resources.network.priorities):
        raise NotSupported("network.classID and network.priorities: control groups v2 do not have them")
    found += rdma(resources)
    found += _unified(resources.unified)
    return tuple(found)


def ignored_v2(resources: Resources) -> tuple[str, ...]:
    """Return what is asked for and cgroup2 does without, one line each."""
    memory, block_io = resources.memory or Memory(), resources.block_io or BlockIO()
    asked = {
        "memory.kernel": memory.kernel is not None,
        "memory.kernelTCP": memory.kernel_tcp is not None,
        "memory.swappiness": memory.swappiness is not None,
        "memory.disableOOMKiller": memory.disable_oom_killer,
        "memory.useHierarchy": memory.use_hierarchy is False,
        "blockIO.leafWeight": bool(
            block_io.leaf_weight or any(device.leaf_weight for device in block_io.weight_device)
        ),
    }
    return tuple(f"{name}: ignored, control groups v2 do not have it" for name, set_ in asked.items() if set_)


def _memory(memory: Memory) -> Iterator[Write]:
    swap = swap_of(memory)
    if swap == -1:
        yield Write("memory", "memory.swap.max", "max", required=False)
    elif swap:
        if not memory.limit or memory.limit < 0:
            raise InvalidArgument("linux.resources.memory.swap without limit: it counts both together")
        # A machine without swap lacks the file; a limit of none at all is then kept anyway.
        yield Write("memory", "memory.swap.max", str(swap - memory.limit), required=swap > memory.limit)
    if memory.limit:
        yield Write("memory", "memory.max", limit_text(memory.limit))
    if memory.reservation:
        yield Write("memory", "memory.low", limit_text(memory.reservation))


def _cpu(cpu: Cpu) -> Iterator[Write]:
    if cpu.realtime_period or cpu.realtime_runtime is not None:
        raise NotSupported("cpu.realtimePeriod and cpu.realtimeRuntime: control groups v2 do not have them")
    if cpu.idle is not None:
        yield Write("cpu", "cpu.idle", str(cpu.idle))
    if cpu.shares:
        yield Write("cpu", "cpu.weight", str(weight_of_shares(cpu.shares)))
    if cpu.burst is not None:
        yield Write("cpu", "cpu.max.burst", str(cpu.burst), retry=bool(cpu.quota))
    if cpu.quota or cpu.period:
        quota = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
        yield Write("cpu", "cpu.max", f"{quota} {cpu.period or _PERIOD_US}", retry=cpu.burst is not None)
    if cpu.cpus:
        yield Write("cpuset", "cpuset.cpus", cpu.cpus)
    if cpu.mems:
        yield Write("cpuset", "cpuset.mems", cpu.mems)


def _block_io(block_io: BlockIO) -> Iterator[Write]:
    if block_io.weight:
        yield _weight("", block_io.weight)
    for device in block_io.weight_device:
        if device.weight:
            yield _weight(f"{device.major}:{device.minor} ", device.weight)
    for _, key, throttle in throttles(block_io):
        value = f"{throttle.major}:{throttle.minor} {key}={limit_text(throttle.rate)}"
        yield Write("io", "io.max", value)


def _weight(device: str, weight: int) -> Write:
    """Return a weight for bfq, or converted for the controller's own: the kernel has one of them."""
    converted = Write(
        "io", "io.weight", f"{device or 'default '}{weight_of_block_io(weight)}", required=False
    )
    return Write("io", "io.bfq.weight", f"{device}{weight}", required=False, instead=converted)


def _hugepages(limit: HugepageLimit) -> Iterator[Write]:
    size = limit.page_size
    yield Write("hugetlb", f"hugetlb.{size}.max", str(limit.limit))
    yield Write("hugetlb", f"hugetlb.{size}.rsvd.max", str(limit.limit), required=False)


def _unified(unified: dict[str, str]) -> Iterator[Write]:
    for file, value in unified.items():
        controller = file.partition(".")[0]
        if controller == "cgroup" and file not in _OWN_FILES:
            raise InvalidArgument(f"linux.resources.unified: {file} is the runtime's own")
        for line in value.split("\n"):
            if line:
                yield Write(controller, file, line)


def weight_of_shares(shares: int) -> int:
    """Return cgroup2's weight (1..10000) for v1's shares (2..262144)."""
    shares = min(max(shares, _SHARES_MIN), _SHARES_MAX)
    return 1 + (shares - _SHARES_MIN) * (_WEIGHT_MAX - 1) // (_SHARES_MAX - _SHARES_MIN)


def weight_of_block_io(weight: int) -> int:
    """Return cgroup2's weight (1..10000) for v1's weight of block devices (10..1000)."""
    return 1 + (weight - _BLOCK_MIN) * (_WEIGHT_MAX - 1) // (_BLOCK_MAX - _BLOCK_MIN)
