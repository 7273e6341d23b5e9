"""From the specification's limits to the kernel's files; pure.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Control groups"; Linux
admin-guide, cgroup-v1/ and cgroup-v2.rst.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.base.errors import InvalidArgument, NotSupported
from engine.spec.runtime import BlockIO, Cpu, DeviceRule, Memory, Resources

_SHARES_MIN, _SHARES_MAX = 2, 262144
_WEIGHT_MAX = 10000
_PERIOD_US = 100000

DEFAULT_DEVICES = (
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    *(DeviceRule(allow=True, type="c", major=1, minor=minor) for minor in (3, 5, 7, 8, 9)),
    *(DeviceRule(allow=True, type="c", major=5, minor=minor) for minor in (0, 1, 2)),
    DeviceRule(allow=True, type="c", major=136),
)
"""null, zero, full, random, urandom; tty, console, ptmx; every pts. Nodes may be made, not opened."""


@dataclass(frozen=True, slots=True)
class Write:
    """One value for one file of one controller; `required` False: the kernel may lack the file."""

    controller: str
    file: str
    value: str
    required: bool = True


def device_rules(resources: Resources) -> tuple[DeviceRule, ...]:
    """Return the rules in force, in order; a later one wins, and nothing is allowed at first.

    A rule of type `a` replaces all before it. The default devices are allowed
    whatever the specification says, as runc does.
    """
    rules: list[DeviceRule] = []
    for rule in (*resources.devices, *DEFAULT_DEVICES):
        if rule.type not in ("a", "c", "b", "u") or not set(rule.access) <= set("rwm"):
            raise InvalidArgument(f"invalid device rule: type {rule.type!r}, access {rule.access!r}")
        if rule.type == "a":
            rules = [rule] if rule.allow else []
        elif not (rules and rules[0].type == "a" and rule.allow):
            rules.append(rule)
    return tuple(rules)


def components(cgroups_path: str) -> tuple[str, ...]:
    """Return the names of a control group's path below the root of every hierarchy.

    Raises:
        NotSupported: it is in systemd's notation (`slice:prefix:name`).
        InvalidArgument: it climbs, or is the root.
    """
    if cgroups_path.count(":") == 2 and "/" not in cgroups_path:  # noqa: PLR2004 (slice:prefix:name)
        raise NotSupported(f"cgroups path {cgroups_path!r}: systemd's notation is not supported")
    names = tuple(name for name in cgroups_path.split("/") if name not in ("", "."))
    if not names or ".." in names or "\0" in cgroups_path:
        raise InvalidArgument(f"invalid cgroups path: {cgroups_path!r}")
    return names


def writes_v1(resources: Resources) -> tuple[Write, ...]:
    """Return what to write into the legacy controllers, without the device rules."""
    found: list[Write] = []
    if resources.memory:
        found += _memory_v1(resources.memory)
    if resources.cpu:
        found += _cpu_v1(resources.cpu)
    if resources.pids:
        found.append(Write("pids", "pids.max", _limit(resources.pids.limit)))
    if resources.block_io:
        found += _block_io_v1(resources.block_io)
    return tuple(found)


def _memory_v1(memory: Memory) -> Iterator[Write]:
    _check_swap(memory)
    if memory.limit is not None:
        yield Write("memory", "memory.limit_in_bytes", str(memory.limit))
    if memory.swap:
        yield Write("memory", "memory.memsw.limit_in_bytes", str(memory.swap), required=memory.swap > 0)
    if memory.reservation:
        yield Write("memory", "memory.soft_limit_in_bytes", str(memory.reservation))
    if memory.swappiness is not None:
        yield Write("memory", "memory.swappiness", str(memory.swappiness), required=False)
    if memory.disable_oom_killer:
        yield Write("memory", "memory.oom_control", "1")


def _cpu_v1(cpu: Cpu) -> Iterator[Write]:
    if cpu.shares:
        yield Write("cpu", "cpu.shares", str(cpu.shares))
    if cpu.period:
        yield Write("cpu", "cpu.cfs_period_us", str(cpu.period))
    if cpu.quota:
        yield Write("cpu", "cpu.cfs_quota_us", str(cpu.quota))
    if cpu.burst is not None:
        yield Write("cpu", "cpu.cfs_burst_us", str(cpu.burst))
    if cpu.cpus:
        yield Write("cpuset", "cpuset.cpus", cpu.cpus)
    if cpu.mems:
        yield Write("cpuset", "cpuset.mems", cpu.mems)


def _block_io_v1(block_io: BlockIO) -> Iterator[Write]:
    if block_io.weight:
        yield Write("blkio", "blkio.bfq.weight", str(block_io.weight), required=False)
    for file, devices in (
        ("read_bps", block_io.throttle_read_bps_device),
        ("write_bps", block_io.throttle_write_bps_device),
        ("read_iops", block_io.throttle_read_iops_device),
        ("write_iops", block_io.throttle_write_iops_device),
    ):
        for device in devices:
            value = f"{device.major}:{device.minor} {device.rate}"
            yield Write("blkio", f"blkio.throttle.{file}_device", value)


def writes_v2(resources: Resources) -> tuple[Write, ...]:
    """Return what to write into the unified hierarchy, `unified` entries last."""
    found: list[Write] = []
    if resources.memory:
        found += _memory_v2(resources.memory)
    if resources.cpu:
        found += _cpu_v2(resources.cpu)
    if resources.pids:
        found.append(Write("pids", "pids.max", _limit(resources.pids.limit)))
    if resources.block_io:
        found += _block_io_v2(resources.block_io)
    for file, value in resources.unified.items():
        if "/" in file or file.startswith(("cgroup.", ".")):
            raise InvalidArgument(f"invalid unified cgroup file: {file!r}")
        found.append(Write(file.partition(".")[0], file, value))
    return tuple(found)


def _memory_v2(memory: Memory) -> Iterator[Write]:
    _check_swap(memory)
    if memory.limit is not None:
        yield Write("memory", "memory.max", _limit(memory.limit))
    if memory.swap == -1:
        yield Write("memory", "memory.swap.max", "max", required=False)
    elif memory.swap:
        yield Write("memory", "memory.swap.max", str(memory.swap - (memory.limit or 0)), required=False)
    if memory.reservation:
        yield Write("memory", "memory.low", _limit(memory.reservation))


def _cpu_v2(cpu: Cpu) -> Iterator[Write]:
    if cpu.shares:
        yield Write("cpu", "cpu.weight", str(weight_of_shares(cpu.shares)))
    if cpu.quota or cpu.period:
        quota = str(cpu.quota) if cpu.quota and cpu.quota > 0 else "max"
        yield Write("cpu", "cpu.max", f"{quota} {cpu.period or _PERIOD_US}")
    if cpu.burst is not None:
        yield Write("cpu", "cpu.max.burst", str(cpu.burst))
    if cpu.cpus:
        yield Write("cpuset", "cpuset.cpus", cpu.cpus)
    if cpu.mems:
        yield Write("cpuset", "cpuset.mems", cpu.mems)


def _block_io_v2(block_io: BlockIO) -> Iterator[Write]:
    if block_io.weight:
        # bfq's 10..1000 becomes 1..10000; which of the two files exists depends on the scheduler
        weight = 1 + (block_io.weight - 10) * (_WEIGHT_MAX - 1) // 990
        yield Write("io", "io.bfq.weight", str(block_io.weight), required=False)
        yield Write("io", "io.weight", f"default {weight}", required=False)
    for key, devices in (
        ("rbps", block_io.throttle_read_bps_device),
        ("wbps", block_io.throttle_write_bps_device),
        ("riops", block_io.throttle_read_iops_device),
        ("wiops", block_io.throttle_write_iops_device),
    ):
        for device in devices:
            yield Write("io", "io.max", f"{device.major}:{device.minor} {key}={device.rate}")


def weight_of_shares(shares: int) -> int:
    """Return cgroup2's weight (1..10000) for v1's shares (2..262144)."""
    shares = min(max(shares, _SHARES_MIN), _SHARES_MAX)
    return 1 + (shares - _SHARES_MIN) * (_WEIGHT_MAX - 1) // (_SHARES_MAX - _SHARES_MIN)


def _check_swap(memory: Memory) -> None:
    if memory.swap and memory.swap > 0 and memory.swap < (memory.limit or 0):
        raise InvalidArgument(f"memory+swap limit {memory.swap} is below the memory limit {memory.limit}")


def _limit(value: int) -> str:
    return str(value) if value > 0 else "max"
