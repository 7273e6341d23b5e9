"""From the specification's limits to the kernel's files: what both layouts share; pure.

Ranges and names are `validate`'s, which comes first.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Control groups"; Linux
admin-guide, cgroup-v1/ and cgroup-v2.rst.
"""

from collections.abc import Iterator

import msgspec

from engine.base.errors import InvalidArgument, NotSupported
from engine.runtime.validate import inside, shown
from engine.spec.runtime import BlockIO, DeviceRule, Memory, Resources, ThrottleDevice

DEFAULT_DEVICES = (
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    *(DeviceRule(allow=True, type="c", major=1, minor=minor) for minor in (3, 5, 7, 8, 9)),
    *(DeviceRule(allow=True, type="c", major=5, minor=minor) for minor in (0, 1, 2)),
    DeviceRule(allow=True, type="c", major=136),
)
"""null, zero, full, random, urandom; tty, console, ptmx; every pts. Nodes may be made, not opened."""


class Write(msgspec.Struct, frozen=True):
    """One value for one file of one controller.

    Attributes:
        required: False: the kernel may lack the file, which is warned of.
        instead: written when the kernel lacks the file.
        retry: tried once more after all others when the kernel refuses the value: whether it fits
            depends on another file (a burst on the quota, a limit of memory on that of memory and swap).
    """

    controller: str
    file: str
    value: str
    required: bool = True
    instead: "Write | None" = None
    retry: bool = False


def device_rules(resources: Resources) -> tuple[DeviceRule, ...]:
    """Return the rules in force, in order; a later one wins, and nothing is allowed at first.

    A rule of type `a` replaces all before it. The default devices are allowed
    whatever the specification says, as runc does.
    """
    rules: list[DeviceRule] = []
    for rule in (*resources.devices, *DEFAULT_DEVICES):
        if rule.type == "a":
            rules = [rule] if rule.allow else []
        elif not (rules and rules[0].type == "a" and rule.allow):
            rules.append(rule)
    return tuple(rules)


def components(cgroups_path: str) -> tuple[str, ...]:
    """Return the names of a control group's path below the root of every hierarchy.

    Raises:
        NotSupported: it is in systemd's notation (`slice:prefix:name`).
        InvalidArgument: it climbs, is the root, or no group can have that name.
    """
    if cgroups_path.count(":") == 2 and "/" not in cgroups_path:  # noqa: PLR2004 (slice:prefix:name)
        raise NotSupported(
            f"linux.cgroupsPath {cgroups_path!r}: control groups are not asked of systemd",
            hint="have the engine use cgroupfs",
        )
    names = tuple(name for name in cgroups_path.split("/") if name not in ("", "."))
    wrong = "names no group" if not names else inside(cgroups_path)
    if wrong or "\0" in cgroups_path or "\n" in cgroups_path:
        reason = wrong or "a name of control groups has neither NUL nor newline"
        raise InvalidArgument(f"linux.cgroupsPath: {reason}: {shown(cgroups_path)}")
    return names


def swap_of(memory: Memory) -> int | None:
    """Return the limit of memory and swap together that is meant; -1: none, None: nothing is asked for.

    Raises:
        InvalidArgument: it is below the limit of memory.
    """
    limit, swap = memory.limit, memory.swap
    if not swap:
        return -1 if limit == -1 else None
    if swap > 0 and swap < (limit or 0):
        raise InvalidArgument(f"linux.resources.memory.swap: {swap}, memory and swap, is below limit {limit}")
    return swap


def rdma(resources: Resources) -> Iterator[Write]:
    """Yield the limits of RDMA devices; the file is the same in both layouts."""
    for device, limits in resources.rdma.items():
        pairs = (("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects))
        words = [f"{key}={value}" for key, value in pairs if value is not None]
        yield Write("rdma", "rdma.max", " ".join([device, *words]))


def throttles(block_io: BlockIO) -> Iterator[tuple[str, str, ThrottleDevice]]:
    """Yield (name in v1's files, key in io.max, device)."""
    for name, key, devices in (
        ("read_bps", "rbps", block_io.throttle_read_bps_device),
        ("write_bps", "wbps", block_io.throttle_write_bps_device),
        ("read_iops", "riops", block_io.throttle_read_iops_device),
        ("write_iops", "wiops", block_io.throttle_write_iops_device),
    ):
        for device in devices:
            yield name, key, device


def limit_text(value: int) -> str:
    """Return a limit as files have it that know `max`; 0 or less: none."""
    return str(value) if value > 0 else "max"
