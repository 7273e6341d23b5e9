"""What `update` asks for: the container's limits with some changed; pure.

Source: runc-update(8); OCI runtime-spec 1.2.0, config-linux.md, "Control groups".
"""

import re
from argparse import Namespace
from typing import TypeVar

import msgspec

from engine.base.errors import InvalidArgument, NotSupported
from engine.base.units import parse_size
from engine.spec.runtime import BlockIO, Cpu, Memory, Pids, Resources

_Part = TypeVar("_Part", bound=msgspec.Struct)
_NUMBER = re.compile(r"-?[0-9]+")
_ZERO_IS_A_VALUE = frozenset({"idle", "burst", "realtime_runtime", "swappiness"})


def updated(old: Resources, change: Resources) -> Resources:
    """Return `old` with all that `change` sets; the device rules stay as they are.

    Zeros are unset, as runc has it: callers fill what they do not mean to change with them.
    """
    return msgspec.structs.replace(_merged(old, change), devices=old.devices)


def _merged(old: _Part, change: _Part) -> _Part:
    found: dict[str, object] = {}
    for name in change.__struct_fields__:
        new, before = getattr(change, name), getattr(old, name)
        if new is None or new is False or new in ("", (), {}):
            continue
        if new == 0 and name not in _ZERO_IS_A_VALUE:
            continue
        both = isinstance(new, msgspec.Struct) and isinstance(before, msgspec.Struct)
        found[name] = _merged(before, new) if both else new
    return msgspec.structs.replace(old, **found)


def asked(flags: Namespace) -> Resources:
    """Return what the command line asks to change, without `--resources`.

    Raises:
        InvalidArgument: a value is malformed.
        NotSupported: it is about Intel RDT.
    """
    for name in ("l3_cache_schema", "mem_bw_schema"):
        if getattr(flags, name):
            raise NotSupported(f"{_flag(name)}: Intel RDT is not supported by this runtime")
    memory = Memory(
        limit=_size(flags, "memory"),
        reservation=_size(flags, "memory_reservation"),
        swap=_size(flags, "memory_swap"),
        kernel=_size(flags, "kernel_memory"),
        kernel_tcp=_size(flags, "kernel_memory_tcp"),
    )
    cpu = Cpu(
        shares=_number(flags, "cpu_share"),
        quota=_number(flags, "cpu_quota"),
        period=_number(flags, "cpu_period"),
        burst=_number(flags, "cpu_burst"),
        realtime_period=_number(flags, "cpu_rt_period"),
        realtime_runtime=_number(flags, "cpu_rt_runtime"),
        cpus=flags.cpuset_cpus,
        mems=flags.cpuset_mems,
        idle=_number(flags, "cpu_idle"),
    )
    pids = _number(flags, "pids_limit")
    weight = _number(flags, "blkio_weight")
    return Resources(
        memory=None if memory == Memory() else memory,
        cpu=None if cpu == Cpu() else cpu,
        pids=None if pids is None else Pids(limit=pids),
        block_io=None if weight is None else BlockIO(weight=weight),
    )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _number(flags: Namespace, name: str) -> int | None:
    text: str | None = getattr(flags, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise InvalidArgument(f"{_flag(name)}: not a number: {text!r}")
    return int(text)


def _size(flags: Namespace, name: str) -> int | None:
    text: str | None = getattr(flags, name)
    if text is None:
        return None
    if text == "-1":
        return -1
    try:
        return parse_size(text)
    except InvalidArgument:
        raise InvalidArgument(f"{_flag(name)}: not a size: {text!r}", hint="as 1048576 or 1m") from None
