"""pyengine-oci as an unprivileged user.

A child of this process takes the user's ids after everything is imported: the
user may not enter the directories of this checkout. What it has in /etc/subuid
is mounted there, for that child alone.
"""

import codecs
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.base import process
from engine.kernel import prctl
from engine.kernel.mount import MountFlag, mount
from engine.kernel.process import CloneFlag, unshare
from engine.runtime import documents, execute
from engine.runtime.main import main

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "user_namespaces", "uidmap")

_USER = 65534  # nobody: newuidmap wants a name
_FIRST, _COUNT = 300_000, 5000
# Loaded on first use, which would be the user's.
codecs.lookup("ascii")
LATER = (documents, execute, process)


class Home:
    """A bundle of the user's own, and a place for state."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="rootless-"))
        self.path.chmod(0o755)
        rootfs = self.path / "rootfs"
        for name in ("bin", "proc", "dev", "tmp", "sys"):
            (rootfs / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", rootfs / "bin/busybox")
        for name in ("sh", "cat", "echo", "sleep", "true", "grep", "id", "head", "wc", "stat"):
            (rootfs / "bin" / name).symlink_to("busybox")
        (self.path / "run").mkdir(mode=0o700)
        subprocess.run(["chown", "-hR", f"{_USER}:{_USER}", self.path], check=True)
        code, _, errors = self.oci("spec", "--rootless", "--bundle", str(self.path))
        assert code == 0, errors

    def edit(self, *args: str, ranges: bool = False, **linux: object) -> None:
        """Let the bundle run `args`, with a range of ids when asked."""
        path = self.path / "config.json"
        config = json.loads(path.read_bytes())
        config["process"] |= {"args": args, "terminal": False}
        config["root"]["readonly"] = False
        config["linux"] |= linux
        if ranges:
            for kind in ("uidMappings", "gidMappings"):
                config["linux"][kind] = [
                    {"containerID": 0, "hostID": _USER, "size": 1},
                    {"containerID": 1, "hostID": _FIRST, "size": 1000},
                ]
        path.write_text(json.dumps(config))

    def run(self, *args: str, **options: bool) -> tuple[int, str, str]:
        return self.oci("run", "--bundle", str(self.path), "web", *args, **options)

    def oci(
        self, *words: str, granted: bool = True, tools: bool = True, session: bool = True
    ) -> tuple[int, str, str]:
        """Run pyengine-oci as the user; return exit status, output and errors."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                    os.dup2(out.fileno(), 1)
                    os.dup2(err.fileno(), 2)
                    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                    self._become_user(granted=granted, tools=tools, session=session)
                    code = main(words)
                except BaseException:  # noqa: BLE001 (a child of fork must not unwind into pytest)
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            _, status = os.waitpid(pid, 0)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        return os.waitstatus_to_exitcode(status), texts[0], texts[1]

    def _become_user(self, *, granted: bool, tools: bool, session: bool) -> None:
        unshare(CloneFlag.NEWNS)
        mount(None, "/", None, MountFlag.PRIVATE | MountFlag.REC)
        with tempfile.NamedTemporaryFile("w") as table:
            table.write(f"nobody:{_FIRST}:{_COUNT}\n" if granted else "")
            table.flush()
            os.chmod(table.name, 0o644)
            for place in ("/etc/subuid", "/etc/subgid"):
                mount(table.name, place, None, MountFlag.BIND)
        if not tools:
            mount("tmpfs", "/usr/bin", "tmpfs")
        os.environ.pop("XDG_RUNTIME_DIR", None)
        if session:
            os.environ["XDG_RUNTIME_DIR"] = str(self.path / "run")
        os.setgroups([])
        os.setresgid(_USER, _USER, _USER)
        os.setresuid(_USER, _USER, _USER)
        prctl.set_dumpable(True)  # as after an execve, which a shell of the user would have made


@pytest.fixture
def home() -> Iterator[Home]:
    made = Home()
    yield made
    made.oci("delete", "--force", "web")
    shutil.rmtree(made.path)


def test_a_users_own_id_is_enough(home: Home) -> None:
    home.edit("sh", "-c", "cat /proc/self/uid_map; id -u; echo x > /tmp/made; head -c 3 /dev/zero | wc -c")

    code, shown, errors = home.run()

    assert (code, shown.split()) == (0, ["0", str(_USER), "1", "0", "3"]), errors
    assert errors == ""  # that there is no control group is told by who needs one
    assert (home.path / "rootfs/tmp/made").stat().st_uid == _USER
    assert os.listdir(home.path / "run/pyengine-oci") == []


def test_a_granted_range_is_mapped_by_newuidmap(home: Home) -> None:
    home.edit("sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map", ranges=True)

    code, shown, errors = home.run()

    ranges = ["0", str(_USER), "1", "1", str(_FIRST), "1000"]
    assert (code, shown.split()) == (0, ranges * 2), errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"granted": False},
            f"newgidmap does not grant {_USER}+1, {_FIRST}+1000: see /etc/subgid for user {_USER}",
        ),
        ({"tools": False}, "newgidmap is not installed: without it only one id can be mapped"),
    ],
)
def test_what_is_missing_for_a_range_is_told_in_one_line(
    home: Home, options: dict[str, bool], said: str
) -> None:
    home.edit("true", ranges=True)

    code, _, errors = home.run(**options)

    assert (code, errors) == (1, f"pyengine-oci: {said}\n")
    assert os.listdir(home.path / "run/pyengine-oci") == []


def test_a_session_without_a_place_for_state_is_refused(home: Home) -> None:
    code, _, errors = home.oci("list", session=False)

    assert (code, errors) == (1, "pyengine-oci: XDG_RUNTIME_DIR is not set (set it, or give --root)\n")


def test_limits_that_cannot_be_set_are_refused(home: Home) -> None:
    home.edit("true", resources={"pids": {"limit": 10}})

    code, _, errors = home.run()

    assert code == 1
    assert errors == (
        "pyengine-oci: the container has no control group: it cannot be limited"
        " (none is delegated to this user)\n"
    )


def test_a_container_without_users_of_its_own_is_refused(home: Home) -> None:
    home.edit("true", namespaces=[{"type": "mount"}], uidMappings=[], gidMappings=[])

    code, _, errors = home.run()

    assert code == 1
    assert errors.startswith("pyengine-oci: a container without a user namespace of its own needs root")


@pytest.mark.parametrize("ranges", [False, True])
def test_the_life_of_a_container_from_create_to_delete(home: Home, ranges: bool) -> None:
    home.edit("sleep", "1000", ranges=ranges)

    assert home.oci("create", "--bundle", str(home.path), "web")[0] == 0
    assert json.loads(home.oci("state", "web")[1])["status"] == "created"
    assert home.oci("start", "web") == (0, "", "")
    code, shown, errors = home.oci("exec", "web", "sh", "-c", "id -u; cat /proc/1/cmdline")
    assert (code, shown) == (0, "0\nsleep\x001000\x00"), errors
    assert home.oci("pause", "web")[0] == 1
    assert home.oci("ps", "web")[0] == 1
    assert json.loads(home.oci("state", "web")[1])["status"] == "running"
    assert home.oci("delete", "--force", "web") == (0, "", "")
    assert home.oci("state", "web")[0] == 1
