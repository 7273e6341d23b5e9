"""What a config.json may hold beyond its types: ranges, lengths and words, each refused by its field's name.

Decoding has seen to types. Here every text and number is visited, and refused under its path in the
document, `linux.devices[0].major`; the rules below go by the class that has the field, `Device.major`,
with `[]` for an item of a list, `{}` for a value and `{}key` for a name of a map. What depends on more
than one field is `plan`'s, and what a word means is known where it is used.

Source: OCI runtime-spec 1.2.0, config.md, config-linux.md and schema/; cpuset(7), sethostname(2),
execve(2); Linux scheduler/sched-bwc.rst, kernel/cgroup/pids.c, rdma.c.
"""

import re
from collections.abc import Callable, Collection, Mapping
from functools import cache

import msgspec

from engine.base.errors import InvalidArgument
from engine.kernel import scheduling
from engine.runtime import seccomp

_SIGNED = (-(1 << 63), (1 << 63) - 1)
_RLIMIT_NAMES = (
    "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
)
RLIMITS = {f"RLIMIT_{name}": number for number, name in enumerate(_RLIMIT_NAMES.split())}
_UNSIGNED = (0, (1 << 64) - 1)
_WORD32 = (0, (1 << 32) - 1)
_NATURAL = (0, (1 << 63) - 1)
_LIMIT = (-1, (1 << 63) - 1)  # -1: none
_ID = (0, (1 << 32) - 2)  # the last number is no id
_SIZE = (1, (1 << 32) - 1)
_MAJOR, _MINOR = (0, (1 << 12) - 1), (0, (1 << 20) - 1)
_WEIGHT = (10, 1000)
_BANDWIDTH_MAX = (1 << 44) - 1  # microseconds
_HOST_NAME_MAX = 64
_NAME_MAX = 255
_PATH_MAX = 4095
_LINE_MAX = 4095
_INTERFACE_MAX = 15
_ARGUMENT_MAX = 32 * 4096  # MAX_ARG_STRLEN, with the final NUL
_GROUPS_MAX = 65536  # NGROUPS_MAX
_SHOWN_MAX = 64

_RANGES: Mapping[str, tuple[int, int]] = {
    "ConsoleSize.height": (0, 0xFFFF),
    "ConsoleSize.width": (0, 0xFFFF),
    "User.uid": _ID,
    "User.gid": _ID,
    "User.umask": (0, 0o777),
    "User.additionalGids[]": _ID,
    "Process.oomScoreAdj": (-1000, 1000),
    "Rlimit.soft": _UNSIGNED,
    "Rlimit.hard": _UNSIGNED,
    "Hook.timeout": (1, 86400 * 366),
    "IdMapping.containerID": _ID,
    "IdMapping.hostID": _ID,
    "IdMapping.size": _SIZE,
    "Device.major": _MAJOR,
    "Device.minor": _MINOR,
    "Device.fileMode": (0, 0o177777),  # runtimes are given the type's bits too
    "Device.uid": _ID,
    "Device.gid": _ID,
    "DeviceRule.major": (-1, 0xFFFFFFFF),
    "DeviceRule.minor": (-1, 0xFFFFFFFF),
    "Memory.limit": _LIMIT,
    "Memory.reservation": _LIMIT,
    "Memory.swap": _LIMIT,
    "Memory.kernel": _LIMIT,
    "Memory.kernelTCP": _LIMIT,
    "Memory.swappiness": (0, 100),
    "Cpu.shares": _UNSIGNED,
    "Cpu.quota": (1000, _BANDWIDTH_MAX),
    "Cpu.period": (1000, 1_000_000),
    "Cpu.burst": (0, _BANDWIDTH_MAX),
    "Cpu.realtimePeriod": _NATURAL,
    "Cpu.realtimeRuntime": _LIMIT,
    "Cpu.idle": (0, 1),
    "Pids.limit": (-(1 << 63), 1 << 22),
    "BlockIO.weight": _WEIGHT,
    "BlockIO.leafWeight": _WEIGHT,
    "WeightDevice.weight": _WEIGHT,
    "WeightDevice.leafWeight": _WEIGHT,
    "WeightDevice.major": _MAJOR,
    "WeightDevice.minor": _MINOR,
    "ThrottleDevice.major": _MAJOR,
    "ThrottleDevice.minor": _MINOR,
    "ThrottleDevice.rate": _UNSIGNED,
    "HugepageLimit.limit": _UNSIGNED,
    "NetworkResources.classID": _WORD32,
    "InterfacePriority.priority": _WORD32,
    "Rdma.hcaHandles": (0, (1 << 31) - 1),
    "Rdma.hcaObjects": (0, (1 << 31) - 1),
    "Seccomp.defaultErrnoRet": (0, 0xFFFF),
    "SeccompRule.errnoRet": (0, 0xFFFF),
    "SeccompArg.index": (0, 5),
    "SeccompArg.value": _UNSIGNED,
    "SeccompArg.valueTwo": _UNSIGNED,
    "TimeOffset.secs": (-((1 << 63) // 10**9), (1 << 63) // 10**9),  # KTIME_SEC_MAX
    "TimeOffset.nanosecs": (0, 10**9 - 1),
}
_BESIDES: Mapping[str, tuple[int, ...]] = {  # what else stands for no limit
    "Cpu.quota": (-1, 0),
    "Cpu.period": (0,),
    "BlockIO.weight": (0,),
    "BlockIO.leafWeight": (0,),
    "WeightDevice.weight": (0,),
    "WeightDevice.leafWeight": (0,),
}
_LENGTHS: Mapping[str, int] = {"User.additionalGids": _GROUPS_MAX}  # of lists
_PROPAGATIONS = frozenset({"private", "shared", "slave", "unbindable"})
_RECURSIVE = frozenset(f"r{kind}" for kind in _PROPAGATIONS)
_VERSION = r"[0-9]+\.[0-9]+\.[0-9]+([-+][0-9A-Za-z.+-]+)?"
_CPU_LIST = r"([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?"
_PAGE_SIZE = r"[1-9][0-9]{0,9}[KMG]B"


def _host_name(text: str) -> str:
    return "" if _bytes(text) <= _HOST_NAME_MAX else "longer than 64 bytes"


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _absolute(text: str) -> str:
    return inside(text) if text.startswith("/") else "not an absolute path"


def inside(text: str) -> str:
    """Say what is wrong with a path inside the container."""
    if not text:
        return "empty"
    if ".." in text.split("/"):
        return "no '..' may be in it"
    return _lengths(text)


def _of_host(text: str) -> str:
    """Say what is wrong with an absolute path of the host."""
    return _lengths(text) if text.startswith("/") else "not an absolute path"


def _lengths(text: str) -> str:
    fits = _bytes(text) <= _PATH_MAX and all(_bytes(name) <= _NAME_MAX for name in text.split("/"))
    return "" if fits else "too long for a path"


def _word(text: str) -> str:
    return "" if _bytes(text) < _ARGUMENT_MAX else "longer than execve takes"


def _variable(text: str) -> str:
    return _word(text) if text and not text.startswith("=") else "a variable without a name"


def _propagation(text: str) -> str:
    kind = text[1:] if text in _RECURSIVE else text
    return "" if not text or kind in _PROPAGATIONS else "not a propagation of mounts"


def _not_empty(text: str) -> str:
    return "" if text else "empty"


def _line(text: str) -> str:
    return "" if _bytes(text) <= _LINE_MAX else "too long"


def _matches(pattern: str, wrong: str) -> Callable[[str], str]:
    return lambda text: "" if len(text) <= _PATH_MAX and re.fullmatch(pattern, text) else wrong


def _optional(judge: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: judge(text) if text else ""


def _one_of(words: Collection[str]) -> Callable[[str], str]:
    known = frozenset(words)
    return lambda text: "" if text in known else "unknown"


def _access(text: str) -> str:
    wrong = len(set(text)) != len(text) or not set("rwm").issuperset(text)
    return "not some of r, w and m" if wrong else ""


def _type_of(letters: str) -> Callable[[str], str]:
    return lambda text: "" if len(text) == 1 and text in letters else f"none of {', '.join(letters)}"


def _token(text: str) -> str:
    return "" if text and not any(map(str.isspace, text)) and _bytes(text) <= _NAME_MAX else "not a name"


def _interface(text: str) -> str:
    return _token(text) if _bytes(text) <= _INTERFACE_MAX else f"longer than {_INTERFACE_MAX} bytes"


def _group_file(text: str) -> str:
    """Say what is wrong with the name of a control group's file, as `memory.high`."""
    controller, dot, rest = text.partition(".")
    return "" if controller and dot and rest and "/" not in text and not _token(text) else "not a file's name"


_TEXTS: Mapping[str, Callable[[str], str]] = {  # what is wrong with it; "": nothing
    "Spec.ociVersion": _matches(_VERSION, "not a version, as 1.2.0"),
    "Process.cwd": _absolute,
    "Process.args[]": _word,
    "Process.env[]": _variable,
    "Rlimit.type": _one_of(RLIMITS),
    "Scheduler.policy": _one_of((*scheduling.POLICIES, "SCHED_ISO")),
    "Scheduler.flags[]": _one_of(scheduling.SCHED_FLAGS),
    "IoPriority.class": _one_of(scheduling.IO_CLASSES),
    "Personality.domain": _one_of(scheduling.PERSONALITIES),
    "Hook.path": _of_host,
    "Hook.args[]": _word,
    "Hook.env[]": _variable,
    "Root.path": lambda text: _not_empty(text) or _lengths(text),
    "Spec.hostname": _host_name,
    "Spec.domainname": _host_name,
    "Spec.annotations{}key": _not_empty,
    "Mount.destination": inside,
    "Mount.type": _line,
    "Mount.source": _word,  # of an overlay it may be anything
    "Mount.options[]": _word,
    "Namespace.path": _optional(_of_host),
    "Linux.rootfsPropagation": _propagation,
    "Device.path": _absolute,
    "Device.type": _type_of("cbup"),
    "DeviceRule.type": _type_of("acbu"),
    "DeviceRule.access": _access,
    "Linux.maskedPaths[]": _absolute,
    "Linux.readonlyPaths[]": _absolute,
    "Cpu.cpus": _matches(_CPU_LIST, "not a list of numbers"),
    "Cpu.mems": _matches(_CPU_LIST, "not a list of numbers"),
    "HugepageLimit.pageSize": _matches(_PAGE_SIZE, "not a size of pages, as 2MB or 1GB"),
    "InterfacePriority.name": _interface,
    "Resources.rdma{}key": _token,
    "Resources.unified{}key": _group_file,
    "Resources.unified{}": _line,
    "Seccomp.defaultAction": _one_of(seccomp.actions()),
    "Seccomp.architectures[]": _one_of(seccomp.architectures()),
    "Seccomp.flags[]": _one_of(seccomp.FLAGS),
    "SeccompRule.action": _one_of(seccomp.actions()),
    "SeccompArg.op": _one_of(seccomp.OPERATORS),
    "SeccompRule.names[]": _not_empty,
    "Seccomp.listenerPath": _optional(_of_host),
}


def check(document: msgspec.Struct, name: str = "", *, leave: str = "") -> None:
    """Refuse `document`, which is at the field `name` of a config.json, for what a field of it holds.

    The field `leave` of it is not looked at.

    Raises:
        InvalidArgument: a number or a text is none that the field can have.
    """
    _check_fields(document, f"{name}." if name else "", leave)


def _check_fields(document: msgspec.Struct, start: str, leave: str = "") -> None:
    kind = type(document)
    for attribute, key in _fields(kind):
        if key != leave:
            _check(getattr(document, attribute), f"{kind.__name__}.{key}", f"{start}{key}")


def _check(value: object, rule: str, path: str) -> None:
    """Check what is at `path`; `rule` names the field, whoever has it."""
    if isinstance(value, str):
        _refuse(path, value, _wrong_text(rule, value))
    elif isinstance(value, tuple):
        if len(value) > _LENGTHS.get(rule, len(value)):
            raise InvalidArgument(f"{path}: {len(value)} of them, more than {_LENGTHS[rule]}")
        below = f"{rule}[]"
        for index, item in enumerate(value):
            _check(item, below, f"{path}[{index}]")
    elif isinstance(value, msgspec.Struct):
        _check_fields(value, f"{path}.")
    elif isinstance(value, dict):
        names, values = f"{rule}{{}}key", f"{rule}{{}}"
        for key, item in value.items():
            _refuse(path, key, _wrong_text(names, key))
            _check(item, values, f"{path}.{shown(key, quote=False)}")
    elif isinstance(value, int):
        low, high = _RANGES.get(rule, _SIGNED)
        fits = low <= value <= high or value in _BESIDES.get(rule, ())
        _refuse(path, value, "" if fits else f"not within {low} and {high}")


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    return tuple((field.name, field.encode_name) for field in msgspec.structs.fields(kind))


def _wrong_text(rule: str, text: str) -> str:
    if "\0" in text:
        return "contains NUL"
    judge = _TEXTS.get(rule)
    return judge(text) if judge else ""


def _refuse(path: str, value: object, wrong: str) -> None:
    if wrong:
        raise InvalidArgument(f"{path}: {wrong}: {shown(value)}")


def shown(value: object, *, quote: bool = True) -> str:
    """Return `value` for a message: in one line, printable, and short."""
    text = repr(value)
    if not quote:
        text = text[1:-1]
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."
