import os
import subprocess
import sys

import pytest

from benchmarks import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_process_that_writes_memory_holds_it_alone() -> None:
    script = "import sys; held = bytearray(b'x') * (8 << 20); print('there', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"there\n"
        memory.wait_until_asleep(child.pid)

        assert memory.parent_of(child.pid) == os.getpid()
        assert memory.private_bytes(child.pid) > 8 << 20
        assert memory.resident_bytes(child.pid) >= memory.private_bytes(child.pid)
        assert child.stdin is not None
        child.stdin.close()
