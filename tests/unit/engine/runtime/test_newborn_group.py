"""A newborn process moves itself into its control group, or says why it cannot."""

import os
import socket
from pathlib import Path

import pytest

from engine.kernel.cgroup import Hierarchies
from engine.runtime import birth
from engine.runtime.cgroups.v1 import LegacyCgroup
from engine.runtime.errors import StartFailed
from engine.runtime.handshake import Report, wait_ready


def test_it_writes_itself_into_every_hierarchy(tmp_path: Path) -> None:
    doors = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("cpu", "memory")]

    birth._move_in(doors, "/web", -1)

    assert [(tmp_path / name).read_bytes() for name in ("cpu", "memory")] == [b"0", b"0"]
    for fd in doors:
        os.close(fd)


def test_one_that_is_not_taken_ends_and_names_the_group(tmp_path: Path) -> None:
    (tmp_path / "tasks").touch()
    refusing_fd = os.open(tmp_path / "tasks", os.O_RDONLY)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        birth._move_in([refusing_fd], "/web", theirs.fileno())
        os._exit(0)
    theirs.close()

    with ours, pytest.raises(StartFailed, match="join control group /web: bad file descriptor"):
        wait_ready(ours, Report([]))

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    os.close(refusing_fd)


def test_a_group_that_is_gone_is_named(tmp_path: Path) -> None:
    group = LegacyCgroup(Hierarchies(None, {"cpu": tmp_path}), ("web",))

    with pytest.raises(StartFailed, match="join control group /web: no such file or directory"):
        birth.bear(lambda _: None, group)


def test_descriptors_of_a_group_that_is_half_gone_are_closed(tmp_path: Path) -> None:
    (tmp_path / "cpu/web").mkdir(parents=True)
    (tmp_path / "cpu/web/tasks").touch()
    group = LegacyCgroup(Hierarchies(None, {"cpu": tmp_path / "cpu", "memory": tmp_path / "gone"}), ("web",))
    before = os.listdir("/proc/self/fd")

    with pytest.raises(FileNotFoundError):
        group.doors()

    assert os.listdir("/proc/self/fd") == before


def test_hierarchies_that_share_a_mount_have_one_door(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/tasks").touch()
    group = LegacyCgroup(Hierarchies(None, {"cpu": tmp_path, "cpuacct": tmp_path}), ("web",))

    doors = group.doors()

    assert len(doors) == 1
    os.close(doors[0])
