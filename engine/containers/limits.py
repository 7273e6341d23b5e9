"""Docker's limits -> those of config.json: memory, processors, tasks, ulimits; pure.

What can never be kept is refused in docker's words; what this engine does not do at all is `spec`'s.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Control groups"; docker's defaults.
"""

import re
from collections.abc import Sequence

from engine.base.errors import InvalidArgument
from engine.containers import security
from engine.runtime.validate import RLIMITS
from engine.spec.docker import HostConfig, Ulimit
from engine.spec.runtime import Cpu, DeviceRule, Memory, Pids, Resources, Rlimit

_NANO_PERIOD = 100_000
_NANO = 1_000_000_000
_PERIOD_MIN_US, _PERIOD_MAX_US, _QUOTA_MIN_US = 1000, 1_000_000, 1000
_PROCESSORS_MAX = 8192  # what a kernel can be built for
_MEMORY_MIN = 6 * 1024 * 1024
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z", re.ASCII)
_CGROUP_PARENT = re.compile(r"/?[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*\Z", re.ASCII)
_RLIMITS = {name.removeprefix("RLIMIT_").lower(): name for name in RLIMITS}


def check(host: HostConfig) -> None:
    """Refuse a limit that can never be kept.

    Raises:
        InvalidArgument: docker's words.
    """
    _check_memory(host)
    _check_cpu(host)
    if min(host.memory, host.nano_cpus, host.shm_size, host.cpu_shares) < 0:
        raise InvalidArgument("negative limit")
    if host.cgroup_parent and not _CGROUP_PARENT.match(host.cgroup_parent):
        raise InvalidArgument(f"invalid CgroupParent: {host.cgroup_parent}")
    if ".." in host.cgroup_parent.split("/"):
        raise InvalidArgument(f"invalid CgroupParent: {host.cgroup_parent}")
    if not -1000 <= host.oom_score_adj <= 1000:  # noqa: PLR2004 (the kernel's range)
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")


def _check_memory(host: HostConfig) -> None:
    if 0 < host.memory < _MEMORY_MIN:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_swap > 0 and not host.memory:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < host.memory_reservation < _MEMORY_MIN:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:  # noqa: PLR2004 (percent)
        raise InvalidArgument(
            f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100"
        )


def _check_cpu(host: HostConfig) -> None:
    if host.nano_cpus and (host.cpu_quota or host.cpu_period):
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
    if host.cpu_period and not _PERIOD_MIN_US <= host.cpu_period <= _PERIOD_MAX_US:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < host.cpu_quota < _QUOTA_MIN_US:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")


def check_processors(host: HostConfig, online: frozenset[int]) -> None:
    """Refuse more processors, or others, than there are; `online` are the machine's.

    Raises:
        InvalidArgument: docker's words.
    """
    count = len(online)
    if not 0 <= host.nano_cpus <= count * _NANO:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    if number_list(host.cpuset_cpus, "cpuset cpus") - online:
        available = ",".join(map(str, sorted(online)))
        raise InvalidArgument(
            f"Requested CPUs are not available - requested {host.cpuset_cpus}, available: {available}"
        )


def number_list(text: str, noun: str) -> frozenset[int]:
    """Return the numbers of `0-2,7`, the kernel's and docker's way to write a set of processors.

    Raises:
        InvalidArgument: it is written in another way; docker's words.
    """
    found: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        match = _RANGE.match(part)
        first = int(match[1]) if match else 0
        last = int(match[2] or match[1]) if match else -1
        if not first <= last < _PROCESSORS_MAX:
            raise InvalidArgument(f"Invalid value {text} for {noun}")
        found.update(range(first, last + 1))
    return frozenset(found)


def resources(host: HostConfig, rules: Sequence[DeviceRule], mode: security.Mode) -> Resources:
    """Return the limits of the container's control group, with the `rules` of its devices."""
    return Resources(devices=tuple(rules), memory=_memory(host), cpu=_cpu(host), pids=_pids(host, mode))


def _memory(host: HostConfig) -> Memory | None:
    swappiness = host.memory_swappiness
    asked = host.memory or host.memory_reservation or host.memory_swap or host.oom_kill_disable
    if not asked and swappiness in {None, -1}:
        return None
    swap = host.memory_swap or (2 * host.memory if host.memory else 0)
    return Memory(
        limit=host.memory or None,
        reservation=host.memory_reservation or None,
        swap=swap or None,
        swappiness=None if swappiness in {None, -1} else swappiness,
        disable_oom_killer=bool(host.oom_kill_disable),
    )


def _cpu(host: HostConfig) -> Cpu | None:
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus:
        period = _NANO_PERIOD
        quota = host.nano_cpus * period // _NANO
    if not (quota or period or host.cpu_shares or host.cpuset_cpus or host.cpuset_mems):
        return None
    return Cpu(
        shares=host.cpu_shares or None,
        quota=quota or None,
        period=period or None,
        cpus=host.cpuset_cpus,
        mems=host.cpuset_mems,
    )


def _pids(host: HostConfig, mode: security.Mode) -> Pids | None:
    limit = host.pids_limit or 0
    if limit > 0:
        return Pids(limit=limit)
    if limit == 0 and mode is security.Mode.STRICT:
        return Pids(limit=security.STRICT_PIDS_LIMIT)
    return None


def rlimits(ulimits: Sequence[Ulimit]) -> tuple[Rlimit, ...]:
    """Return the resource limits of the process.

    Raises:
        InvalidArgument: docker's words.
    """
    result = []
    for limit in ulimits:
        if limit.name not in _RLIMITS:
            raise InvalidArgument(f"invalid ulimit type: {limit.name}")
        if limit.soft > limit.hard >= 0:
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
        unlimited = 2**64 - 1
        result.append(
            Rlimit(
                type=_RLIMITS[limit.name],
                hard=limit.hard if limit.hard >= 0 else unlimited,
                soft=limit.soft if limit.soft >= 0 else unlimited,
            )
        )
    return tuple(result)
