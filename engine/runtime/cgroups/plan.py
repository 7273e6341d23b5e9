"""From the specification's limits to the kernel's files: what both layouts share; pure.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Control groups"; Linux
admin-guide, cgroup-v1/ and cgroup-v2.rst.
"""

import re
from collections.abc import Iterator

import msgspec

from engine.base.errors import InvalidArgument, NotSupported
from engine.spec.runtime import BlockIO, DeviceRule, HugepageLimit, Memory, Resources, ThrottleDevice

_SWAPPINESS_MAX = 100
_PAGE_SIZE = re.compile("[1-9][0-9]*[KMG]B")

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


def swap_of(memory: Memory) -> int | None:
    """Return the limit of memory and swap together that is meant; -1: none, None: nothing is asked for.

    Raises:
        InvalidArgument: it is below the limit of memory, or below -1.
    """
    limit, swap = memory.limit, memory.swap
    for name, value in (("limit", limit), ("swap", swap), ("reservation", memory.reservation)):
        if value is not None and value < -1:
            raise InvalidArgument(f"memory.{name}: out of range: {value}")
    if not swap:
        return -1 if limit == -1 else None
    if swap > 0 and swap < (limit or 0):
        raise InvalidArgument(f"memory+swap limit {swap} is below the memory limit {limit}")
    return swap


def check_swappiness(memory: Memory) -> int | None:
    """Return the swappiness that is asked for, as a percentage.

    Raises:
        InvalidArgument: it is none.
    """
    value = memory.swappiness
    if value is None or value == -1:
        return None
    if not 0 <= value <= _SWAPPINESS_MAX:
        raise InvalidArgument(f"memory.swappiness: out of range: {value}", hint="give 0 to 100")
    return value


def page_size(limit: HugepageLimit) -> str:
    """Return the size of the pages as the kernel's file names have it.

    Raises:
        InvalidArgument: it is none.
    """
    if not _PAGE_SIZE.fullmatch(limit.page_size):
        raise InvalidArgument(f"hugepageLimits: invalid page size: {limit.page_size!r}", hint="as 2MB or 1GB")
    return limit.page_size


def rdma(resources: Resources) -> Iterator[Write]:
    """Yield the limits of RDMA devices; the file is the same in both layouts."""
    for device, limits in resources.rdma.items():
        if not device or any(character.isspace() for character in device):
            raise InvalidArgument(f"rdma: invalid device name: {device!r}")
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
