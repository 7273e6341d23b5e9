import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.base.lockfile import Locked, LockFile, holder_of


def test_the_second_taker_learns_who_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with LockFile(path):
        with pytest.raises(Locked) as caught:
            LockFile(path).acquire()
        assert caught.value.holder_pid == os.getpid()
        assert holder_of(path) == os.getpid()
    assert holder_of(path) is None


def test_a_lock_ends_with_its_process_even_without_release(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = (
        "import sys\nfrom pathlib import Path\nfrom engine.base.lockfile import LockFile\n"
        f"LockFile(Path({str(path)!r})).acquire()\nprint('held', flush=True)\nsys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert holder_of(path) == holder.pid
        holder.kill()
    assert holder_of(path) is None


def test_a_lock_that_was_never_taken_has_no_holder_and_no_file(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "lock") is None
    assert os.listdir(tmp_path) == []


def test_a_full_disk_does_not_stop_a_lock(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with LockFile(tmp_path / "lock"):
            with pytest.raises(Locked):
                LockFile(tmp_path / "lock").acquire()
            assert holder_of(tmp_path / "lock") == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert holder_of(tmp_path / "lock") is None
