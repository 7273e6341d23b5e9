"""What a config.json may hold beyond its types: ranges, lengths and words, each refused by its field's name.

Decoding has seen to types. Here every text and number is visited under its path in the document,
`linux.devices[0].major`; the tables below know the path without indices. What depends on more than
one field is `plan`'s.

Source: OCI runtime-spec 1.2.0, config.md and config-linux.md; cpuset(7), sethostname(2), execve(2).
"""

from collections.abc import Callable, Mapping
from functools import cache

import msgspec

from engine.base.errors import InvalidArgument

_SIGNED = (-(1 << 63), (1 << 63) - 1)
_RLIMIT_NAMES = (
    "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
)
RLIMITS = {f"RLIMIT_{name}": number for number, name in enumerate(_RLIMIT_NAMES.split())}
_UNSIGNED = (0, (1 << 64) - 1)
_NATURAL = (0, (1 << 63) - 1)
_LIMIT = (-1, (1 << 63) - 1)  # -1: none
_ID = (0, (1 << 31) - 1)
_ERRNO = (0, 4095)
_HOST_NAME_MAX = 64
_NAME_MAX = 255
_PATH_MAX = 4095
_ARGUMENT_MAX = 32 * 4096  # MAX_ARG_STRLEN, with the final NUL
_SHOWN_MAX = 64

_RANGES: Mapping[str, tuple[int, int]] = {
    "process.consoleSize.height": (0, 0xFFFF),
    "process.consoleSize.width": (0, 0xFFFF),
    "process.user.uid": _ID,
    "process.user.gid": _ID,
    "process.user.umask": (0, 0o777),
    "process.user.additionalGids[]": _ID,
    "process.oomScoreAdj": (-1000, 1000),
    "process.rlimits[].soft": _UNSIGNED,
    "process.rlimits[].hard": _UNSIGNED,
    "linux.devices[].major": (0, 0xFFF),
    "linux.devices[].minor": (0, 0xFFFFF),
    "linux.devices[].fileMode": (0, 0o177777),
    "linux.devices[].uid": _ID,
    "linux.devices[].gid": _ID,
    "linux.resources.devices[].major": (-1, 0xFFFFFFFF),
    "linux.resources.devices[].minor": (-1, 0xFFFFFFFF),
    "linux.resources.memory.limit": _LIMIT,
    "linux.resources.memory.reservation": _LIMIT,
    "linux.resources.memory.swap": _LIMIT,
    "linux.resources.memory.swappiness": (0, 200),
    "linux.resources.cpu.shares": _UNSIGNED,
    "linux.resources.cpu.quota": _LIMIT,
    "linux.resources.cpu.period": _NATURAL,
    "linux.resources.cpu.burst": _NATURAL,
    "linux.seccomp.defaultErrnoRet": _ERRNO,
    "linux.seccomp.syscalls[].errnoRet": _ERRNO,
    "linux.seccomp.syscalls[].args[].index": (0, 5),
    "linux.seccomp.syscalls[].args[].value": _UNSIGNED,
    "linux.seccomp.syscalls[].args[].valueTwo": _UNSIGNED,
}
_PROPAGATIONS = frozenset({"private", "shared", "slave", "unbindable"})
_RECURSIVE = frozenset(f"r{kind}" for kind in _PROPAGATIONS)
_CPU_LIST = frozenset("0123456789,-")


def _host_name(text: str) -> str:
    return "" if len(text.encode("utf-8", "surrogateescape")) <= _HOST_NAME_MAX else "longer than 64 bytes"


def _absolute(text: str) -> str:
    return _inside(text) if text.startswith("/") else "not an absolute path"


def _inside(text: str) -> str:
    """Say what is wrong with a path inside the container."""
    if not text:
        return "empty"
    names = text.split("/")
    if ".." in names:
        return "no '..' may be in it"
    return _lengths(text)


def _lengths(text: str) -> str:
    names = text.split("/")
    fits = len(text) <= _PATH_MAX and all(len(name) <= _NAME_MAX for name in names)
    return "" if fits else "too long for a path"


def _cpu_list(text: str) -> str:
    return "" if len(text) <= _PATH_MAX and _CPU_LIST.issuperset(text) else "not a list of numbers"


def _word(text: str) -> str:
    return "" if len(text.encode("utf-8", "surrogateescape")) < _ARGUMENT_MAX else "longer than execve takes"


def _variable(text: str) -> str:
    return _word(text) if text and not text.startswith("=") else "a variable without a name"


def _propagation(text: str) -> str:
    kind = text[1:] if text in _RECURSIVE else text
    return "" if not text or kind in _PROPAGATIONS else "not a propagation of mounts"


def _not_empty(text: str) -> str:
    return "" if text else "empty"


def _rlimit(text: str) -> str:
    return "" if text in RLIMITS else "unknown resource limit"


_TEXTS: Mapping[str, Callable[[str], str]] = {  # what is wrong with it; "": nothing
    "process.cwd": _absolute,
    "process.args[]": _word,
    "process.env[]": _variable,
    "process.rlimits[].type": _rlimit,
    "root.path": lambda text: _not_empty(text) or _lengths(text),
    "hostname": _host_name,
    "domainname": _host_name,
    "mounts[].destination": _inside,
    "linux.cgroupsPath": lambda text: _inside(text) if text else "",
    "linux.rootfsPropagation": _propagation,
    "linux.devices[].path": _absolute,
    "linux.maskedPaths[]": _absolute,
    "linux.readonlyPaths[]": _absolute,
    "linux.resources.cpu.cpus": _cpu_list,
    "linux.resources.cpu.mems": _cpu_list,
    "linux.seccomp.syscalls[].names[]": _not_empty,
}


def check(document: msgspec.Struct, name: str = "", *, leave: str = "") -> None:
    """Refuse `document`, which is at the field `name` of a config.json, for what a field of it holds.

    The field `leave` of it is not looked at.

    Raises:
        InvalidArgument: a number or a text is none that the field can have.
    """
    start = f"{name}." if name else ""
    for attribute, key in _fields(type(document)):
        if key != leave:
            _check(getattr(document, attribute), f"{start}{key}", f"{start}{key}")


def _check(value: object, rule: str, path: str) -> None:
    """Check what is at `path`; `rule` is the same without the indices."""
    if isinstance(value, str):
        _refuse(path, value, _wrong_text(_TEXTS.get(rule), value))
    elif isinstance(value, tuple):
        below = f"{rule}[]"
        for index, item in enumerate(value):
            _check(item, below, f"{path}[{index}]")
    elif isinstance(value, msgspec.Struct):
        for attribute, key in _fields(type(value)):
            _check(getattr(value, attribute), f"{rule}.{key}", f"{path}.{key}")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse(path, key, _wrong_text(None, key))
            _check(item, f"{rule}.{key}", f"{path}.{key}")
    elif isinstance(value, int):
        low, high = _RANGES.get(rule, _SIGNED)
        _refuse(path, value, "" if low <= value <= high else f"not within {low} and {high}")


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    return tuple((field.name, field.encode_name) for field in msgspec.structs.fields(kind))


def _wrong_text(judge: Callable[[str], str] | None, text: str) -> str:
    if "\0" in text:
        return "contains NUL"
    return judge(text) if judge else ""


def _refuse(path: str, value: object, wrong: str) -> None:
    if wrong:
        text = repr(value)
        short = text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."
        raise InvalidArgument(f"{path}: {wrong}: {short}")
