"""What lies between a container and its host: mounts, volumes that an image asks for, sockets, other ABIs."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.attacker import install_attacker
from tests.support.canary import Canary
from tests.support.engine import Engine, write_image

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")

_TIMEOUT_S = 60.0


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[Path]:
    """A directory with another file system in it, at `inner`."""
    (tmp_path / "tree/inner").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "tree/inner"], check=True, timeout=_TIMEOUT_S)
    yield tmp_path / "tree"
    subprocess.run(["umount", tmp_path / "tree/inner"], check=True, timeout=_TIMEOUT_S)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("how", ["bind", "mount"])
def test_a_read_only_mount_is_so_all_the_way_down(engine: Engine, nested: Path, how: str) -> None:
    """As docker's: what is mounted below the source could be written."""
    host: dict[str, Any] = {"Binds": [f"{nested}:/m:ro"]}
    if how == "mount":
        host = {"Mounts": [{"Type": "bind", "Source": str(nested), "Target": "/m", "ReadOnly": True}]}
    container = engine.begin("sleep", "1000", host=host)

    for place in ("/m/file", "/m/inner/file"):
        code, _, said = engine.exec(container, "touch", place)
        assert (code, said) == (1, f"touch: {place}: Read-only file system\n")
    assert list(nested.rglob("file")) == []


def test_mounts_of_a_container_do_not_reach_the_host(engine: Engine, tmp_path: Path) -> None:
    container = engine.begin(
        "sleep", "1000", host={"CapAdd": ["SYS_ADMIN"], "Binds": [f"{tmp_path}:/m", "volume:/v"]}
    )
    before = Path("/proc/self/mountinfo").read_bytes()

    for place in ("/m", "/v", "/tmp"):
        assert engine.exec(container, "busybox", "mount", "-t", "tmpfs", "none", place) == (0, "", "")

    assert Path("/proc/self/mountinfo").read_bytes() == before
    assert Path(f"/proc/{engine.pid}/mountinfo").read_bytes() == before


@pytest.mark.parametrize(
    ("volume", "place"),
    [
        ("/../../../../../../../..{canary}", "{canary}"),
        ("/seed/../..{canary}/file/../new", "{canary}/new"),
        ("//etc//../seed/./", "/seed"),
        ("/seed/file/../new", "/seed/new"),
        ("/", None),
        ("", None),
        ("..", None),
        ("/..", None),
        ("relative", None),
        ("/proc", None),
        ("/proc/self/attr", None),
    ],
)
def test_a_volume_that_an_image_asks_for_is_inside_or_refused(
    engine: Engine, tmp_path: Path, volume: str, place: str | None
) -> None:
    """CVE-2022-23648: `/../../etc` was copied from the host."""
    canary = Canary(tmp_path)
    volume = volume.format(canary=canary.path)
    write_image(tmp_path / "image.tar", "volumes:latest", Volumes={volume: {}})
    engine.load(tmp_path / "image.tar")

    made = engine.call("POST", "/containers/create", {"Image": "volumes", "Cmd": ["sleep", "1000"]})
    if place is None:
        started = made if made.status >= 400 else engine.call("POST", f"/containers/{made.json['Id']}/start")
        assert 400 <= started.status < 600
        assert started.message
    else:
        engine.post(f"/containers/{made.json['Id']}/start")
        [mount] = engine.inspect(made.json["Id"])["Mounts"]
        place = place.format(canary=canary.path)
        assert mount["Destination"] == place
        assert engine.exec(made.json["Id"], "ls", place) == (0, "file\n" if place == "/seed" else "", "")
    assert canary.is_untouched()


def test_nobody_but_root_finds_a_way_to_the_engine(engine: Engine) -> None:
    """CVE-2020-15257, CVE-2021-41103, CVE-2024-25621: abstract sockets, directories that all may read."""
    container = engine.begin("sleep", "1000")
    text = Path(f"/proc/{engine.pid}/net/unix").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.rpartition(" ")[2].startswith("@")] == []
    sockets = [path for path in engine.base.rglob("*") if path.is_socket()]
    assert {path.name for path in sockets} >= {"sock", "shim.sock"}
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    os.chmod(engine.base, 0o711)  # as /var/lib and /run are

    for path in sockets:
        with socket.socket(socket.AF_UNIX) as client, as_nobody(), pytest.raises(PermissionError):
            client.connect(str(path))
    found = subprocess.run(
        [*nobody, "find", engine.root, engine.run, "-readable"],
        check=False, capture_output=True, text=True, timeout=_TIMEOUT_S,
    )  # fmt: skip
    assert found.stdout == ""
    assert engine.state(container)["Running"]


@pytest.mark.requires("compiler")
def test_system_calls_of_other_abis_are_none(engine: Engine) -> None:
    """Their numbers are others, and arguments would pass that a filter of this one's numbers does not see."""
    container = engine.begin("sleep", "1000")
    install_attacker(Path(f"/proc/{engine.state(container)['Pid']}/root/bin/attacker"))

    code, out, _ = engine.exec(container, "attacker", "compat")

    assert code == 0
    assert set(out.split()) <= {"ENOSYS"}


@pytest.mark.parametrize("user", ["1", "1:1", "1000:0", "user", "4711"])
def test_an_exec_as_another_user_of_a_privileged_container_holds_nothing(engine: Engine, user: str) -> None:
    container = engine.begin("sleep", "1000", host={"Privileged": True})
    body = {"Cmd": ["cat", "/proc/self/status"], "User": user, "AttachStdout": True}
    exec_id = engine.post(f"/containers/{container}/exec", body).json["Id"]

    out, _ = engine.hijack(f"/exec/{exec_id}/start", {"Detach": False})

    status = {name: value.split() for name, value in (line.split(":", 1) for line in out.splitlines())}
    assert {status[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert "0" not in status["Uid"]
    assert status["Groups"][0] == status["Gid"][0]
