"""What a container may do, seen from inside: a copy of this interpreter tries it there."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.containers.calltable import CALLS, CallClass, names_of
from engine.kernel import capabilities
from engine.kernel.syscalls import NATIVE
from engine.runtime.defaults import MASKED_PATHS, READONLY_PATHS
from tests.support.engine import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

_STRICT = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"

_LOOK = r"""
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
me = os.getpid()
numbers, families, paths = json.loads(sys.argv[1])

def call(number, *arguments):
    wide = [ctypes.c_ulong(argument) for argument in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    if os.getpid() != me:
        os._exit(0)  # clone was let through
    return 0 if result >= 0 else ctypes.get_errno()

def shown(path):
    try:
        if os.path.isdir(path):
            return len(os.listdir(path))
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return len(os.read(fd, 4096))
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None

def written(path):
    try:
        if os.path.isdir(path):
            os.mkdir(path + "/new")
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as err:
        return err.errno
    return 0

def opened(kind, major, minor):
    name = "/tmp/%d.%d" % (major, minor)
    try:
        os.mknod(name, kind | 0o600, os.makedev(major, minor))
    except OSError as err:
        return ["mknod", err.errno]
    try:
        os.close(os.open(name, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as err:
        return ["open", err.errno]
    return ["open", 0]

words = [line.split(":", 1) for line in open("/proc/self/status")]
print(json.dumps({
    "status": {name: value.split() for name, value in words},
    "calls": {name: call(*arguments) for name, arguments in numbers.items()},
    "families": {family: call(families["number"], family, 2, 0) for family in families["tried"]},
    "shown": {path: shown(path) for path in paths["masked"]},
    "written": {path: written(path) for path in paths["written"]},
    "devices": {name: opened(*node) for name, node in paths["devices"].items()},
}))
"""

_NEW = {"NEWNS": 0x20000, "NEWCGROUP": 0x2000000, "NEWUTS": 0x4000000, "NEWIPC": 0x8000000}
_NEW |= {"NEWUSER": 0x10000000, "NEWPID": 0x20000000, "NEWNET": 0x40000000}
_HELD = frozenset(f"CAP_{name}" for name in _STRICT.split())
_GATED = {name for name in names_of(CallClass.GATED) if not CALLS[name].capabilities & _HELD}
_ENDING = {"uprobe", "uretprobe"}  # of the kernel's own pages; elsewhere they end the process, filter or none
_REFUSED = sorted(({*names_of(CallClass.REFUSED), *_GATED} & NATIVE.keys()) - _ENDING)
_UNKNOWN = sorted(
    {*range(600), 2000, 0x40000000, 0x7FFFFFFF} - {NATIVE[name] for name in CALLS if name in NATIVE}
)
_BLOCK, _CHARACTER = 0o60000, 0o20000
_DEVICES = {
    "null": (_CHARACTER, 1, 3),
    "mem": (_CHARACTER, 1, 1),
    "kmsg": (_CHARACTER, 1, 11),
    "fuse": (_CHARACTER, 10, 229),
    "loop0": (_BLOCK, 7, 0),
    "disk": (_BLOCK, 8, 0),
}
_WRITTEN = (
    *READONLY_PATHS,
    "/proc/sys/kernel/core_pattern",
    "/sys",
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/memory",
)


def _calls() -> dict[str, list[int]]:
    calls = {name: [NATIVE[name], 0, 0, 0, 0, 0] for name in _REFUSED}
    calls |= {f"clone {name}": [NATIVE["clone"], flag | 17, 0, 0, 0, 0] for name, flag in _NEW.items()}
    calls |= {f"unshare {name}": [NATIVE["unshare"], flag] for name, flag in _NEW.items()}
    calls |= {f"number {number}": [number, 0, 0] for number in _UNKNOWN}
    calls["clone3"] = [NATIVE["clone3"], 0, 0]
    for request in (0x5412, 0x541C, 0x5412 | 1 << 32):  # TIOCSTI, TIOCLINUX
        calls[f"ioctl {request:#x}"] = [NATIVE["ioctl"], 0, request, 0]
    return calls


class Tools:
    """The interpreter and the script, as binds of a container."""

    def __init__(self, engine: Engine, calls: dict[str, list[int]] | None = None) -> None:
        self._engine = engine
        self._path = engine.base / "tools"
        self._path.mkdir(exist_ok=True)
        shutil.copy(os.path.realpath(sys.executable), self._path / "python")  # itself would be refused
        places = [Path(path) for path in ("/lib", "/lib64", "/usr/lib", sys.base_prefix)]
        self._binds = [f"{path}:{path}:ro" for path in places if path.exists()] + [f"{self._path}:/tools:ro"]
        families = {"number": NATIVE["socket"], "tried": list(range(46))}
        paths = {"masked": MASKED_PATHS, "written": _WRITTEN, "devices": _DEVICES}
        question = json.dumps([calls or {}, families, paths])
        self.argv = ("/tools/python", "-I", "-S", "-c", _LOOK, question)

    def start(self, *, host: dict[str, Any] | None = None, **config: Any) -> str:
        """Start a container that has them, and waits."""
        binds = {"Binds": self._binds, **(host or {})}
        return self._engine.begin(
            "sleep", "1000", host=binds, Env=[f"PYTHONHOME={sys.base_prefix}"], **config
        )

    def look(self, container: str, **exec_config: Any) -> dict[str, Any]:
        """Return what a process that is added to the container finds."""
        body = {"Cmd": list(self.argv), "AttachStdout": True, "AttachStderr": True, **exec_config}
        exec_id = self._engine.post(f"/containers/{container}/exec", body).json["Id"]
        out, err = self._engine.hijack(f"/exec/{exec_id}/start", {"Detach": False})
        assert not err
        return dict(json.loads(out))


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.split() for name, value in (line.split(":", 1) for line in lines)}


def names_in(mask: str) -> set[str]:
    return {name for number, name in enumerate(capabilities.NAMES) if int(mask, 16) >> number & 1}


def test_what_is_refused_by_default(engine: Engine) -> None:
    """Every call of the table that is not allowed, and every number that is not in it."""
    tools = Tools(engine, _calls())

    found = tools.look(tools.start())

    calls = found["calls"]
    assert {"mount", "keyctl", "io_uring_setup", "bpf", "userfaultfd", "kexec_load"} <= set(_REFUSED)
    assert {name: calls[name] for name in _REFUSED} == dict.fromkeys(_REFUSED, errno.EPERM)
    assert {calls[f"{verb} {name}"] for verb in ("clone", "unshare") for name in _NEW} == {errno.EPERM}
    unknown = {name: code for name, code in calls.items() if name.startswith("number")}
    assert unknown == dict.fromkeys(unknown, errno.ENOSYS)
    assert calls["clone3"] == errno.ENOSYS
    assert {code for name, code in calls.items() if name.startswith("ioctl")} == {errno.EPERM}
    allowed = {int(family) for family, code in found["families"].items() if code == 0}
    assert allowed == {1, 2, 10, 16}  # UNIX, INET, INET6, NETLINK; so not ALG (38), nor VSOCK (40)


def test_what_is_hidden_and_what_cannot_be_written(engine: Engine) -> None:
    tools = Tools(engine)

    found = tools.look(tools.start())

    assert {path: size for path, size in found["shown"].items() if size} == {}
    assert set(found["written"].values()) <= {errno.EROFS, errno.ENOENT, errno.EACCES}
    assert found["written"]["/proc/sys/kernel/core_pattern"] == errno.EROFS
    assert {tuple(answer) for answer in found["devices"].values()} == {("mknod", errno.EPERM)}


def test_with_mknod_only_harmless_devices_open(engine: Engine) -> None:
    tools = Tools(engine)

    devices = tools.look(tools.start(host={"CapAdd": ["MKNOD"]}))["devices"]

    assert devices.pop("null") == ["open", 0]
    assert {tuple(answer) for answer in devices.values()} == {("open", errno.EPERM)}


@pytest.mark.parametrize(
    ("user", "host", "held"),
    [
        ("", {}, _STRICT),
        ("0", {"CapAdd": ["NET_ADMIN"], "CapDrop": ["CHOWN"]}, _STRICT.replace("CHOWN", "NET_ADMIN")),
        ("", {"CapDrop": ["ALL"]}, ""),
        ("1000:1000", {}, _STRICT),
        ("1000", {"CapAdd": ["NET_ADMIN"]}, f"{_STRICT} NET_ADMIN"),
        ("user", {"SecurityOpt": ["no-new-privileges"]}, _STRICT),
        ("", {"SecurityOpt": ["seccomp=unconfined"]}, _STRICT),
    ],
)
def test_a_run_and_an_exec_have_the_same_rights(
    engine: Engine, user: str, host: dict[str, Any], held: str
) -> None:
    tools = Tools(engine)
    container = tools.start(host=host, User=user)
    bounding = {f"CAP_{name}" for name in held.split()}
    own = bounding if user in ("", "0") else set()

    for status in (status_of(engine.state(container)["Pid"]), tools.look(container)["status"]):
        assert names_in(status["CapBnd"][0]) == bounding
        assert names_in(status["CapEff"][0]) == names_in(status["CapPrm"][0]) == own
        assert names_in(status["CapInh"][0]) == names_in(status["CapAmb"][0]) == set()
        assert status["Uid"] == (["0"] * 4 if user in ("", "0") else ["1000"] * 4)
        assert status["Groups"][0] == status["Gid"][0]
        options = host.get("SecurityOpt", [])
        assert status["NoNewPrivs"] == ["1" if "no-new-privileges" in options else "0"]
        assert status["Seccomp"] == ["0" if "seccomp=unconfined" in options else "2"]


@pytest.mark.parametrize("user", ["", "1", "1:1", "1000:0", "user"])
def test_an_exec_as_another_user_gains_nothing(engine: Engine, user: str) -> None:
    tools = Tools(engine)
    container = tools.start(User="1000")

    status = tools.look(container, **({"User": user} if user else {}))["status"]

    assert names_in(status["CapEff"][0]) == names_in(status["CapPrm"][0]) == set()
    assert status["Uid"] == (["1"] * 4 if user.startswith("1") and user[1:2] in ("", ":") else ["1000"] * 4)


def test_a_privileged_container_has_what_the_engine_has(engine: Engine) -> None:
    """Also where the engine lacks a capability itself, as in a container."""
    container = engine.begin("sleep", "1000", host={"Privileged": True})

    status = status_of(engine.state(container)["Pid"])

    assert status["CapEff"] == status["CapPrm"] == status_of(engine.pid)["CapPrm"]
    assert names_in(status["CapInh"][0]) == names_in(status["CapAmb"][0]) == set()
    assert status["Seccomp"] == ["0"]


@pytest.mark.parametrize("score", [0, 200])
def test_the_engines_protection_from_want_of_memory_is_not_inherited(engine: Engine, score: int) -> None:
    tools = Tools(engine)
    container = tools.start(host={"OomScoreAdj": score})

    def of(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    init = engine.state(container)["Pid"]
    shim = int(status_of(init)["PPid"][0])
    may_lower = "CAP_SYS_RESOURCE" in names_in(status_of(engine.pid)["CapEff"][0])
    ours = of(os.getpid())
    assert of(engine.pid) == of(shim) == (-900 if may_lower else ours)
    expected = score if may_lower else max(score, ours)
    assert of(init) == expected
    assert engine.exec(container, "cat", "/proc/self/oom_score_adj") == (0, f"{expected}\n", "")


def test_limits_are_those_that_were_asked_for(engine: Engine) -> None:
    host = {"Memory": 32 << 20, "NanoCpus": 500_000_000, "PidsLimit": 17, "CpuShares": 512}
    container = engine.begin("sleep", "1000", host=host)

    groups = Path(f"/proc/{engine.state(container)['Pid']}/cgroup").read_text(encoding="utf-8")
    where = {
        name: path
        for _, names, path in (line.split(":", 2) for line in groups.splitlines())
        for name in names.split(",")
    }

    def limit(controller: str, v1: str, v2: str) -> str:
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        top = Path("/sys/fs/cgroup") if unified else Path("/sys/fs/cgroup") / controller
        path = where["" if unified else controller].lstrip("/")
        return (top / path / (v2 if unified else v1)).read_text().strip()

    assert limit("memory", "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert limit("pids", "pids.max", "pids.max") == "17"
    assert limit("cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
