"""config.json as it must not be: one line that says what is wrong, exit status 1, nothing made.

What each field may hold is decided in the plan, and tried there with every kind of value
(`tests/unit/engine/runtime/test_config_fields.py`). Here a sample of them goes through the whole command.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.ociconfig import FIELDS, GROUP, document
from tests.support.ocimain import Caller, make_root

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

PROGRAM = Path(sys.executable).parent / "pyengine-oci"
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
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h",
    "domainname": "d",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
    "annotations": {"key": "value"},
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc")],
        "cgroupsPath": f"/{GROUP}",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "sysctl": {"kernel.shmmax": "1000000"},
        "resources": {"memory": {"limit": 100_000_000}, "pids": {"limit": 100}},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
    },
}


@dataclass(frozen=True)
class Bundle:
    path: Path
    call: Caller

    def write(self, text: bytes | dict[str, Any]) -> None:
        data = text if isinstance(text, bytes) else json.dumps(text).encode()
        (self.path / "config.json").write_bytes(data)

    def run(self, bundle: Path | None = None) -> tuple[int, str]:
        done = self.call("run", "--bundle", str(bundle or self.path), "bad")
        self.call.assert_nothing_left()
        return done

    def refused(self, *naming: str, bundle: Path | None = None) -> None:
        self.call.refused("run", "--bundle", str(bundle or self.path), "bad", naming=naming)
        self.call.assert_nothing_left()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    path = tmp_path / "bundle"
    make_root(path / "rootfs")
    return Bundle(path, Caller(tmp_path, GROUP))


def changed(part: str, **changes: Any) -> dict[str, Any]:
    found = copy.deepcopy(SPEC)
    inside = found
    for name in part.split(".") if part else ():
        inside = inside[name]
    inside.update(changes)
    return found


def sample() -> Iterator[tuple[str, Any]]:
    """Yield of each field one value that it must not have, another kind each time."""
    for number, field in enumerate(FIELDS.values()):
        values = list(field.wrong())
        yield field.path, values[number * 7 % len(values)]


def test_the_spec_that_the_others_are_made_of_runs(bundle: Bundle) -> None:
    bundle.write(SPEC)

    assert bundle.run() == (0, "")


def test_a_wrong_value_is_refused_by_its_fields_name(bundle: Bundle) -> None:
    for path, value in sample():
        bundle.write(document(path, value))
        bundle.refused(FIELDS[path].name)


def test_the_program_itself_says_it_in_one_line(bundle: Bundle) -> None:
    bundle.write(document("linux.devices[].major", 1 << 70))
    argv = [str(PROGRAM), "--root", str(bundle.call.root), "run", "--bundle", str(bundle.path), "bad"]

    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (1, "")
    said = f"pyengine-oci: linux.devices[0].major: not within 0 and 4095: {1 << 70}\n"
    assert done.stderr == said
    bundle.call.assert_nothing_left()


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
    bundle.write(changed("process", env=[f"V{number}=x" for number in range(200_000)]))

    assert bundle.run() == (126, "pyengine-oci: exec /bin/true: argument list too long\n")


def test_an_argument_of_two_mebibytes_is_refused(bundle: Bundle) -> None:
    bundle.write(changed("process", args=["/bin/true", "x" * (2 << 20)]))

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


def test_a_root_may_be_anywhere_from_the_bundle(bundle: Bundle) -> None:
    shutil.move(bundle.path / "rootfs", bundle.path.parent / "elsewhere")
    for path in ("../elsewhere", "./../bundle/../elsewhere", str(bundle.path.parent / "elsewhere")):
        bundle.write(changed("root", path=path))

        assert bundle.run() == (0, "")


def test_as_many_mounts_as_the_kernel_may_take_are_made_or_refused(bundle: Bundle) -> None:
    mounts = [
        {"destination": f"/proc/{number}", "type": "tmpfs", "source": "tmpfs"} for number in range(1 << 16)
    ]
    bundle.write(changed("", mounts=mounts))

    bundle.refused("nothing may be mounted inside /proc")


def test_what_a_caller_chose_writes_nothing_to_a_terminal(bundle: Bundle) -> None:
    wicked = "/x\x1b[2J\x07\u202e\r" + "y" * 2000
    for spec in (
        changed("", mounts=[{"destination": wicked, "type": "tmpfs"}]),
        changed("", mounts=[{"destination": "/data", "type": wicked}]),
        changed("", mounts=[{"destination": "/data", "type": "bind", "source": wicked}]),
        changed("process", args=[wicked[:100]]),
        changed("root", path=wicked[:100]),
    ):
        bundle.write(spec)
        code, text = bundle.run()

        assert code in (1, 127)
        assert text.count("\n") == 1
        assert text[:-1].isprintable(), text


def test_what_may_not_be_read_is_refused(bundle: Bundle) -> None:
    bundle.write(SPEC)
    (bundle.path / "config.json").chmod(0)

    done = bundle.call("run", "--bundle", str(bundle.path), "bad", user=65534)

    assert done == (1, f"pyengine-oci: {bundle.path}/config.json: permission denied\n")
    bundle.call.assert_nothing_left()
