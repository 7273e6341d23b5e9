"""Containers in a user namespace of their own, and mounts whose ids are mapped."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine.base.errors import InvalidArgument
from engine.containers.shims import StartFailed
from engine.spec.runtime import Device, IdMapping, Mount, Namespace, NamespaceType, Spec, User
from tests.support.shimlab import Lab, parent_of
from tests.support.tracing import traced

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "user_namespaces")

_HOST_ID = 200_000
_SIZE = 1000


def ids(container: int, host: int, size: int = _SIZE) -> tuple[IdMapping, ...]:
    return (IdMapping(container_id=container, host_id=host, size=size),)


def with_users(
    *mounts: Mount,
    host_id: int = _HOST_ID,
    user: User | None = None,
    devices: tuple[Device, ...] = (),
    spaces: tuple[Namespace, ...] = (),
    without: tuple[NamespaceType, ...] = (),
) -> Callable[[Spec], Spec]:
    """Return an edit that gives a container a user namespace."""

    def edit(spec: Spec) -> Spec:
        kept = [space for space in spec.linux.namespaces if space.type not in without]
        linux = msgspec.structs.replace(
            spec.linux,
            namespaces=(*kept, Namespace(type=NamespaceType.USER), *spaces),
            uid_mappings=ids(0, host_id),
            gid_mappings=ids(0, host_id),
            devices=devices,
        )
        assert spec.process is not None
        process = msgspec.structs.replace(spec.process, user=user or User())
        return msgspec.structs.replace(spec, linux=linux, process=process, mounts=(*spec.mounts, *mounts))

    return edit


@pytest.fixture
def mapped(lab: Lab) -> Lab:
    """A lab whose root belongs to the container's root, in a directory that only the host's may enter."""
    subprocess.run(["chown", "-hR", f"{_HOST_ID}:{_HOST_ID}", lab.rootfs], check=True)
    assert lab.base.stat().st_mode & 0o077 == 0
    return lab


def run(lab: Lab, script: str, edit: Callable[[Spec], Spec], **options: object) -> str:
    return lab.said(script, edit=edit, **options)


def with_mount(mount: Mount) -> Callable[[Spec], Spec]:
    return lambda spec: msgspec.structs.replace(spec, mounts=(*spec.mounts, mount))


def refusal(lab: Lab, edit: Callable[[Spec], Spec]) -> str:
    texts: list[str] = []

    async def story() -> None:
        with pytest.raises((StartFailed, InvalidArgument)) as caught:
            await lab.spawn("true", edit=edit)
        texts.append(str(caught.value))

    lab.go(story)
    return texts[0]


def test_root_inside_is_a_user_of_the_host(mapped: Lab) -> None:
    script = "cat /proc/self/uid_map /proc/self/gid_map; echo x > /tmp/made; busybox id -u"

    shown = run(mapped, script, with_users())

    line = f"{0:>10} {_HOST_ID:>10} {_SIZE:>10}\n"
    assert shown == f"{line}{line}0\n"
    assert (mapped.rootfs / "tmp/made").stat().st_uid == _HOST_ID


def test_a_user_inside_with_groups_and_capabilities(mapped: Lab) -> None:
    user = User(uid=7, gid=8, additional_gids=(9, 10))

    shown = run(mapped, "grep -E '^(Uid|Gid|Groups|CapBnd|CapEff)' /proc/self/status", with_users(user=user))

    found = dict(line.split(":\t") for line in shown.splitlines())
    assert found["Uid"].split() == ["7"] * 4
    assert found["Gid"].split() == ["8"] * 4
    assert found["Groups"].split() == ["9", "10"]
    assert int(found["CapBnd"], 16) == 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10
    assert int(found["CapEff"], 16) == 0


@pytest.mark.parametrize("uid", [0, 7])
def test_streams_can_be_opened_again_by_name(mapped: Lab, uid: int) -> None:
    shown = run(mapped, "echo through > /proc/self/fd/1", with_users(user=User(uid=uid)))

    assert shown == "through\n"


def test_every_namespace_belongs_to_the_users_of_the_container(mapped: Lab) -> None:
    """So its root may do inside what the host's root may outside: here, name the host and mount."""

    def edit(spec: Spec) -> Spec:
        spec = with_users(spaces=(Namespace(type=NamespaceType.CGROUP),))(spec)
        assert spec.process is not None
        assert spec.process.capabilities is not None
        names = ("CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_CHROOT")
        held = msgspec.structs.replace(
            spec.process.capabilities, bounding=names, effective=names, permitted=names
        )
        return msgspec.structs.replace(spec, process=msgspec.structs.replace(spec.process, capabilities=held))

    script = (
        "busybox hostname other && busybox hostname; busybox ip link set lo mtu 1400 && echo network;"
        " mount -t tmpfs x /tmp && echo mounted; mount -t proc x /tmp && echo processes"
    )
    assert run(mapped, script, edit).splitlines() == ["other", "network", "mounted", "processes"]


def test_kernel_file_systems_devices_and_masks_inside(mapped: Lab) -> None:
    def edit(spec: Spec) -> Spec:
        spec = with_users(
            Mount(destination="/sys", type="sysfs", source="sysfs", options=("ro", "nosuid")),
            Mount(destination="/dev/mqueue", type="mqueue", source="mqueue"),
            Mount(destination="/dev/shm", type="tmpfs", source="shm", options=("size=64k", "mode=1777")),
            Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=("ro",)),
        )(spec)
        linux = msgspec.structs.replace(
            spec.linux, masked_paths=("/proc/interrupts", "/proc/acpi"), readonly_paths=("/proc/sys",)
        )
        return msgspec.structs.replace(spec, linux=linux)

    script = (
        "head -c 4 /dev/zero | wc -c; echo gone > /dev/null && echo written; wc -c < /proc/interrupts;"
        " ls /sys/class/net; ls -d /dev/mqueue; busybox stat -c '%a %u' /dev/shm;"
        " echo x 2>&1 > /proc/sys/kernel/domainname"
    )
    shown = run(mapped, script, edit).splitlines()
    assert shown[:6] == ["4", "written", "0", "lo", "/dev/mqueue", "1777 0"]
    assert "Read-only file system" in shown[6]


def test_a_device_that_may_not_be_made_is_the_hosts_own(mapped: Lab) -> None:
    fuse = Device(path="/dev/urandom", type="c", major=1, minor=9)

    assert run(mapped, "head -c 3 /dev/urandom | wc -c", with_users(devices=(fuse,))) == "3\n"


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (Device(path="/dev/lab", type="c", major=1, minor=9), "the host has none to show"),
        (Device(path="/dev/zero", type="c", major=1, minor=9), "the host's is another device"),
    ],
)
def test_a_device_that_can_be_neither_made_nor_shown_is_refused_by_name(
    mapped: Lab, device: Device, said: str
) -> None:
    told = refusal(mapped, with_users(devices=(device,)))

    assert told == f"make device {device.path}: may not be made here, and {said}"


def test_an_exec_joins_the_users(mapped: Lab) -> None:
    async def story() -> None:
        shim = await mapped.spawn("sleep", "1000", edit=with_users())
        await shim.start()
        for terminal in (False, True):
            script = "cat /proc/self/uid_map; busybox id -u; busybox stat -c %u /proc/self/ > /proc/self/fd/1"
            command = ("sh", "-c", script)
            client = await mapped.exec(shim, f"e{terminal}", *command, terminal=terminal, framed=False)
            shown = (await client.everything()).decode().split()
            assert shown[-5:] == ["0", str(_HOST_ID), str(_SIZE), "0", "0"]
            await client.close()
        await shim.delete()

    mapped.go(story)


def test_a_terminal_inside_belongs_to_the_user(mapped: Lab) -> None:
    shown = run(
        mapped, "busybox stat -c '%u' /dev/console; busybox tty", with_users(user=User(uid=7)), terminal=True
    )

    assert shown in {"7\r\n/dev/pts/0\r\n", "7\r\n/dev/console\r\n"}


def test_the_source_of_a_bind_is_reached_by_the_host_and_not_by_the_container(mapped: Lab) -> None:
    source = mapped.base / "closed/source"
    source.mkdir(parents=True)
    (source / "file").write_text("seen\n")
    source.parent.chmod(0)
    (mapped.base / "link").symlink_to(source)
    bound = Mount(destination="/new/data", type="bind", source=str(mapped.base / "link"), options=("ro",))

    assert run(mapped, "cat /new/data/file", with_users(bound)) == "seen\n"


def test_a_network_of_the_host_is_joined_from_outside(mapped: Lab) -> None:
    space = Namespace(type=NamespaceType.NETWORK, path=f"/proc/{os.getpid()}/ns/net")

    shown = run(
        mapped, "busybox readlink /proc/self/ns/net", with_users(spaces=(space,), without=(space.type,))
    )

    assert shown.strip() == os.readlink("/proc/self/ns/net")


@pytest.fixture
def existing() -> Iterator[str]:
    """The path of a user namespace with the ids of `with_users`."""
    argv = ["unshare", "--user", "sh", "-c", "echo in; exec sleep 1000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        for name in ("gid_map", "uid_map"):
            Path(f"/proc/{holder.pid}/{name}").write_text(f"0 {_HOST_ID} {_SIZE}\n")
        yield f"/proc/{holder.pid}/ns/user"
        holder.kill()


def joining(path: str, *mounts: Mount, told: int | None = None) -> Callable[[Spec], Spec]:
    """Return an edit that lets a container join the user namespace `path`, and tell where its ids begin."""

    def edit(spec: Spec) -> Spec:
        spec = with_users(*mounts, without=())(spec)
        spaces = [space for space in spec.linux.namespaces if space.type is not NamespaceType.USER]
        linux = msgspec.structs.replace(
            spec.linux,
            namespaces=(*spaces, Namespace(type=NamespaceType.USER, path=path)),
            uid_mappings=() if told is None else ids(0, told),
            gid_mappings=() if told is None else ids(0, told),
        )
        return msgspec.structs.replace(spec, linux=linux)

    return edit


@pytest.mark.parametrize("told", [None, _HOST_ID])
def test_an_existing_user_namespace_is_joined_and_owns_the_others(
    mapped: Lab, existing: str, told: int | None
) -> None:
    source = mapped.base / "source"
    source.mkdir(mode=0o700)
    (source / "file").write_text("seen\n")
    (source / "file").chmod(0o644)
    source.chmod(0o755)
    bound = Mount(destination="/data", type="bind", source=str(source))
    script = "busybox readlink /proc/self/ns/user; cat /data/file; busybox id -u; ls /dev/null;"
    script += " mount | grep -c ^proc"

    async def story() -> None:
        shim = await mapped.spawn("sleep", "1000", edit=joining(existing, bound, told=told))
        await shim.start()
        client = await mapped.exec(shim, "e", "sh", "-c", script, framed=False)
        shown = (await client.everything()).decode().split()
        assert shown == [os.readlink(existing), "seen", "0", "/dev/null", "1"]
        await client.close()
        await shim.delete()

    mapped.go(story)


@pytest.mark.requires("strace")
def test_nobody_who_is_in_the_namespace_already_can_look_into_who_joins_it(
    mapped: Lab, existing: str, tmp_path: Path
) -> None:
    """What joins still holds the host's files: it is closed to others before, not after."""

    async def story() -> None:
        first = await mapped.spawn("true")
        with traced(parent_of(first.shim_pid), tmp_path / "trace"):
            shim = await mapped.spawn("true", edit=joining(existing))
            await shim.start()
            await shim.wait()
            await shim.delete()
        await first.delete()

    mapped.go(story)

    lines = (tmp_path / "trace").read_text().splitlines()
    joins = [at for at, line in enumerate(lines) if "setns(" in line and "CLONE_NEWUSER" in line]
    assert len(joins) == 1
    who = lines[joins[0]].split()[0]
    before = [line for line in lines[: joins[0]] if line.split()[0] == who]
    assert any("PR_SET_DUMPABLE, SUID_DUMP_DISABLE" in line for line in before)


def test_an_existing_user_namespace_of_other_ids_than_told_is_refused(mapped: Lab, existing: str) -> None:
    told = refusal(mapped, joining(existing, told=_HOST_ID + 1))

    assert told == (
        f"compare the ids of the user namespace {existing}: its uid_map is not the one of config.json"
    )


@pytest.mark.parametrize("path", ["/nowhere", "/etc/hostname", "/proc/self/ns/net"])
def test_what_is_no_user_namespace_is_not_joined(mapped: Lab, path: str) -> None:
    assert refusal(mapped, joining(path))


@pytest.mark.parametrize("words", [("idmap",), ("ridmap", "rbind")])
@pytest.mark.parametrize(
    ("own", "users", "shown"),
    [
        (ids(0, _HOST_ID), True, "5:5"),  # as in the container's namespace
        (ids(0, _HOST_ID + 3), True, "8:8"),
        ((), True, "5:5"),  # the container's own
        (ids(0, 3000), False, "3005:3005"),
    ],
)
def test_a_mount_with_mapped_ids(
    mapped: Lab, own: tuple[IdMapping, ...], users: bool, shown: str, words: tuple[str, ...]
) -> None:
    source = mapped.base / "source"
    source.mkdir()
    (source / "file").touch()
    file_mount = "rbind" in words
    os.chown(source / "file", 5, 5)
    bound = Mount(
        destination="/data/file" if file_mount else "/data",
        type="bind",
        source=str(source / "file" if file_mount else source),
        options=words,
        uid_mappings=own,
        gid_mappings=own,
    )

    edit = with_users(bound) if users else with_mount(bound)
    assert run(mapped, "busybox stat -c %u:%g /data/file", edit) == f"{shown}\n"
    assert (source / "file").stat().st_uid == 5


def test_ridmap_maps_the_tree_and_idmap_the_mount(mapped: Lab) -> None:
    below = mapped.base / "source/below"
    below.mkdir(parents=True)
    texts = []
    subprocess.run(["mount", "-t", "tmpfs", "below", below], check=True)
    try:
        for word in ("idmap", "ridmap"):
            bound = Mount(
                destination="/data",
                type="bind",
                source=str(below.parent),
                options=("rbind", word),
                uid_mappings=ids(0, 3000),
                gid_mappings=ids(0, 3000),
            )
            script = "busybox stat -c %u /data /data/below"
            texts.append(run(mapped, script, with_mount(bound)))
    finally:
        subprocess.run(["umount", "-l", below], check=True)
    assert texts == ["3000\n0\n", "3000\n3000\n"]


def test_ids_of_a_file_system_that_cannot_map_them_are_refused_by_the_mounts_name(mapped: Lab) -> None:
    bound = Mount(
        destination="/data",
        type="bind",
        source="/proc/sys",
        options=("idmap",),
        uid_mappings=ids(0, 1),
        gid_mappings=ids(0, 1),
    )

    assert refusal(mapped, with_users(bound)).startswith("map the ids of mount /data /proc/sys: ")


def test_a_shared_mount_is_a_peer_of_its_source(lab: Lab, tmp_path: Path) -> None:
    """What is mounted on the host below it later arrives inside, although the root is a slave."""
    tmp_path.joinpath("below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shared", tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-shared", tmp_path], check=True)
        peer = next(
            word
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4] == str(tmp_path)
            for word in line.split()
            if word.startswith("shared:")
        )
        bound = Mount(destination="/data", type="bind", source=str(tmp_path), options=("rbind", "rshared"))

        shown = run(lab, "grep ' /data ' /proc/self/mountinfo", with_mount(bound))
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
    assert peer in shown.split()
