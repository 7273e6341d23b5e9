"""What docker's four ways of asking for a mount mean: Binds, Mounts, Tmpfs, Volumes; pure.

Source: Docker Engine API v1.51, HostConfig.Binds, HostConfig.Mounts, MountPoint.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator

from engine.base.errors import InvalidArgument, NotSupported
from engine.containers.model import MountPoint
from engine.spec.docker import ContainerConfig, HostConfig, Mount

_PROPAGATION = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_MODES = (  # at most one of each
    frozenset(("ro", "rw")),
    frozenset(("z", "Z")),
    frozenset(("nocopy",)),
    frozenset(("cached", "delegated", "consistent")),
    _PROPAGATION,
)
_BIND_PARTS_MAX = 3
_OCTAL = re.compile(r"\\([0-7]{3})")  # how mountinfo writes blanks and the like
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")
_RESERVED = frozenset(("/",))


def plan(config: ContainerConfig, host: HostConfig) -> list[MountPoint]:
    """Return the mounts that a container asks for; anonymous volumes have no name yet.

    Of several for one destination, explicit mounts win over binds' anonymous volumes.

    Raises:
        InvalidArgument: a mount is malformed, or a destination is asked for twice.
        NotSupported: a kind or option that this engine does not act on, by name.
    """
    points: dict[str, MountPoint] = {}
    for point in _explicit(host):
        if point.destination in points:
            raise InvalidArgument(f"Duplicate mount point: {point.destination}")
        points[point.destination] = point
    for destination in config.volumes or {}:
        clean = _destination(destination)
        points.setdefault(clean, MountPoint("volume", clean, anonymous=True))
    return list(points.values())


def _explicit(host: HostConfig) -> Iterator[MountPoint]:
    if host.volume_driver not in {"", "local"}:
        raise NotSupported(f"volume driver {host.volume_driver!r} is not supported")
    for bind in host.binds or ():
        yield parse_bind(bind)
    for mount in host.mounts:
        yield from_mount(mount)
    for destination, options in (host.tmpfs or {}).items():
        chosen = tuple(option for option in options.split(",") if option)
        yield MountPoint("tmpfs", _destination(destination), options=_tmpfs_options(chosen))


def parse_bind(text: str) -> MountPoint:
    """Return what `source:destination[:options]` or `destination` means.

    Raises:
        InvalidArgument: docker's words.
    """
    parts = text.split(":")
    if len(parts) > _BIND_PARTS_MAX or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return MountPoint("volume", _destination(parts[0]), anonymous=True)
    source, destination = parts[0], _destination(parts[1])
    mode = parts[2] if len(parts) == _BIND_PARTS_MAX else ""
    options = [option for option in mode.split(",") if option]
    kinds = [kind for option in options for kind in _MODES if option in kind]
    if len(kinds) < len(options) or len(set(kinds)) < len(kinds):
        raise InvalidArgument(f"invalid mode: {mode}")
    propagation = next((option for option in options if option in _PROPAGATION), "")
    rw = "ro" not in options
    if source.startswith("/"):
        return MountPoint(
            "bind",
            destination,
            source=posixpath.normpath(source),
            rw=rw,
            mode=mode,
            propagation=propagation or "rprivate",
        )
    if propagation:
        raise InvalidArgument(f"invalid volume specification: '{text}': propagation needs a host path")
    copy = () if "nocopy" not in options else ("nocopy",)
    return MountPoint("volume", destination, name=source, rw=rw, mode=mode or "z", options=copy)


def from_mount(mount: Mount) -> MountPoint:
    """Return what one entry of `Mounts` means.

    Raises:
        InvalidArgument: docker's words.
        NotSupported: a kind or option that this engine does not act on, by name.
    """
    if not mount.target:
        raise InvalidArgument(
            f"invalid mount config for type {_quoted(mount.type)}: field Target must not be empty"
        )
    destination = _destination(mount.target)
    if mount.type == "bind":
        return _bind(mount, destination)
    if mount.type == "volume":
        options = mount.volume_options
        if options is not None and options.subpath:
            raise NotSupported("mount option volume-subpath is not supported")
        driver = options.driver_config if options else None
        if driver is not None and (driver.name not in {"", "local"} or driver.options):
            raise NotSupported("mount options volume-driver and volume-opt are not supported")
        return MountPoint(
            "volume",
            destination,
            name=mount.source,
            rw=not mount.read_only,
            mode="z",
            options=("nocopy",) if options is not None and options.no_copy else (),
            anonymous=not mount.source,
            labels=options.labels if options is not None else {},
        )
    if mount.type == "tmpfs":
        return _tmpfs(mount, destination)
    if mount.type in {"image", "npipe", "cluster"}:
        raise NotSupported(f"mounts of type {mount.type} are not supported")
    raise InvalidArgument(f"mount type unknown: {_quoted(mount.type)}")


def _bind(mount: Mount, destination: str) -> MountPoint:
    if not mount.source.startswith("/"):
        raise InvalidArgument(
            f'invalid mount config for type "bind": invalid mount path: {_quoted(mount.source)} '
            "mount path must be absolute"
        )
    options = mount.bind_options
    if options is not None and options.read_only_non_recursive:
        raise NotSupported("mount option bind-recursive=writable is not supported")
    propagation = (options.propagation if options else "") or "rprivate"
    if propagation not in _PROPAGATION:
        raise InvalidArgument(f"invalid propagation mode: {propagation}")
    return MountPoint(
        "bind",
        destination,
        source=posixpath.normpath(mount.source),
        rw=not mount.read_only,
        propagation=propagation,
        recursive=not (options is not None and options.non_recursive),
        options=("create",) if options is not None and options.create_mountpoint else ("must-exist",),
    )


def _tmpfs(mount: Mount, destination: str) -> MountPoint:
    if mount.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    chosen: list[str] = ["ro"] if mount.read_only else []
    if mount.tmpfs_options is not None:
        if mount.tmpfs_options.size_bytes:
            chosen.append(f"size={mount.tmpfs_options.size_bytes}")
        if mount.tmpfs_options.mode:
            chosen.append(f"mode={mount.tmpfs_options.mode:o}")
        chosen += ["=".join(option) for option in mount.tmpfs_options.options]
    return MountPoint("tmpfs", destination, options=_tmpfs_options(chosen), rw=not mount.read_only)


def _tmpfs_options(chosen: Iterable[str]) -> tuple[str, ...]:
    """Return docker's defaults with `chosen` after them; `exec` takes `noexec` away, and so on."""
    result = list(_TMPFS_DEFAULTS)
    for option in chosen:
        opposite = option[2:] if option.startswith("no") else f"no{option}"
        result = [kept for kept in result if kept not in {opposite, option}] + [option]
    return tuple(result)


def _destination(path: str) -> str:
    """Return `path` cleaned.

    Raises:
        InvalidArgument: it is relative, or the root.
    """
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{path}' mount path must be absolute")
    clean = posixpath.normpath(path)
    clean = "/" + clean.lstrip("/")
    if clean in _RESERVED:
        raise InvalidArgument("invalid specification: destination can't be '/'")
    return clean


def check_propagation(point: MountPoint, real_source: str, mountinfo: str) -> None:
    """Refuse to share mounts with a host that keeps them to itself: nothing would ever arrive.

    Args:
        point: a bind.
        real_source: its source without symbolic links.
        mountinfo: the text of /proc/self/mountinfo.

    Raises:
        InvalidArgument: docker's words.
    """
    kind = point.propagation.removeprefix("r")
    if kind not in {"shared", "slave"}:
        return
    around, tags = "/", ""
    for line in mountinfo.splitlines():
        fields, _, _ = line.partition(" - ")
        _, _, _, _, where, _, *optional = fields.split(" ")
        where = _OCTAL.sub(lambda match: chr(int(match[1], 8)), where)
        below = real_source == where or real_source.startswith(where.rstrip("/") + "/")
        if below and len(where) >= len(around):
            around, tags = where, " ".join(optional)
    if "shared:" in tags or (kind == "slave" and "master:" in tags):
        return
    wanted = "shared" if kind == "shared" else "shared or slave"
    raise InvalidArgument(f"path {point.source} is mounted on {around} but it is not a {wanted} mount")


def _quoted(text: str) -> str:
    return f'"{text}"'


def volumes_from(specifications: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield container and writability of each `container[:ro|rw]`.

    Raises:
        InvalidArgument: another mode.
    """
    for text in specifications:
        container, _, mode = text.partition(":")
        if mode not in {"", "ro", "rw", "z", "Z"}:
            raise InvalidArgument(f"invalid mode for volumes-from: {mode}")
        yield container, mode != "ro"
