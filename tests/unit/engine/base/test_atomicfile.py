import os
import resource
import signal
from pathlib import Path

import pytest

from engine.base.atomicfile import write_atomic


def test_the_new_bytes_replace_the_old_with_the_mode_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"old")

    write_atomic(path, b"new", mode=0o640)

    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_failed_replacement_keeps_the_old_bytes_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()  # a directory cannot be replaced by a file

    with pytest.raises(OSError, match="directory"):
        write_atomic(path, b"new")

    assert os.listdir(tmp_path) == ["state"]


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_atomic(path, b"x" * 8192)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)

    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == []
