"""Containers in a mount namespace that is not their own, and roots that are made without pivot_root."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ocibundle import PROGRAM
from tests.support.ocilab import TIMEOUT_S, OciLab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")
_detached = pytest.mark.requires("detached_mounts")
_OTHERS = [{"type": kind} for kind in ("pid", "network", "ipc", "uts")]
_PROC = {"destination": "/proc", "type": "proc", "source": "proc"}
_DEV = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}
_SLEEP = ("sleep", "1000")


def _mounts(oci: OciLab, pid: int | str = "self") -> list[str]:
    """Return the mounts that `pid` sees of the lab; on a machine that is in use others come and go."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line for line in lines if str(oci.bundle) in line]


def _space(pid: int | str = "self") -> str:
    return str(Path(f"/proc/{pid}/ns/mnt").readlink())


@pytest.fixture
def other() -> Iterator[int]:
    """A process with a mount namespace of its own, where /mnt is a file system with a file."""
    script = "mount -t tmpfs other /mnt && echo there > /mnt/here && echo ready && exec sleep 1000"
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == b"ready\n"
        yield made.pid
        made.kill()


def _bind(source: Path | str, *options: str) -> dict[str, Any]:
    return {"destination": "/data", "type": "bind", "source": str(source), "options": ["rbind", *options]}


@_detached
def test_without_one_the_hosts_is_inherited_and_sees_nothing_of_the_container(oci: OciLab) -> None:
    (oci.bundle / "shared").mkdir()
    made = oci.create(
        *_SLEEP, linux={"namespaces": _OTHERS}, mounts=[_PROC, _DEV, _bind(oci.bundle / "shared")]
    )
    assert made.returncode == 0, made.stderr
    assert oci.oci("start", oci.id).returncode == 0

    assert _space(oci.state()["pid"]) == _space()
    assert _mounts(oci) == []
    ran = oci.oci("exec", oci.id, "sh", "-c", "ls /; cat /proc/1/comm; touch /data/x; ls /bundle")
    assert ran.stdout.split() == ["bin", "data", "dev", "etc", "proc", "sys", "tmp", "sleep"]
    assert (oci.bundle / "shared/x").exists()
    oci.oci("delete", "--force", oci.id)
    assert _mounts(oci) == []
    assert list((oci.rootfs / "proc").iterdir()) == []


@_detached
def test_its_paths_are_masked_and_its_root_is_read_only_all_the_same(oci: OciLab) -> None:
    ran = oci.run(
        "sh",
        "-c",
        "cat /proc/keys | wc -c; echo 0 > /proc/sys/kernel/core_uses_pid; touch /x",
        root={"path": "rootfs", "readonly": True},
        linux={
            "namespaces": _OTHERS,
            "maskedPaths": ["/proc/keys", "/sys"],
            "readonlyPaths": ["/proc/sys"],
        },
    )

    assert ran.stdout == "0\n"
    assert ran.stderr.count("Read-only file system") == 2


@_detached
def test_an_existing_one_is_joined_and_keeps_its_own_mounts(oci: OciLab, other: int) -> None:
    spaces = [*_OTHERS, {"type": "mount", "path": f"/proc/{other}/ns/mnt"}]
    made = oci.create(*_SLEEP, linux={"namespaces": spaces}, mounts=[_PROC, _DEV, _bind("/mnt")])
    assert made.returncode == 0, made.stderr
    assert oci.oci("start", oci.id).returncode == 0

    assert _space(oci.state()["pid"]) == _space(other) != _space()
    assert _mounts(oci, other) == []
    ran = oci.oci("exec", oci.id, "cat", "/data/here", "/proc/1/comm")
    assert (ran.stdout, ran.stderr) == ("there\nsleep\n", "")


@_detached
def test_a_terminal_is_the_containers(oci: OciLab) -> None:
    devpts = {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]}
    oci.write(
        "busybox",
        "tty",
        linux={"namespaces": _OTHERS},
        mounts=[_PROC, _DEV, devpts],
        process={"terminal": True},
    )
    command = shlex.join([str(PROGRAM), "--root", str(oci.root), "run", "--bundle", str(oci.bundle), oci.id])
    argv = ["script", "--quiet", "--return", "--command", command, "/dev/null"]

    ran = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)

    assert "/dev/pts/0" in ran.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rootfsPropagation": "shared"}, "linux.rootfsPropagation needs a new mount namespace"),
        (
            {
                "namespaces": [*_OTHERS, {"type": "user"}],
                "uidMappings": [{"containerID": 0, "hostID": 200000, "size": 10}],
                "gidMappings": [{"containerID": 0, "hostID": 200000, "size": 10}],
            },
            "a user namespace needs a new mount namespace",
        ),
    ],
)
def test_what_needs_one_is_refused_by_name(oci: OciLab, changes: dict[str, Any], said: str) -> None:
    made = oci.create("true", linux={"namespaces": _OTHERS, **changes})

    assert made.stderr == f"pyengine-oci: linux.namespaces: {said}\n"
    assert not list(oci.root.iterdir())


def test_without_pivot_the_root_is_the_containers_and_the_hosts_proc_is_gone(oci: OciLab) -> None:
    oci.write("sh", "-c", "ls /; cat /proc/self/mountinfo", mounts=[_PROC, _DEV], root={"path": "rootfs"})
    ran = oci.oci("run", "--no-pivot", "--bundle", str(oci.bundle), oci.id)

    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    names = ["bin", "dev", "etc", "proc", "sys", "tmp"]
    assert lines[: len(names)] == names
    assert [line.split()[4] for line in lines[len(names) :] if " - proc " in line] == ["/proc"]
    assert not [line for line in lines[len(names) :] if " - sysfs " in line]
    assert "warning: --no-pivot: the host's mounts stay below the root of the container" in ran.stderr
    assert _mounts(oci) == []


def test_without_pivot_programs_are_added_and_it_is_deleted(oci: OciLab) -> None:
    oci.write(*_SLEEP)
    argv = ("run", "--detach", "--no-pivot", "--bundle", str(oci.bundle), oci.id)
    with (oci.bundle / "log").open("w") as log:
        assert oci.oci(*argv, stdout=log, stderr=log).returncode == 0

    assert oci.oci("exec", oci.id, "cat", "/proc/1/comm").stdout == "sleep\n"
    assert oci.oci("exec", oci.id, "ls", str(oci.bundle)).returncode != 0
    assert oci.oci("delete", "--force", oci.id).returncode == 0
