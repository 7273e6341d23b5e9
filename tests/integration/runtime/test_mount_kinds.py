"""Every kind of mount of a config.json, as the container sees it in its mountinfo."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine.containers.shims import StartFailed
from engine.spec.runtime import Linux, Mount, Spec
from engine.spec.runtime import Root as RootSpec
from tests.support.shimlab import Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


def adding(*mounts: Mount, **linux: object) -> Callable[[Spec], Spec]:
    def edit(spec: Spec) -> Spec:
        changed: Linux = msgspec.structs.replace(spec.linux, **linux)
        return msgspec.structs.replace(spec, mounts=(*spec.mounts, *mounts), linux=changed)

    return edit


def tmpfs(*options: str, destination: str = "/data") -> Mount:
    return Mount(destination=destination, type="tmpfs", source="tmpfs", options=options)


class Seen:
    """One line of mountinfo."""

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields, rest = left.split(), right.split()
        self.options, self.tags = set(fields[5].split(",")), fields[6:]
        self.fstype, self.of_the_file_system = rest[0], set(rest[2].split(","))


def look(lab: Lab, place: str, edit: Callable[[Spec], Spec]) -> Seen:
    """Return the topmost mount at `place` in a container that `edit` has changed."""
    found: list[str] = []

    async def story() -> None:
        code, text = await lab.run_to_end("cat", "/proc/self/mountinfo", edit=edit)
        assert code == 0, text
        found.extend(line for line in text.splitlines() if line.split()[4] == place)

    lab.go(story)
    return Seen(found[-1])


def run(lab: Lab, script: str, edit: Callable[[Spec], Spec]) -> str:
    return lab.said(script, edit=edit)


def refusal(lab: Lab, edit: Callable[[Spec], Spec]) -> str:
    return lab.refusal(StartFailed, edit=edit)


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        (("ro",), {"ro"}, set()),
        (("rro",), {"ro"}, set()),
        (("nosuid", "nodev", "noexec"), {"nosuid", "nodev", "noexec", "rw", "relatime"}, set()),
        (("nosuid", "suid", "noexec", "exec", "nodev", "dev"), {"rw"}, {"nosuid", "noexec", "nodev"}),
        (("noatime", "nodiratime"), {"noatime", "nodiratime"}, {"relatime"}),
        (("strictatime",), set(), {"relatime", "noatime"}),
        (("nosymfollow",), {"nosymfollow"}, set()),
        (("rnosuid", "rnoatime", "rnosymfollow"), {"nosuid", "noatime", "nosymfollow"}, {"relatime"}),
    ],
)
@pytest.mark.parametrize("kind", ["tmpfs", "bind", "file"])
def test_attributes(
    lab: Lab, kind: str, words: tuple[str, ...], there: set[str], not_there: set[str]
) -> None:
    source = lab.base / "source"
    source.touch() if kind == "file" else source.mkdir()
    bound = Mount(destination="/data", type="bind", source=str(source), options=("bind", *words))

    seen = look(lab, "/data", adding(tmpfs(*words) if kind == "tmpfs" else bound))

    assert there <= seen.options
    assert not seen.options & not_there


def test_what_a_file_system_is_asked_for(lab: Lab) -> None:
    words = ("sync", "dirsync", "lazytime", "mand", "size=64k", "mode=1711", "uid=7", "gid=8")

    seen = look(lab, "/data", adding(tmpfs(*words)))

    assert {
        "sync",
        "dirsync",
        "lazytime",
        "size=64k",
        "mode=1711",
        "uid=7",
        "gid=8",
    } <= seen.of_the_file_system


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        (tmpfs("iversion"), "mount /data: tmpfs: Unknown parameter 'iversion': invalid argument"),
        (tmpfs("size=all"), "mount /data: tmpfs: Bad value for 'size': invalid argument"),
        (Mount(destination="/data", type="nofs", source="x"), "mount /data: no such device"),
        (
            Mount(destination="/data", type="bind", source="/nowhere", options=("bind",)),
            "mount /data /nowhere: no such file or directory",
        ),
    ],
)
def test_what_the_kernel_refuses_is_told_with_mount_option_and_reason(
    lab: Lab, mount: Mount, said: str
) -> None:
    assert said.split(":", maxsplit=1)[0] in refusal(lab, adding(mount))
    assert refusal(lab, adding(mount)).replace("mount /data tmpfs", "mount /data: tmpfs") == said


@pytest.mark.parametrize(
    ("mode", "words"), [("712", ("ro",)), ("1777", ("mode=1777",)), ("755", ("mode=755",))]
)
def test_a_tmpfs_has_the_mode_of_the_directory_it_hides_unless_told(
    lab: Lab, mode: str, words: tuple[str, ...]
) -> None:
    (lab.rootfs / "data").mkdir()
    (lab.rootfs / "data").chmod(0o712)

    shown = run(lab, "busybox stat -c %a /data", adding(tmpfs(*words)))

    assert shown == f"{mode}\n"


@pytest.mark.parametrize("words", [("tmpcopyup",), ("tmpcopyup", "ro")])
def test_tmpcopyup_fills_a_tmpfs_with_what_it_hides(lab: Lab, words: tuple[str, ...]) -> None:
    data = lab.rootfs / "data"
    (data / "deep/er").mkdir(parents=True)
    (data / "deep/er/file").write_text("content\n")
    (data / "deep/er").chmod(0o2751)
    os.chown(data / "deep", 12, 13)
    os.utime(data / "deep", (1, 86400))
    os.link(data / "deep/er/file", data / "same")
    (data / "out").symlink_to("../../../etc")
    os.mkfifo(data / "pipe")
    script = "cd data; cat same; busybox stat -c '%a %u:%g %Y' deep deep/er/; busybox readlink out"

    shown = run(lab, script, adding(tmpfs(*words))).splitlines()

    assert shown[:2] == ["content", "755 12:13 86400"]
    assert shown[2].startswith("2751 0:0 ")
    assert shown[3:] == ["../../../etc"]
    assert sorted(os.listdir(data)) == ["deep", "out", "pipe", "same"]


def test_tmpcopyup_of_more_than_fits_is_refused(lab: Lab) -> None:
    (lab.rootfs / "data").mkdir()
    (lab.rootfs / "data/big").write_bytes(b"x" * 200_000)

    assert refusal(lab, adding(tmpfs("tmpcopyup", "size=64k"))) == "copy up /data: no space left on device"


def test_a_remount_changes_attributes_and_options(lab: Lab) -> None:
    again = tmpfs("remount", "ro", "noexec", "size=128k")

    seen = look(lab, "/data", adding(tmpfs("size=64k", "nosuid"), again))

    assert {"ro", "noexec", "nosuid"} <= seen.options
    assert "size=128k" in seen.of_the_file_system


def test_a_remount_of_what_is_no_mount_is_refused(lab: Lab) -> None:
    assert refusal(lab, adding(tmpfs("remount", "ro", destination="/etc"))) == "mount /etc: invalid argument"


@pytest.mark.parametrize(
    ("mount", "fstype"),
    [
        (Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=("nosuid",)), "mqueue"),
        (Mount(destination="/sys", type="sysfs", source="sysfs", options=("ro", "nodev")), "sysfs"),
        (Mount(destination="/proc", type="proc", source="proc", options=("hidepid=2",)), "proc"),
        (
            Mount(destination="/pts", type="devpts", source="devpts", options=("newinstance", "max=9")),
            "devpts",
        ),
        (Mount(destination="/cg", type="cgroup", source="cgroup", options=("ro",)), None),
    ],
)
def test_kernel_file_systems(lab: Lab, mount: Mount, fstype: str | None) -> None:
    seen = look(lab, mount.destination, adding(mount))

    assert fstype is None or seen.fstype == fstype
    assert seen.options >= {word for word in mount.options if word in ("ro", "nosuid", "nodev")}
    if fstype == "proc":
        assert seen.of_the_file_system & {"hidepid=2", "hidepid=invisible"}


def test_an_overlay_of_many_layers(lab: Lab) -> None:
    layers = [lab.base / f"a-layer-with-a-long-name-{number:03d}" for number in range(40)]
    for layer in layers:
        layer.mkdir()
        (layer / layer.name[-3:]).touch()
    lower = ":".join(map(str, layers))
    mount = Mount(destination="/data", type="overlay", source="overlay", options=(f"lowerdir={lower}",))

    assert run(lab, "ls /data | wc -l", adding(mount)) == "40\n"


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "below", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize(("words", "writable"), [(("rbind", "ro"), True), (("rbind", "rro"), False)])
def test_rro_makes_what_is_mounted_below_read_only_too(
    lab: Lab, words: tuple[str, ...], writable: bool
) -> None:
    below = lab.base / "source/below"
    below.mkdir(parents=True)
    bound = Mount(destination="/data", type="bind", source=str(below.parent), options=words)

    with mounted(below):
        shown = run(lab, "echo x 2>&1 >/data/below/file; echo y 2>&1 >/data/file", adding(bound))
        assert (below / "file").exists() == writable
    assert "/data/file: Read-only file system" in shown


@pytest.mark.parametrize("word", ["", "r"])
@pytest.mark.parametrize(
    ("kind", "tag"), [("private", None), ("shared", "shared:"), ("unbindable", "unbindable")]
)
def test_propagation_of_a_mount_and_of_the_root(lab: Lab, word: str, kind: str, tag: str | None) -> None:
    mount = look(lab, "/data", adding(tmpfs(f"{word}{kind}")))
    root = look(lab, "/", adding(rootfs_propagation=f"{word}{kind}"))

    for seen in (mount, root):
        assert [found for found in seen.tags if found.startswith(tag)] if tag else seen.tags == []


def test_a_read_only_root_of_every_propagation(lab: Lab) -> None:
    def edit(spec: Spec) -> Spec:
        root = RootSpec(path=str(lab.rootfs), readonly=True)
        return msgspec.structs.replace(adding(rootfs_propagation="shared")(spec), root=root)

    assert "ro" in look(lab, "/", edit).options
    assert "Read-only file system" in run(lab, "echo 2>&1 > /x", edit)
