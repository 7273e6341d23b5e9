"""Whatever an image, a request or another container puts in the way, a start stays inside the root.

A canary lies beside the root; no start may touch it.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine.base.errors import EngineError
from engine.containers.shims import StartFailed
from engine.spec.runtime import Device, Mount, Spec
from tests.support.shimlab import Lab, parent_of
from tests.support.tracing import traced

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

_SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.chdir(sys.argv[1])
print("swapping", flush=True)
while True:
    for name in sys.argv[2:]:
        libc.renameat2(-100, name.encode(), -100, f"{name}.link".encode(), 2)  # RENAME_EXCHANGE
"""


class Canary:
    """A directory and a file of the host that must stay as they are."""

    def __init__(self, base: Path) -> None:
        self.path = base / "canary"
        self.path.mkdir(mode=0o700)
        self.file = self.path / "file"
        self.file.write_text("of the host\n")
        self.file.chmod(0o600)
        self._before = self._look()

    def _look(self) -> list[tuple[str, int, int, bytes]]:
        paths = [self.path, *sorted(self.path.rglob("*"))]
        return [
            (str(path), path.stat().st_mode, path.stat().st_uid, path.read_bytes() if path.is_file() else b"")
            for path in paths
        ]

    def is_untouched(self) -> bool:
        return self._look() == self._before


@pytest.fixture
def canary(lab: Lab) -> Canary:
    return Canary(lab.base)


def with_mounts(*mounts: Mount) -> Callable[[Spec], Spec]:
    return lambda spec: msgspec.structs.replace(spec, mounts=(*spec.mounts, *mounts))


def with_cwd(cwd: str) -> Callable[[Spec], Spec]:
    return lambda spec: msgspec.structs.replace(
        spec, process=msgspec.structs.replace(spec.process, cwd=cwd) if spec.process else None
    )


def bind(source: Path, destination: str) -> Mount:
    return Mount(destination=destination, type="bind", source=str(source), options=("rbind", "rprivate"))


@contextlib.contextmanager
def swapping(directory: Path, *names: str) -> Iterator[None]:
    """Exchange each name with `name.link` all the time, as a container that has the same volume could."""
    argv = [sys.executable, "-c", _SWAP, str(directory), *names]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"swapping\n"
        try:
            yield
        finally:
            swapper.kill()


@pytest.mark.parametrize("name", ["proc", "dev"])
@pytest.mark.parametrize("target", ["{canary}", "../canary", "tmp"])
def test_a_link_in_the_place_of_proc_or_dev_is_refused(
    lab: Lab, canary: Canary, name: str, target: str
) -> None:
    (lab.rootfs / name).rmdir()
    (lab.rootfs / name).symlink_to(target.format(canary=canary.path))

    async def story() -> None:
        with pytest.raises(StartFailed, match=f"mount /{name}"):
            await lab.spawn("true")

    lab.go(story)
    assert canary.is_untouched()
    assert list((lab.rootfs / "tmp").iterdir()) == []


@pytest.mark.parametrize("link", ["/etc", "/etc/deep"])
@pytest.mark.parametrize("climb", ["", "../" * 9])
def test_a_volume_behind_a_link_is_mounted_inside_the_root(
    lab: Lab, canary: Canary, link: str, climb: str
) -> None:
    volume = lab.base / "volume"
    volume.mkdir()
    (volume / "mark").touch()
    place = lab.rootfs / link.lstrip("/")
    if place.exists():
        place.rmdir()
    place.symlink_to(f"{climb}{canary.path}" if climb else canary.path)

    async def story() -> None:
        code, _ = await lab.run_to_end(
            "cat",
            f"{link}/new/mark",
            f"{canary.path}/new/mark",
            edit=with_mounts(bind(volume, f"{link}/new")),
        )
        assert code == 0

    lab.go(story)
    assert canary.is_untouched()


@pytest.mark.parametrize("target", ["{canary}/file", "../canary/file", "../run/missing", "loop"])
def test_a_file_behind_a_link_is_mounted_inside_the_root(lab: Lab, canary: Canary, target: str) -> None:
    hosts = lab.base / "hosts"
    hosts.write_text("ours\n")
    (lab.rootfs / "etc/hosts").symlink_to(target.format(canary=canary.path))

    async def story() -> None:
        made = lab.run_to_end("cat", "/etc/hosts", edit=with_mounts(bind(hosts, "/etc/hosts")))
        if target == "loop":
            (lab.rootfs / "etc/loop").symlink_to("loop")
            with pytest.raises(StartFailed, match="mount /etc/hosts"):
                await made
        else:
            assert await made == (0, "ours\n")

    lab.go(story)
    assert canary.is_untouched()


@pytest.mark.parametrize("place", ["/p/self/attr", "/p/1/fd", "/p/sys", "/p/sysrq-trigger"])
def test_nothing_is_mounted_inside_proc_through_a_link(lab: Lab, place: str) -> None:
    volume = lab.base / "volume"
    volume.touch() if place.endswith("trigger") else volume.mkdir()
    (lab.rootfs / "p").symlink_to("proc")

    async def story() -> None:
        with pytest.raises(StartFailed, match=f"mount {place}"):
            await lab.spawn("true", edit=with_mounts(bind(volume, place)))

    lab.go(story)


@pytest.mark.parametrize("place", ["/proc", "/p"])
def test_a_volume_does_not_take_the_place_of_proc(lab: Lab, place: str) -> None:
    (lab.rootfs / "p").symlink_to("proc")

    async def story() -> None:
        with pytest.raises(StartFailed, match=f"mount {place}"):
            await lab.spawn("true", edit=with_mounts(bind(lab.rootfs / "etc", place)))
        assert (await lab.run_to_end("true", edit=with_mounts(bind(Path("/proc"), "/proc"))))[0] == 0

    lab.go(story)


@pytest.mark.parametrize("number", [*range(3, 20), 64, 65])
def test_a_descriptor_is_no_working_directory(lab: Lab, canary: Canary, number: int) -> None:
    async def story() -> None:
        with pytest.raises(EngineError):
            await lab.spawn("true", edit=with_cwd(f"/proc/self/fd/{number}"))

    lab.go(story)
    assert canary.is_untouched()


def test_an_exec_has_no_descriptor_as_working_directory(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        for number in (*range(3, 20), 64, 65):
            process = msgspec.structs.replace(lab.process("true"), cwd=f"/proc/self/fd/{number}")
            with pytest.raises(StartFailed):
                await shim.exec_start(f"e{number}", process)
        await shim.delete()

    lab.go(story)


def test_a_working_directory_behind_a_link_is_inside_the_root(lab: Lab, canary: Canary) -> None:
    (lab.rootfs / "there").symlink_to(canary.path)

    async def story() -> None:
        code, text = await lab.run_to_end("sh", "-c", "pwd -P; ls", edit=with_cwd("/there"))
        assert (code, text) == (0, f"{canary.path}\n")

    lab.go(story)
    assert canary.is_untouched()


def test_the_process_gets_three_descriptors(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sh", "-c", "ls /proc/self/fd; exec sleep 1000")
        client = await lab.attach(shim, framed=False)
        await shim.start()
        assert await client.until(b"3\n") == b"0\n1\n2\n3\n"  # 3 is the directory that ls reads
        await client.close()
        client = await lab.exec(shim, "e", "ls", "/proc/self/fd", framed=False)
        assert await client.everything() == b"0\n1\n2\n3\n"
        await client.close()
        await shim.delete()

    lab.go(story)


@pytest.mark.requires("strace")
def test_a_device_is_not_touched_by_its_name_once_it_is_made(lab: Lab, tmp_path: Path) -> None:
    """A chmod by name followed the link that another container had put there, to a file of the host."""
    volume = lab.base / "volume"
    volume.mkdir()
    node = Device(path="/volume/node", type="c", major=1, minor=3, file_mode=0o646, uid=7, gid=8)

    def edit(spec: Spec) -> Spec:
        linux = msgspec.structs.replace(spec.linux, devices=(node,))
        return with_mounts(bind(volume, "/volume"))(msgspec.structs.replace(spec, linux=linux))

    async def story() -> None:
        first = await lab.spawn("true")
        nursery = parent_of(first.shim_pid)
        await first.delete()
        with traced(nursery, tmp_path / "trace"):
            shim = await lab.spawn("true", edit=edit)
            await shim.delete()

    lab.go(story)

    made = (volume / "node").stat()
    assert (made.st_mode & 0o7777, made.st_uid, made.st_gid) == (0o646, 7, 8)
    calls = re.findall(r"^\d+ +(\w+)\(\d+, \"node\".*", (tmp_path / "trace").read_text(), re.MULTILINE)
    assert calls == ["mknodat", "fchownat"]


def test_links_that_come_and_go_lead_nowhere_else(lab: Lab, canary: Canary) -> None:
    """Two hundred starts with a volume inside of one in which each directory keeps turning into a link."""
    shared, inner = lab.base / "shared", lab.base / "inner"
    inner.mkdir()
    names = ("a", "a/b")
    (shared / "a/b/c").mkdir(parents=True)
    for name in names:
        (shared / f"{name}.link").symlink_to(canary.path)
    edit = with_mounts(bind(shared, "/v"), bind(inner, "/v/a/b/c/d"), bind(lab.rootfs / "etc", "/v/a/b/e"))
    ends: set[bool] = set()

    async def story() -> None:
        for _ in range(200):
            try:
                shim = await lab.spawn("true", edit=edit)
            except StartFailed:
                ends.add(False)
            else:
                ends.add(True)
                await shim.delete()

    with swapping(shared, *names):
        lab.go(story)
    assert canary.is_untouched()
    assert os.listdir(canary.path) == ["file"]
    assert True in ends
