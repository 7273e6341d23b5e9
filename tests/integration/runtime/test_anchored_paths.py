"""Whatever an image, a request or another container puts in the way, a start stays inside the root.

A canary lies beside the root; no start may touch it.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from engine.base.errors import EngineError
from engine.containers.shims import StartFailed
from engine.spec.runtime import Device, Mount, Spec
from tests.support.canary import Canary
from tests.support.shimlab import Lab, parent_of
from tests.support.tracing import traced

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


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


def test_a_descriptor_is_no_working_directory(lab: Lab, canary: Canary) -> None:
    """CVE-2024-21626: whatever the runtime has open, nobody stands in it."""

    async def story() -> None:
        for number in range(3, 64):
            with pytest.raises(EngineError, match=f"/proc/self/fd/{number}: "):
                await lab.spawn("true", edit=with_cwd(f"/proc/self/fd/{number}"))

    lab.go(story)
    assert canary.is_untouched()


def test_an_exec_has_no_descriptor_as_working_directory(lab: Lab) -> None:
    async def story() -> None:
        shim = await lab.spawn("sleep", "1000")
        await shim.start()
        for number in range(3, 64):
            process = msgspec.structs.replace(lab.process("true"), cwd=f"/proc/self/fd/{number}")
            with pytest.raises(StartFailed, match="cwd"):
                await shim.exec_start(f"e{number}", process)
        await shim.delete()

    lab.go(story)


def test_a_descriptor_that_is_left_open_is_a_way_out(tmp_path: Path) -> None:
    """The control of the two before: what they try works where descriptors are kept and nobody looks."""
    code = "import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY); os.chroot(sys.argv[2])\n"
    code += "for number in range(3, 64):\n    try: os.chdir(f'/proc/self/fd/{number}')\n"
    code += "    except OSError: continue\n    os.chdir('..'); print(open('canary/file').read())"
    canary, root = Canary(tmp_path), tmp_path / "naive"
    (root / "proc").mkdir(parents=True)
    script = f'mount -t proc proc {root}/proc && exec {sys.executable} -c "$0" {canary.path} {root}'

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, code],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == "of the host\n\n", done.stderr


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
