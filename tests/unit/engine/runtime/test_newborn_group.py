"""A newborn process moves itself into its control group, or says why it cannot."""

import os
import socket
from pathlib import Path

import pytest

from engine.runtime import birth
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
