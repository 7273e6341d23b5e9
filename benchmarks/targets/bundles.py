"""Bundles that every OCI runtime can run: what the engine itself makes of a container."""

import shutil
from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.spec.runtime import Namespace, NamespaceType, Process, Resources, Root, Spec

# What runc and crun cannot do where a benchmark runs in a container itself, for want of CAP_SYS_RESOURCE.
_UNAVAILABLE = {"rlimits": (), "oom_score_adj": None}
_EVERY = tuple(NamespaceType(name) for name in ("pid", "network", "mount", "ipc", "uts", "cgroup"))
_OCI_VERSION = "1.0.2"  # crun refuses what is newer than itself
_PROGRAMS = ("true", "sleep", "cat")


def portable(spec: Spec, *, args: tuple[str, ...], rootfs: str, cgroup: str) -> Spec:
    """Return the engine's configuration of a container as one of a bundle that is whole in itself.

    Every namespace is a new one, and what the engine mounts of its own files
    (`/etc/hosts` and the like) is left out. Mounts, devices, capabilities,
    system call filter and masked paths stay as the engine has them. Pure.
    """
    process = msgspec.structs.replace(
        spec.process or Process(cwd="/"), args=args, terminal=False, **_UNAVAILABLE
    )
    mounts = tuple(mount for mount in spec.mounts if mount.type != "bind")
    namespaces = tuple(Namespace(type=kind) for kind in _EVERY)
    linux = msgspec.structs.replace(
        spec.linux,
        namespaces=namespaces,
        cgroups_path=cgroup,
        resources=Resources(devices=spec.linux.resources.devices if spec.linux.resources else ()),
    )
    return msgspec.structs.replace(
        spec,
        oci_version=_OCI_VERSION,
        process=process,
        root=Root(path=rootfs),
        mounts=mounts,
        linux=linux,
        hostname="bench",
    )


def make(directory: Path, spec: Spec) -> Path:
    """Write a bundle and return its directory."""
    directory.mkdir()
    (directory / "config.json").write_bytes(jsonio.encode(spec))
    return directory


def make_rootfs(directory: Path, busybox: Path) -> Path:
    """Make a root file system of one program, and return it."""
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp"):
        (directory / name).mkdir(parents=True)
    shutil.copy(busybox, directory / "bin/busybox")
    for name in _PROGRAMS:
        (directory / "bin" / name).symlink_to("busybox")
    return directory
