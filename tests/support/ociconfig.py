"""config.json field by field: a whole document, what each field may hold, and values that none may.

The table says of every field what runtime-spec 1.2.0's schema says (config-schema.json, config-linux.json,
defs.json, defs-linux.json), and after it what of that this runtime takes where that is less.

    !  has to be there        ?  null means that it is not there
    N..M  a number's range    texts: a kind of `TEXTS`, with the samples that it takes
"""

import copy
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NewType

from engine.runtime.hooks import KINDS

Raw = NewType("Raw", bytes)
MISSING = object()
GROUP = f"pyengine-bad-config-{os.getpid()}"
_MARK = "@value@"

WHOLE: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": False,
        "consoleSize": {"height": 24, "width": 80},
        "cwd": "/",
        "args": ["/bin/true"],
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1]},
        "capabilities": {
            name: ["CAP_CHOWN"] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 100, "soft": 100}],
        "noNewPrivileges": True,
        "oomScoreAdj": 1,
        "apparmorProfile": "",
        "selinuxLabel": "",
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "nice": 0,
            "priority": 0,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            "runtime": 1_000_000,
            "deadline": 2_000_000,
            "period": 4_000_000,
        },
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h",
    "domainname": "d",
    "mounts": [
        {
            "destination": "/data",
            "type": "bind",
            "source": "/tmp",
            "options": ["rbind"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        }
    ],
    "hooks": {
        kind: [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 10}] for kind in KINDS
    },
    "annotations": {"key": "value"},
    "linux": {
        "namespaces": [
            {"type": "network", "path": "/proc/1/ns/net"},
            *({"type": kind} for kind in ("mount", "pid", "uts", "ipc", "user", "cgroup", "time")),
        ],
        "uidMappings": [{"containerID": 0, "hostID": 0, "size": 4294967295}],
        "gidMappings": [{"containerID": 0, "hostID": 0, "size": 4294967295}],
        "devices": [
            {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}
        ],
        "cgroupsPath": f"/{GROUP}",
        "resources": {
            "devices": [{"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
            "memory": {
                "limit": 100_000_000,
                "reservation": 50_000_000,
                "swap": 200_000_000,
                "kernel": -1,
                "kernelTCP": -1,
                "swappiness": 60,
                "disableOOMKiller": False,
                "useHierarchy": True,
                "checkBeforeUpdate": True,
            },
            "cpu": {
                "shares": 100,
                "quota": 10_000,
                "burst": 10,
                "period": 100_000,
                "realtimeRuntime": 10_000,
                "realtimePeriod": 100_000,
                "cpus": "0",
                "mems": "0",
                "idle": 0,
            },
            "pids": {"limit": 100},
            "blockIO": {
                "weight": 10,
                "leafWeight": 10,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 10}],
            }
            | {
                f"throttle{what}Device": [{"major": 8, "minor": 0, "rate": 1_000_000}]
                for what in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]},
            "rdma": {"mlx5_0": {"hcaHandles": 1, "hcaObjects": 1}},
            "unified": {"memory.high": "max"},
        },
        "sysctl": {"kernel.shmmax": "1000000"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/agent.sock",
            "listenerMetadata": "m",
            "syscalls": [
                {
                    "names": ["mkdir"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
        "rootfsPropagation": "private",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "",
        "personality": {"domain": "LINUX", "flags": []},
        "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 1}},
    },
}

_IDS = "0..4294967294"
_MAPPINGS = """
    []             object
    [].containerID uint32! 0..4294967294
    [].hostID      uint32! 0..4294967294
    [].size        uint32! 1..4294967295
"""
_DEVICE = """
    []       object
    [].major int64! 0..4095
    [].minor int64! 0..1048575
"""
_THROTTLE = f"{_DEVICE}    [].rate uint64"
_HOOKS = """
    []         object
    [].path    text! host-path
    [].args    list
    [].args[]  text argument
    [].env     list
    [].env[]   text variable
    [].timeout integer? 1..31622400
"""
_WORDS = "[] text any"
_PLAIN = """
ociVersion                  text! word
process                     object?
process.terminal            flag
process.consoleSize         object?
process.consoleSize.height  uint64! 0..65535
process.consoleSize.width   uint64! 0..65535
process.cwd                 text! path
process.args                list
process.args[]              text argument
process.env                 list
process.env[]               text variable
process.user                object
process.user.uid            uint32 0..4294967294
process.user.gid            uint32 0..4294967294
process.user.umask          uint32? 0..511
process.user.additionalGids list
process.user.additionalGids[] uint32 0..4294967294
process.capabilities        object?
process.rlimits             list
process.rlimits[]           object
process.rlimits[].type      text! word
process.rlimits[].hard      uint64!
process.rlimits[].soft      uint64!
process.noNewPrivileges     flag
process.oomScoreAdj         integer? -1000..1000
process.apparmorProfile     text none
process.selinuxLabel        text none
process.scheduler           object?
process.scheduler.policy    text! word
process.scheduler.nice      int32 -20..19
process.scheduler.priority  int32 0..99
process.scheduler.flags     list
process.scheduler.flags[]   text word
process.scheduler.runtime   uint64 0..9223372036854775807
process.scheduler.deadline  uint64 0..9223372036854775807
process.scheduler.period    uint64 0..9223372036854775807
process.ioPriority          object?
process.ioPriority.class    text! word
process.ioPriority.priority int32 0..7
root                        object?
root.path                   text! root
root.readonly               flag
hostname                    text short
domainname                  text short
mounts                      list
mounts[]                    object
mounts[].destination        text! in-container
mounts[].type               text line
mounts[].source             text argument
mounts[].options            list
mounts[].options[]          text argument
mounts[].uidMappings        list
mounts[].gidMappings        list
hooks                       object?
annotations                 map
annotations{}               text any
linux                       object
linux.namespaces            list
linux.namespaces[]          object
linux.namespaces[].type     text! word
linux.namespaces[].path     text host-path-or-none
linux.uidMappings           list
linux.gidMappings           list
linux.devices               list
linux.devices[]             object
linux.devices[].path        text! path
linux.devices[].type        text! word
linux.devices[].major       int64 0..4095
linux.devices[].minor       int64 0..1048575
linux.devices[].fileMode    integer? 0..65535
linux.devices[].uid         uint32 0..4294967294
linux.devices[].gid         uint32 0..4294967294
linux.cgroupsPath           text group
linux.resources             object?
linux.resources.devices     list
linux.resources.devices[]   object
linux.resources.devices[].allow  flag!
linux.resources.devices[].type   text word
linux.resources.devices[].major  int64? -1..4294967295
linux.resources.devices[].minor  int64? -1..4294967295
linux.resources.devices[].access text access
linux.resources.memory      object?
linux.resources.memory.limit       int64? -1..9223372036854775807
linux.resources.memory.reservation int64? -1..9223372036854775807
linux.resources.memory.swap        int64? -1..9223372036854775807
linux.resources.memory.kernel      int64? -1..9223372036854775807
linux.resources.memory.kernelTCP   int64? -1..9223372036854775807
linux.resources.memory.swappiness  uint64? 0..100
linux.resources.memory.disableOOMKiller  flag
linux.resources.memory.useHierarchy      flag?
linux.resources.memory.checkBeforeUpdate flag
linux.resources.cpu         object?
linux.resources.cpu.shares  uint64?
linux.resources.cpu.quota   int64? -1..17592186044415
linux.resources.cpu.period  uint64? 0..1000000
linux.resources.cpu.burst   uint64? 0..17592186044415
linux.resources.cpu.realtimeRuntime int64? -1..9223372036854775807
linux.resources.cpu.realtimePeriod  uint64? 0..9223372036854775807
linux.resources.cpu.cpus    text numbers
linux.resources.cpu.mems    text numbers
linux.resources.cpu.idle    int64? 0..1
linux.resources.pids        object?
linux.resources.pids.limit  int64! -9223372036854775808..4194304
linux.resources.blockIO     object?
linux.resources.blockIO.weight       uint16? 0..1000
linux.resources.blockIO.leafWeight   uint16? 0..1000
linux.resources.blockIO.weightDevice list
linux.resources.blockIO.weightDevice[].weight     uint16? 0..1000
linux.resources.blockIO.weightDevice[].leafWeight uint16? 0..1000
linux.resources.hugepageLimits            list
linux.resources.hugepageLimits[]          object
linux.resources.hugepageLimits[].pageSize text! word
linux.resources.hugepageLimits[].limit    uint64!
linux.resources.network                       object?
linux.resources.network.classID               uint32?
linux.resources.network.priorities            list
linux.resources.network.priorities[]          object
linux.resources.network.priorities[].name     text! name
linux.resources.network.priorities[].priority uint32!
linux.resources.rdma              map
linux.resources.rdma{}            object
linux.resources.rdma{}.hcaHandles uint32? 0..2147483647
linux.resources.rdma{}.hcaObjects uint32? 0..2147483647
linux.resources.unified           map
linux.resources.unified{}         text line
linux.sysctl                      map
linux.sysctl{}                    text one-line
linux.seccomp                     object?
linux.seccomp.defaultAction       text! word
linux.seccomp.defaultErrnoRet     uint32? 0..4095
linux.seccomp.architectures       list
linux.seccomp.architectures[]     text word
linux.seccomp.flags               list
linux.seccomp.flags[]             text word
linux.seccomp.listenerPath        text host-path-or-none
linux.seccomp.listenerMetadata    text any
linux.seccomp.syscalls                   list
linux.seccomp.syscalls[]                 object
linux.seccomp.syscalls[].names           list!
linux.seccomp.syscalls[].names[]         text name-of-any-kernel
linux.seccomp.syscalls[].action          text! word
linux.seccomp.syscalls[].errnoRet        uint32? 0..4095
linux.seccomp.syscalls[].args            list
linux.seccomp.syscalls[].args[]          object
linux.seccomp.syscalls[].args[].index    uint32! 0..5
linux.seccomp.syscalls[].args[].value    uint64!
linux.seccomp.syscalls[].args[].valueTwo uint64
linux.seccomp.syscalls[].args[].op       text! word
linux.rootfsPropagation    text word-or-none
linux.maskedPaths          list
linux.maskedPaths[]        text path
linux.readonlyPaths        list
linux.readonlyPaths[]      text path
linux.mountLabel           text none
linux.intelRdt             object? never
linux.personality          object?
linux.personality.domain   text! word
linux.personality.flags    list
linux.personality.flags[]  text never
linux.timeOffsets          map
linux.timeOffsets{}        object
linux.timeOffsets{}.secs     int64 -9223372036..9223372036
linux.timeOffsets{}.nanosecs uint32 0..999999999
"""
_REPEATED = (
    *((f"{where}.{side}idMappings", _MAPPINGS) for where in ("mounts[]", "linux") for side in "ug"),
    *((f"hooks.{kind}", f"list\n{_HOOKS}") for kind in WHOLE["hooks"]),
    *((f"process.capabilities.{name}", f"list\n{_WORDS}") for name in WHOLE["process"]["capabilities"]),
    ("linux.resources.blockIO.weightDevice", _DEVICE),
    *(
        (f"linux.resources.blockIO.{name}", f"list\n{_THROTTLE}")
        for name in WHOLE["linux"]["resources"]["blockIO"]
        if name.startswith("throttle")
    ),
)

_NUMBERS = {
    "integer": (-(1 << 63), (1 << 63) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint16": (0, (1 << 16) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}
_LONG, _HUGE = 100_000, 200_000
SAMPLES = {
    "empty": "",
    "word": "x",
    "two": "x y",
    "digit": "1",
    "list": "0-2,4",
    "path": "/x",
    "up": "/a/../b",
    "relative up": "../x",
    "nameless": "=v",
    "nul": "a\0b",
    "newline": "a\nb",
    "escape": "a\x1b[0m",
    "path of control": "/a\n\x1b",
    "65 bytes": "é" * 32 + "x",
    "long": "x" * _LONG,
    "long path": "/x" * (_LONG // 2),
    "huge": "x" * _HUGE,
}
_ANY = frozenset(SAMPLES) - {"nul"}
_NO_LONG = _ANY - {"long", "long path", "huge"}
TEXTS = {  # kind -> the samples that it takes
    "any": _ANY,
    "argument": _ANY - {"huge"},
    "line": _NO_LONG,
    "none": frozenset({"empty"}),
    "never": frozenset[str](),
    "word": frozenset[str](),  # one of a list; no sample is
    "word-or-none": frozenset({"empty"}),
    "variable": _ANY - {"huge", "empty", "nameless"},
    "path": frozenset({"path", "path of control"}),
    "host-path": frozenset({"path", "up", "path of control"}),
    "host-path-or-none": frozenset({"empty", "path", "up", "path of control"}),
    "in-container": _NO_LONG - {"empty", "up", "relative up"},
    "root": _NO_LONG - {"empty"},
    "group": _NO_LONG - {"up", "relative up", "newline", "path of control"},
    "short": _NO_LONG - {"65 bytes"},
    "numbers": frozenset({"empty", "digit", "list"}),
    "access": frozenset({"empty"}),
    "name": _NO_LONG - {"empty", "two", "newline", "path of control", "65 bytes"},
    "name-of-any-kernel": _ANY - {"empty"},
    "one-line": _NO_LONG - {"newline", "escape", "path of control"},
}
_OTHERS: dict[str, tuple[Any, ...]] = {  # of each JSON type, to be put where another belongs
    "number": (0, 1, -1),
    "flag": (True, False),
    "text": ("", "x", "1"),
    "list": ([], [None], [[]], ["x"], [{}]),
    "object": ({}, {"a": 1}),
    "fraction": (1.5, 0.0, Raw(b"1e3"), Raw(b"1e400"), Raw(b"-0.5")),
}
_LINE = re.compile(r"(\S+)\s+(\w+)([!?]?)(?:\s+(\S+))?")


@dataclass(frozen=True)
class Field:
    """One field: its path, with `[]` for any item and `{}` for any value, and what it may hold."""

    path: str
    kind: str
    required: bool
    nullable: bool
    limits: str

    @property
    def name(self) -> str:
        """The last name of its path, which a refusal has to say."""
        return str(re.findall(r"\w+", self.path)[-1])

    @property
    def json_type(self) -> str:
        """What JSON calls it."""
        return {"map": "object", "flag": "flag", "text": "text", "list": "list", "object": "object"}.get(
            self.kind, "number"
        )

    def wrong(self) -> Iterator[Any]:
        """Yield values that have to be refused."""
        if self.required:
            yield MISSING
        if not self.nullable:
            yield None
        for kind, values in _OTHERS.items():
            if kind != self.json_type:
                yield from values
        if self.limits == "never":
            yield from self._own()
        if self.kind == "text":
            yield from (text for name, text in SAMPLES.items() if name not in TEXTS[self.limits])
        elif self.json_type == "number":
            low, high = self._range()
            yield from (number for number in self._numbers() if not low <= number <= high)

    def right(self) -> Iterator[Any]:
        """Yield values that may be refused only because of another field."""
        if not self.required:
            yield MISSING
        if self.nullable:
            yield None
        if self.kind == "text":
            yield from (SAMPLES[name] for name in sorted(TEXTS[self.limits]))
        elif self.json_type == "number":
            low, high = self._range()
            yield from (number for number in self._numbers() if low <= number <= high)
        elif self.limits != "never":
            yield from self._own()

    def _own(self) -> tuple[Any, ...]:
        return {"flag": (True, False), "list": ([],), "object": ({},)}.get(self.json_type, ())

    def _range(self) -> tuple[int, int]:
        low, high = _NUMBERS[self.kind]
        if self.limits:
            own_low, own_high = map(int, self.limits.split(".."))
            low, high = max(low, own_low), min(high, own_high)
        return low, high

    def _numbers(self) -> list[int]:
        low, high = self._range()
        powers = [1 << bits for bits in (7, 8, 15, 16, 31, 32, 63, 64, 70)]
        around = [number + step for number in (0, low, high, *powers) for step in (-1, 0, 1)]
        return sorted({*around, *(-number for number in powers), -(1 << 63) - 1, 10**300})


def _fields() -> Iterator[Field]:
    lines = [line for line in _PLAIN.splitlines() if line]
    for above, text in _REPEATED:
        for line in filter(str.strip, text.splitlines()):
            head, *rest = line.split()
            lines.append(f"{above}{head} {' '.join(rest)}" if head.startswith("[]") else f"{above} {line}")
    for line in lines:
        match = _LINE.fullmatch(line.strip())
        assert match is not None, line
        path, kind, mark, limits = match.groups(default="")
        yield Field(path, kind, mark == "!", mark == "?", limits)


FIELDS = {field.path: field for field in _fields()}


def document(path: str, value: Any) -> bytes:
    """Return the whole document with `value` at `path`: `[]` is the first item, `{}` the only value."""
    found = copy.deepcopy(WHOLE)
    steps = re.findall(r"\w+|\[\]|\{\}", path)
    inside: Any = found
    for step in steps[:-1]:
        inside = inside[_key(inside, step)]
    last = _key(inside, steps[-1])
    if value is MISSING:
        inside.pop(last, None) if isinstance(inside, dict) else inside.pop(last)
    else:
        inside[last] = _MARK if isinstance(value, bytes) else value
    text = json.dumps(found).encode()
    return text.replace(json.dumps(_MARK).encode(), value) if isinstance(value, bytes) else text


def _key(inside: Any, step: str) -> Any:
    if step == "[]":
        if not inside:
            inside.append(None)
        return 0
    return next(iter(inside)) if step == "{}" else step
