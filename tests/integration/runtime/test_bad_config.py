"""Every field of config.json wrong: one line that names it, exit status 1, nothing made.

The command runs in a fork of this process, so that hundreds of cases take seconds.
"""

import copy
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.runtime.main import main

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

HUGE, LONG, MISSING = 1 << 70, "x" * 100_000, object()
NUMBER: tuple[Any, ...] = (None, True, "1", HUGE, [], {}, 3.5)
TEXT: tuple[Any, ...] = (None, True, 1, "a\0b", [], {})
GROUP = f"/pyengine-bad-config-{os.getpid()}"
PATH = (*TEXT, "/a/../b", LONG)
LIST: tuple[Any, ...] = (None, True, 1, "x", {})
OBJECT: tuple[Any, ...] = (None, True, 1, "x", [])
BOOL: tuple[Any, ...] = (None, 1, "true", [], {})

SPEC: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "cwd": "/",
        "args": ["/bin/true"],
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 100, "soft": 100}],
        "oomScoreAdj": 1,
        "capabilities": {"bounding": ["CAP_CHOWN"]},
        "noNewPrivileges": True,
        "terminal": False,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h",
    "domainname": "d",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
    "annotations": {"key": "value"},
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc")],
        "cgroupsPath": GROUP,
        "devices": [
            {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}
        ],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "rootfsPropagation": "rprivate",
        "sysctl": {"kernel.shmmax": "1000000"},
        "resources": {
            "memory": {"limit": 100_000_000, "reservation": 50_000_000},
            "cpu": {"shares": 100, "quota": 10_000, "period": 100_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 100},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {
                    "names": ["mkdir"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
    },
}

# The field, and what it must not hold. Its last name has to be in the message.
WRONG: dict[str, tuple[Any, ...]] = {
    "ociVersion": (MISSING, *TEXT, "", "2.0.0", LONG),
    "process": (MISSING, *OBJECT[1:]),
    "process.cwd": (MISSING, *PATH, "", "relative", "../x"),
    "process.args": (MISSING, *LIST, []),
    "process.args.0": (*TEXT, ""),
    "process.env": LIST,
    "process.env.0": (*TEXT, "", "=value", "A=" + LONG * 2),
    "process.user": OBJECT,
    "process.user.uid": (*NUMBER, -1),
    "process.user.gid": (*NUMBER, -1),
    "process.user.umask": (*NUMBER[1:], -1, 0o1000),
    "process.user.additionalGids": LIST,
    "process.user.additionalGids.0": (*NUMBER, -1),
    "process.rlimits": LIST,
    "process.rlimits.0": OBJECT,
    "process.rlimits.0.type": (MISSING, *TEXT, "", "NOFILE", "RLIMIT_X", LONG),
    "process.rlimits.0.hard": (MISSING, *NUMBER, -1),
    "process.rlimits.0.soft": (MISSING, *NUMBER, -1),
    "process.oomScoreAdj": (*NUMBER[1:], -1001, 1001),
    "process.capabilities": OBJECT[1:],
    "process.capabilities.bounding": LIST,
    "process.noNewPrivileges": BOOL,
    "process.terminal": BOOL,
    "root": (MISSING, *OBJECT[1:]),
    "root.path": (MISSING, *TEXT, "", LONG),
    "root.readonly": BOOL,
    "hostname": (*TEXT, LONG),
    "domainname": (*TEXT, LONG),
    "mounts": LIST,
    "mounts.0": OBJECT,
    "mounts.0.destination": (MISSING, *PATH, ""),
    "mounts.0.type": TEXT,
    "mounts.0.source": TEXT,
    "mounts.0.options": LIST,
    "mounts.0.options.0": TEXT,
    "annotations": LIST[:-1],
    "annotations.key": ("a\0b",),
    "linux": (MISSING, *OBJECT),
    "linux.namespaces": (MISSING, *LIST, []),
    "linux.namespaces.0": OBJECT,
    "linux.namespaces.0.type": (MISSING, *TEXT, "", "planet"),
    "linux.devices": LIST,
    "linux.devices.0.path": (MISSING, *PATH, "", "dev/x"),
    "linux.devices.0.type": (MISSING, *TEXT, "x"),
    "linux.devices.0.major": (*NUMBER, -1),
    "linux.devices.0.minor": (*NUMBER, -1),
    "linux.devices.0.fileMode": (*NUMBER[1:], -1),
    "linux.devices.0.uid": (*NUMBER, -1),
    "linux.devices.0.gid": (*NUMBER, -1),
    "linux.maskedPaths": LIST,
    "linux.maskedPaths.0": (*PATH, "", "proc/kcore"),
    "linux.readonlyPaths": LIST,
    "linux.readonlyPaths.0": (*PATH, "", "proc/sys"),
    "linux.rootfsPropagation": (*TEXT, "public", LONG),
    "linux.sysctl": LIST[:-1],
    "linux.resources": OBJECT[1:],
    "linux.resources.memory": OBJECT[1:],
    "linux.resources.memory.limit": (*NUMBER[1:], -2),
    "linux.resources.memory.reservation": (*NUMBER[1:], -2),
    "linux.resources.cpu": OBJECT[1:],
    "linux.resources.cpu.shares": (*NUMBER[1:], -1),
    "linux.resources.cpu.quota": (*NUMBER[1:], -2),
    "linux.resources.cpu.period": (*NUMBER[1:], -1),
    "linux.resources.cpu.cpus": (*TEXT, "..", "one", LONG),
    "linux.resources.cpu.mems": (*TEXT, "..", "one", LONG),
    "linux.resources.pids": OBJECT[1:],
    "linux.resources.pids.limit": (MISSING, *NUMBER),
    "linux.seccomp": OBJECT[1:],
    "linux.seccomp.defaultErrnoRet": (*NUMBER[1:], -1, 4096),
    "linux.seccomp.syscalls": LIST,
    "linux.seccomp.syscalls.0.names": (MISSING, *LIST),
    "linux.seccomp.syscalls.0.names.0": (*TEXT, ""),
    "linux.seccomp.syscalls.0.action": (MISSING, *TEXT[:3], "", "ALLOW"),
    "linux.seccomp.syscalls.0.errnoRet": (*NUMBER[1:], -1, 4096),
    "linux.seccomp.syscalls.0.args": LIST,
    "linux.seccomp.syscalls.0.args.0.index": (MISSING, *NUMBER, -1, 6),
    "linux.seccomp.syscalls.0.args.0.value": (MISSING, *NUMBER, -1),
    "linux.seccomp.syscalls.0.args.0.valueTwo": (*NUMBER, -1),
}


@dataclass(frozen=True)
class Bundle:
    path: Path
    root: Path

    def write(self, document: Any) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        (self.path / "config.json").write_bytes(data)

    def run(self, bundle: Path | None = None) -> tuple[int, str]:
        """Return exit status and standard error of `run`; whatever happens, nothing may be left."""
        said = self.root.parent / "stderr"
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                fd = os.open(said, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
                os.dup2(fd, 2)
                os.dup2(fd, 1)
                # pytest's streams are its own; a descriptor is what a program has.
                import sys

                sys.stderr = os.fdopen(2, "w", buffering=1, errors="replace")
                code = main(["--root", str(self.root), "run", "--bundle", str(bundle or self.path), "bad"])
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert not self.root.exists() or os.listdir(self.root) == []
        cgroups = Path("/sys/fs/cgroup")
        assert [*cgroups.glob(GROUP[1:]), *cgroups.glob(f"*{GROUP}")] == []
        assert str(self.path) not in Path("/proc/self/mountinfo").read_text()
        return os.waitstatus_to_exitcode(status), said.read_text(errors="replace")

    def refused(self, *words: str, bundle: Path | None = None) -> None:
        code, text = self.run(bundle)
        assert (code, text.count("\n")) == (1, 1), text[:500]
        assert len(text) < 1000
        assert any(word.lower() in text.lower() for word in words), text


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    path = tmp_path / "bundle"
    binaries = path / "rootfs" / "bin"
    binaries.mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", binaries / "true")
    (path / "rootfs" / "proc").mkdir()
    return Bundle(path, tmp_path / "state")


def changed(field: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(SPEC)
    *above, last = (int(name) if name.isdecimal() else name for name in field.split("."))
    inside: Any = document
    for name in above:
        inside = inside[name]
    if value is MISSING:
        del inside[last]
    else:
        inside[last] = value
    return document


def test_the_spec_that_the_others_are_made_of_runs(bundle: Bundle) -> None:
    bundle.write(SPEC)

    assert bundle.run() == (0, "")


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_value_is_refused_by_its_fields_name(bundle: Bundle, field: str) -> None:
    name = next(word for word in reversed(field.split(".")) if not word.isdecimal())
    for value in WRONG[field]:
        bundle.write(changed(field, value))
        bundle.refused(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", ("truncated",)),
        (b"[]", ("object",)),
        (b"null", ("object",)),
        (b"{", ("truncated",)),
        (json.dumps(SPEC).encode().replace(b'"h"', b'"\xff\xfe"'), ("utf-8",)),
        (json.dumps(SPEC).encode().replace(b'"h"', b'"\\ud800"'), ("utf-16",)),
        (b'{"ociVersion":"1.2.0","unknown":' + b"[" * 1_000_000, ("recursion",)),
        (b'{"annotations":{"a":"' + b"x" * 100_000_000 + b'"}}', ("larger than",)),
    ],
    ids=["empty", "list", "null", "cut", "utf-8", "surrogate", "deep", "100 MB"],
)
def test_what_is_no_config_json_is_refused(bundle: Bundle, text: bytes, words: tuple[str, ...]) -> None:
    bundle.write(text)

    bundle.refused(*words)


def test_of_a_key_that_is_there_twice_the_last_counts(bundle: Bundle) -> None:
    bundle.write(json.dumps(SPEC).encode()[:-1] + b',"hostname":"' + b"x" * 65 + b'"}')

    bundle.refused("hostname")


def test_more_environment_than_the_kernel_takes_ends_with_docker_s_status(bundle: Bundle) -> None:
    bundle.write(changed("process.env", [f"V{number}=x" for number in range(200_000)]))

    assert bundle.run() == (126, "pyengine-oci: exec /bin/true: argument list too long\n")


def test_an_argument_of_two_mebibytes_is_refused(bundle: Bundle) -> None:
    bundle.write(changed("process.args", ["/bin/true", "x" * (2 << 20)]))

    bundle.refused("process.args[1]: longer than execve takes")


@pytest.mark.parametrize("kind", ["missing", "file", "loop", "fifo", "directory", "dangling"])
def test_what_is_no_bundle_is_refused(bundle: Bundle, kind: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    config = other / "config.json"
    if kind == "file":
        other.touch()
    elif kind == "loop":
        other.symlink_to(other)
    elif kind != "missing":
        other.mkdir()
    if kind == "fifo":
        os.mkfifo(config)
    elif kind == "directory":
        config.mkdir()
    elif kind == "dangling":
        config.symlink_to("nowhere")

    bundle.refused("other", bundle=other)


@pytest.mark.parametrize("kind", ["missing", "file", "loop", "dangling"])
def test_what_is_no_root_is_refused(bundle: Bundle, kind: str) -> None:
    bundle.write(SPEC)
    root = bundle.path / "rootfs"
    shutil.rmtree(root)
    if kind == "file":
        root.touch()
    elif kind != "missing":
        root.symlink_to(root if kind == "loop" else "nowhere")

    bundle.refused("rootfs")
