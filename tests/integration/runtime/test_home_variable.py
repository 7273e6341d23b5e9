"""HOME of a process whose environment has none comes from the container's own /etc/passwd."""

import os
from pathlib import Path

import pytest

from tests.support.ocilab import OciLab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

_PASSWD = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
_SAY = ("sh", "-c", "echo $HOME")


def _home(oci: OciLab, **process: object) -> tuple[str, str]:
    ran = oci.run(*_SAY, process=process)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip(), ran.stderr.strip()


@pytest.mark.parametrize(("uid", "home"), [(0, "/root"), (1000, "/home/user"), (7, "/")])
def test_home_is_that_of_the_user(oci: OciLab, uid: int, home: str) -> None:
    (oci.rootfs / "etc/passwd").write_text(_PASSWD)

    assert _home(oci, user={"uid": uid, "gid": 0}) == (home, "")


def test_home_of_the_environment_is_kept(oci: OciLab) -> None:
    (oci.rootfs / "etc/passwd").write_text(_PASSWD)

    assert _home(oci, env=["PATH=/bin", "HOME=/elsewhere"]) == ("/elsewhere", "")
    assert _home(oci, env=["PATH=/bin", "HOME="]) == ("", "")


def test_exec_has_the_home_of_its_user(oci: OciLab) -> None:
    (oci.rootfs / "etc/passwd").write_text(_PASSWD)
    oci.create("sleep", "1000")

    assert oci.oci("exec", "--user", "1000:1000", oci.id, *_SAY).stdout.strip() == "/home/user"


def test_without_accounts_home_is_the_root(oci: OciLab) -> None:
    assert _home(oci) == ("/", "")


def test_a_link_leads_nowhere_but_into_the_container(oci: OciLab, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0::/of-the-host:/bin/sh\n")
    (oci.rootfs / "etc/passwd").symlink_to(f"../../../../../..{tmp_path}/passwd")
    assert _home(oci) == ("/", "")

    (oci.rootfs / "etc/passwd").unlink()
    (oci.rootfs / "etc/passwd").symlink_to("/proc/self/exe")
    home, said = _home(oci)

    assert (home, said) == (
        "/",
        "pyengine-oci: warning: HOME is /: /etc/passwd: too many levels of symbolic links",
    )


@pytest.mark.parametrize("kind", ["pipe", "directory", "huge"])
def test_what_is_no_file_of_accounts_is_told_and_not_waited_for(oci: OciLab, kind: str) -> None:
    path = oci.rootfs / "etc/passwd"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        with path.open("w") as file:
            file.write(_PASSWD)
            file.truncate((1 << 20) + 1)

    home, said = _home(oci)

    why = "larger than 1048576 bytes" if kind == "huge" else "not a regular file"
    assert (home, said) == ("/", f"pyengine-oci: warning: HOME is /: /etc/passwd: {why}")
