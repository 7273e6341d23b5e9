import logging
import subprocess
import sys
from pathlib import Path

import pytest

from engine.api.audit import AuditLog
from engine.api.http import Peer
from engine.base import jsonio

# In a process of its own: the limit would hold for pytest's files too.
TORN = """
import resource, signal, sys
from pathlib import Path
from engine.api.audit import AuditLog
from engine.api.http import Peer

log = AuditLog(Path(sys.argv[1]))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
log.record(Peer(), "DELETE", "/containers/first", "first", 204)
log.record(Peer(), "DELETE", "/containers/second", "second", 204)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.record(Peer(), "DELETE", "/containers/third", "third", 204)
"""


def test_what_a_full_disk_does_not_take_is_told_and_fails_no_call(caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(Path("/dev/full"))

    with caplog.at_level(logging.WARNING):
        log.record(Peer(uid=1000), "DELETE", "/containers/first", "first", 204)
    log.close()

    assert "no space left on device" in caplog.text
    assert "/containers/first" in caplog.text


def test_a_line_that_does_not_fit_leaves_no_part_of_it(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TORN, str(tmp_path / "log")], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr

    lines = (tmp_path / "log").read_bytes().splitlines()
    assert [jsonio.decode(line, dict[str, object], noun="line")["object"] for line in lines] == [
        "first",
        "third",
    ]
    assert b"second" in ended.stderr
