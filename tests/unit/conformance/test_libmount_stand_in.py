from pathlib import Path

import pytest

from tests.conformance.libmount_stand_in import Table

MOUNTINFO = """1 0 254:0 / / ro,relatime - ext4 /dev/vda rw,discard
2 1 0:62 / /proc rw,relatime - proc  rw
3 1 0:63 / /var/dir rw - tmpfs tmpfs rw
4 3 0:64 / /var/dir ro,nosuid master:7 - tmpfs tmpfs rw,size=4k
"""


def test_the_topmost_mount_is_found_beside_one_without_a_source(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO)
    table = Table(str(path))

    found = table.find_target("/var/dir")

    assert (found.vfs_options, found.fs_options) == ("ro,nosuid", "rw,size=4k")
    assert table.find_target("/proc").fs_options == "rw"
    with pytest.raises(LookupError):
        table.find_target("/elsewhere")
