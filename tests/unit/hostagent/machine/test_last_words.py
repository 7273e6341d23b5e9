from pathlib import Path

import pytest

from hostagent.machine.qemu import lastwords

PANIC = (
    "[    1.1] VFS: Cannot open root device\r\n"
    "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n"
    "[    1.3] CPU: 0 PID: 1 Comm: swapper/0\r\n"
)
END = "[    1.4] ---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100 ]---\r\n"


@pytest.mark.parametrize(
    ("console", "said"),
    [
        (PANIC, "VFS: Unable to mount root fs on unknown-block(0,0)"),
        ("x" * 100_000 + "\n" + PANIC, "VFS: Unable to mount root fs on unknown-block(0,0)"),
        (END, "Attempted to kill init! exitcode=0x00000100"),
        ("pyengine-init: [   5.155] engine\r\n", ""),
        ("", ""),
    ],
)
def test_a_panic_is_told_in_the_kernels_words(tmp_path: Path, console: str, said: str) -> None:
    (tmp_path / "console.log").write_bytes(console.encode())

    assert lastwords.panic(tmp_path / "console.log") == said


def test_an_emulators_last_line_is_told_without_its_name(tmp_path: Path) -> None:
    log = tmp_path / "qemu.log"
    log.write_text("first\nqemu-system-x86_64: cannot set up guest memory\n\n")

    assert lastwords.last_line(log) == "cannot set up guest memory"
    assert lastwords.last_line(tmp_path / "none") == "it said nothing"
    assert lastwords.panic(tmp_path / "none") == ""
