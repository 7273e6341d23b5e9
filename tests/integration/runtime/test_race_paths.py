"""Two hundred creates against somebody who keeps exchanging names with links to a canary beside the root.

Another container that has the same volume can do so. The canary stays as it is, and what is hidden is hidden.
Each race has its control: who looks first and then uses the name loses it, and at once.
"""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine.containers.shims import StartFailed
from engine.spec.runtime import Mount, Spec
from tests.support.attacker import swapping
from tests.support.canary import Canary
from tests.support.shimlab import Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "compiler")

_ROUNDS = 200
_PATIENCE_S = 60.0  # for what takes a few hundredths of a second where the swapper gets to run
_NAIVE = """
import itertools, os, stat, sys, time
from pathlib import Path
from engine.kernel.mount import MountFlag, mount
canary, place = map(Path, sys.argv[1:3])
deadline = time.monotonic() + {patience}
for number in itertools.count():
    if time.monotonic() > deadline:
        break
    try:
        if {sound}:
            os.listdir("/proc")  # as others read mountinfo in between
            {use}
    except OSError:
        continue
    if {fell}:
        print("fell")
        break
"""


def naive(canary: Canary, place: Path, **steps: str) -> str:
    """Look, then use, by name, in a mount namespace of its own; return what it says."""
    code = _NAIVE.format(patience=_PATIENCE_S, **steps)
    argv = ["unshare", "--mount", sys.executable, "-c", code, str(canary.path), str(place)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True, timeout=2 * _PATIENCE_S, env=environment
    )
    return done.stdout


def race(lab: Lab, edit: Callable[[Spec], Spec], check: Callable[[int], None] = lambda _: None) -> None:
    """Make containers, which may fail; `check` what has been made by its pid. One at least must be."""
    made = 0

    async def story() -> None:
        nonlocal made
        for _ in range(_ROUNDS):
            try:
                shim = await lab.spawn("true", edit=edit)
            except StartFailed:
                continue
            check(shim.pid)
            made += 1
            await shim.delete()

    lab.go(story)
    assert made


@pytest.fixture
def canary(lab: Lab) -> Canary:
    return Canary(lab.base)


def bind(source: Path, destination: str, *options: str) -> Mount:
    return Mount(
        destination=destination, type="bind", source=str(source), options=("rbind", "rprivate", *options)
    )


def with_mounts(*mounts: Mount) -> Callable[[Spec], Spec]:
    return lambda spec: msgspec.structs.replace(spec, mounts=(*spec.mounts, *mounts))


def test_directories_of_a_volume_and_a_source_that_turn_into_links(lab: Lab, canary: Canary) -> None:
    """What is mounted, masked and made read-only in there, and where it comes from, all at once.

    CVE-2021-30465, CVE-2019-18837, CVE-2024-45310 (destinations), CVE-2024-11218 (sources). A source is the
    caller's and followed, but looked up once: what was asked for holds for what was found.
    """
    shared = lab.base / "shared"
    (shared / "a/b/c").mkdir(parents=True)
    (shared / "a/file").write_text("secret\n")
    for name in ("a", "a/b"):
        (shared / f"{name}.link").symlink_to(canary.path)
    (lab.base / "source").mkdir()
    (lab.base / "source.link").symlink_to(canary.path)
    mounts = (
        bind(shared, "/v"),
        bind(lab.base / "source", "/v/a/b/c/d", "ro"),
        bind(lab.rootfs / "etc", "/v/a/new/e"),
        bind(lab.base / "source", "/m", "ro"),
    )

    def edit(spec: Spec) -> Spec:
        linux = msgspec.structs.replace(spec.linux, masked_paths=("/v/a/file",), readonly_paths=("/v/a/b",))
        return with_mounts(*mounts)(msgspec.structs.replace(spec, linux=linux))

    def check(pid: int) -> None:
        assert os.statvfs(f"/proc/{pid}/root/m").f_flag & os.ST_RDONLY

    with swapping(lab.base, "source"), swapping(shared, "a", "a/b"):
        race(lab, edit, check)

    assert canary.is_untouched()


def test_a_dev_that_turns_into_a_link(lab: Lab, canary: Canary) -> None:
    """CVE-2026-41579: devices and links were made in the host's directory."""
    (lab.rootfs / "dev.link").symlink_to(canary.path)

    with swapping(lab.rootfs, "dev"):
        race(lab, lambda spec: spec)

    assert canary.is_untouched()


def hidden(path: str) -> Callable[[int], None]:
    """Return a check that the null device is over `path` of a container."""

    def check(pid: int) -> None:
        found = os.stat(f"/proc/{pid}/root{path}")
        assert stat.S_ISCHR(found.st_mode)
        assert found.st_rdev == os.makedev(1, 3)

    return check


def test_a_null_device_that_turns_into_a_link(lab: Lab, canary: Canary) -> None:
    """CVE-2025-31133: what is put over masked paths was looked up by name."""
    devices = lab.base / "devices"
    (devices / "pts").mkdir(parents=True)
    os.mknod(devices / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (devices / "null.link").symlink_to("/proc/sys/kernel/core_pattern")

    def edit(spec: Spec) -> Spec:
        mounts = [mount for mount in spec.mounts if not mount.destination.startswith("/dev")]
        linux = msgspec.structs.replace(spec.linux, masked_paths=("/proc/keys", "/proc/timer_list"))
        return msgspec.structs.replace(spec, linux=linux, mounts=(*mounts, bind(devices, "/dev")))

    with swapping(devices, "null"):
        race(lab, edit, hidden("/proc/keys"))

    assert canary.is_untouched()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory, where no exchange waits for a disk."""
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True, timeout=_PATIENCE_S)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True, timeout=_PATIENCE_S)


@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [
        pytest.param(
            "a",
            "directory",
            {
                "sound": "os.path.realpath(place / 'a' / 'new') == str(place / 'a' / 'new')",
                "use": "(place / 'a' / f'new{number}').mkdir()",
                "fell": "(canary / f'new{number}').exists()",
            },
            id="destination",
        ),
        pytest.param(
            "dev",
            "directory",
            {
                "sound": "not (place / 'dev').is_symlink()",
                "use": "os.mknod(place / 'dev' / f'null{number}', stat.S_IFCHR | 0o666, os.makedev(1, 3))",
                "fell": "(canary / f'null{number}').exists()",
            },
            id="dev",
        ),
        pytest.param(
            "null",
            "device",
            {
                "sound": "os.stat(place / 'null').st_rdev == os.makedev(1, 3)",
                "use": "mount(str(place / 'null'), place / 'target/file', None, MountFlag.BIND)",
                "fell": "(place / 'target/file').is_file()",
            },
            id="null device",
        ),
        pytest.param(
            "a",
            "directory",
            {
                "sound": "not (place / 'a').is_symlink()",
                "use": "mount('/dev/null', place / 'a' / 'file', None, MountFlag.BIND)",
                "fell": "(canary / 'file').is_char_device()",
            },
            id="masked path",
        ),
        pytest.param(
            "source",
            "directory",
            {
                "sound": "not (place / 'source').is_symlink()",
                "use": "mount(str(place / 'source'), place / 'target', None, MountFlag.BIND)",
                "fell": "(place / 'target/file').read_text() == 'of the host\\n'",
            },
            id="source",
        ),
    ],
)
def test_who_looks_first_and_then_uses_a_name_loses(
    memory: Path, name: str, kind: str, steps: dict[str, str]
) -> None:
    """The control of each race above."""
    naive_canary, place = Canary(memory), memory / "place"
    for directory in ("target", *([name] if kind == "directory" else [])):
        (place / directory).mkdir(parents=True)
        (place / directory / "file").touch()
    if kind == "device":
        os.mknod(place / name, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    to = naive_canary.path if kind == "directory" else naive_canary.file
    (place / f"{name}.link").symlink_to(to)

    with swapping(place, name):
        said = naive(naive_canary, place, **steps)

    assert said == "fell\n"
