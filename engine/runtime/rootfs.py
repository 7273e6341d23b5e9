"""Plan the mounts of a container, then make them below a descriptor of its root.

`plan` is pure and holds the rules. Applying never uses a path of the container
twice: each destination is opened once with openat2(RESOLVE_IN_ROOT), made
component by component where it is missing, and mounted on by descriptor. So a
symbolic link in the image, or one that another container swaps in, leads to a
place inside the root or to an error.

Sources of bind mounts are the caller's paths and are followed as such.

Source: OCI runtime-spec 1.2.0, config.md, "Mounts".
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Sequence

import msgspec

from engine.base.errors import InvalidArgument, NotSupported
from engine.kernel import mount as mounts
from engine.kernel import system, treecopy
from engine.kernel.mount import AT_FDCWD, MountAttr, MountFlag
from engine.kernel.openat2 import BENEATH, IN_ROOT, Resolve, openat2
from engine.runtime.options import MountOptions, parse_options
from engine.runtime.progress import Progress
from engine.runtime.userns import IdMap, id_map
from engine.spec.runtime import Mount

_PROC_NAMES = (
    "cpuinfo diskstats meminfo stat swaps uptime loadavg slabinfo net/dev sys/kernel/ns_last_pid"
    " sys/crypto/fips_enabled"
)
_PROC_ALLOWED = frozenset(f"/proc/{name}" for name in _PROC_NAMES.split())
_KERNEL_TYPES = frozenset({"proc", "sysfs"})
_FOREIGN = frozenset({"idmap", "ridmap"})  # with values
_LINKS_MAX = 40
_ATTEMPTS = 64
_FSCONFIG_VALUE_MAX = 255
_MOUNT_DATA_MAX = 4095


class MountStep(msgspec.Struct, frozen=True):
    """One mount to make; `destination` is absolute, inside the root, without `..`."""

    destination: str
    fstype: str  # "bind" for a bind mount
    source: str
    options: MountOptions
    ids: IdMap | None = None  # an id-mapped mount


def plan(wanted: Iterable[Mount], users: IdMap | None = None) -> tuple[MountStep, ...]:
    """Return the steps for `wanted`, in order; `users` are the ids of the container's own user namespace.

    Raises:
        InvalidArgument: a destination climbs, is the root, or lies in /proc.
        NotSupported: an option is not supported.
    """
    return tuple(_plan_one(mount, users) for mount in wanted)


def _plan_one(mount: Mount, users: IdMap | None) -> MountStep:
    options = parse_options(mount.options)
    fstype = "bind" if options.bind or mount.type in ("bind", "rbind") else mount.type
    if not fstype:
        raise InvalidArgument(f"mount {mount.destination}: neither a type nor a bind")
    destination = clean(mount.destination)
    if destination == "/":
        raise InvalidArgument("mount /: the root is not a mount destination")
    if destination == "/proc" and fstype not in ("proc", "bind"):
        raise InvalidArgument(f"mount /proc: type {fstype} would hide the process file system")
    if destination.startswith("/proc/") and destination not in _PROC_ALLOWED:
        raise InvalidArgument(f"mount {destination}: nothing may be mounted inside /proc")
    _check_options(destination, fstype, options)
    ids = _ids(mount, options, users)
    if ids is not None and (fstype != "bind" or options.remount):
        raise InvalidArgument(f"mount {destination}: only the ids of a bind mount can be mapped")
    return MountStep(destination, fstype, mount.source, options, ids)


def _ids(mount: Mount, options: MountOptions, users: IdMap | None) -> IdMap | None:
    """Return how the ids of a mount are mapped: as it says, else as the container's; None for not at all."""
    if mount.uid_mappings or mount.gid_mappings:
        return id_map(mount.uid_mappings, mount.gid_mappings, f"mount {mount.destination}")
    if not options.map_ids:
        return None
    if users is None:
        raise InvalidArgument(f"mount {mount.destination}: idmap without uidMappings and gidMappings")
    return users


def _check_options(destination: str, fstype: str, options: MountOptions) -> None:
    foreign = next((key for key, _ in options.data if key in _FOREIGN), "")
    if foreign:
        raise NotSupported(
            f"mount {destination}: option {foreign}= is crun's own: give uidMappings, gidMappings"
        )
    if options.copy_up and (fstype != "tmpfs" or options.remount):
        raise InvalidArgument(f"mount {destination}: tmpcopyup is for a new tmpfs only")


def warnings_of(steps: Iterable[MountStep]) -> tuple[str, ...]:
    """Return what is left out of the mounts, one line each.

    A bind mount shows a file system that has its options already: the kernel ignores new ones, as
    mount(8) and other runtimes do, and who asks for a mode or a size is to know.
    """
    found = []
    for step in steps:
        if step.fstype == "bind" and step.options.data:
            words = (key if value is None else f"{key}={value}" for key, value in step.options.data)
            found.append(
                f"mount {step.destination}: a bind mount has no file system options: {','.join(words)}"
            )
    return tuple(found)


def clean(path: str) -> str:
    """Return an absolute path of plain names.

    Raises:
        InvalidArgument: it has a `..`, which has no business here, or a NUL.
    """
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names or "\0" in path:
        raise InvalidArgument(f"invalid path in the container: {path!r}")
    return "/" + "/".join(names)


class ProcHidden(OSError):
    """A mount would hide what this process, or the container's own, relies on."""


class Rootfs:
    """The root of a container under construction, as a descriptor; owns it.

    One that is `attached` nowhere is in nobody's mount namespace, and binds must not make it a peer.
    """

    def __init__(self, root_fd: int, progress: Progress, *, attached: bool = True) -> None:
        self.fd = root_fd
        self.progress = progress
        self._attached = attached

    def open(self, path: str, *, resolve: Resolve = IN_ROOT) -> int:
        """Return an O_PATH descriptor of what is at `path` inside the root."""
        return openat2(self.fd, path.lstrip("/") or ".", os.O_PATH, resolve=resolve)

    def open_or_make(self, path: str, *, directory: bool) -> int:
        """Return an O_PATH descriptor of `path`, making it and its parents when they are missing."""
        try:
            return self.open(path)
        except FileNotFoundError:
            return self._make(path, is_file=not directory)

    def make_directories(self, path: str) -> int:
        """Return an O_PATH descriptor of the directory `path`, making what is missing of it."""
        return self.open_or_make(path, directory=True)

    def _make(self, path: str, *, is_file: bool) -> int:
        """Walk to `path`, one name from one descriptor at a time, and make what is missing.

        Links are followed here, not by the kernel, which cannot go on behind one that dangles: so
        `/etc/resolv.conf -> ../run/resolv.conf` is made where it points to, inside the root.
        """
        pending = _names(path)[::-1]
        links = 0
        with contextlib.ExitStack() as opened:
            above = [self.fd]  # the directories from the root to where we are; the first is not ours
            while pending:
                name = pending.pop()
                if name == "..":
                    above[1:] = above[1:-1]
                    continue
                fd = _open_or_make_one(above[-1], name, is_file=is_file and not pending)
                opened.callback(os.close, fd)
                if not stat.S_ISLNK(os.fstat(fd).st_mode):
                    above.append(fd)
                    continue
                links += 1
                if links > _LINKS_MAX or system.statfs_type(fd) == system.PROC_SUPER_MAGIC:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink("", dir_fd=fd)
                if target.startswith("/"):
                    del above[1:]
                pending += _names(target)[::-1]
            return os.dup(above[-1])

    def mount(self, step: MountStep, source_fd: int | None = None) -> None:
        """Make one mount of the plan; `source_fd` is its detached tree where the runtime has opened that."""
        self.progress.at(f"mount {step.destination}", step.source if step.fstype == "bind" else "")
        if step.options.remount:
            self._remount(step)
        elif step.fstype == "tmpfs":
            self._mount_tmpfs(step)
        else:
            tree_fd = self._tree(step, source_fd)
            try:
                self.attach(tree_fd, step)
            finally:
                os.close(tree_fd)

    def _mount_tmpfs(self, step: MountStep) -> None:
        """Mount a tmpfs with the mode of the directory it hides, unless told, and with its files if asked."""
        options = step.options
        with contextlib.ExitStack() as opened:
            target_fd = self._target(step, directory=True)
            opened.callback(os.close, target_fd)
            if options.value_of("mode") is None:
                mode = stat.S_IMODE(os.fstat(target_fd).st_mode)
                options = msgspec.structs.replace(options, data=(*options.data, ("mode", f"{mode:o}")))
            tree_fd = new_filesystem(
                msgspec.structs.replace(step, options=options), self.progress, MountAttr.NONE
            )
            opened.callback(os.close, tree_fd)
            if options.copy_up:
                self.progress.at(f"copy up {step.destination}")
                _copy_up(target_fd, tree_fd)
                self.progress.at(f"mount {step.destination}")
            if options.attr_new:
                mounts.mount_setattr(tree_fd, "", options.attr_new)
            self._attach_at(tree_fd, target_fd, step)

    def _remount(self, step: MountStep) -> None:
        """Change what is mounted at the destination: its own attributes, and its file system's options."""
        options = step.options
        mount_fd = self.open(step.destination)
        try:
            if options.data and step.fstype != "bind":
                configure(mount_fd, options.data, self.progress)
            self._set_attributes(mount_fd, options)
            for kind, recursive in options.propagation:
                mounts.mount_setattr(mount_fd, "", propagation=kind, recursive=recursive)
        finally:
            os.close(mount_fd)

    def _tree(self, step: MountStep, source_fd: int | None) -> int:
        """Return a new descriptor of the detached tree that is mounted."""
        options = step.options
        if step.fstype != "bind":
            return _detached(step, self.progress)
        if source_fd is None:
            tree_fd = mounts.open_tree(AT_FDCWD, step.source, clone=True, recursive=options.recursive)
        else:
            tree_fd = os.dup(source_fd)
        try:
            if not self._attached and source_fd is None:  # in a namespace of its own all are slaves already
                mounts.mount_setattr(tree_fd, "", propagation=MountFlag.SLAVE, recursive=True)
            self._set_attributes(tree_fd, options)
        except BaseException:
            os.close(tree_fd)
            raise
        return tree_fd

    def _set_attributes(self, mount_fd: int, options: MountOptions) -> None:
        if options.attr_set or options.attr_clr:
            mounts.mount_setattr(mount_fd, "", options.attr_set, options.attr_clr)
        if options.rec_set or options.rec_clr:
            mounts.mount_setattr(mount_fd, "", options.rec_set, options.rec_clr, recursive=True)

    def attach(self, tree_fd: int, step: MountStep) -> None:
        """Put the detached mount `tree_fd` at its destination and set its propagation."""
        target_fd = self._target(step, directory=stat.S_ISDIR(os.fstat(tree_fd).st_mode))
        try:
            self._attach_at(tree_fd, target_fd, step)
        finally:
            os.close(target_fd)

    def _target(self, step: MountStep, *, directory: bool) -> int:
        if step.fstype in _KERNEL_TYPES or step.destination in ("/dev", "/proc"):
            return self._real_directory(step.destination)
        return self.open_or_make(step.destination, directory=directory)

    def _attach_at(self, tree_fd: int, target_fd: int, step: MountStep) -> None:
        self._protect_proc(tree_fd, target_fd, step)
        directory = stat.S_ISDIR(os.fstat(tree_fd).st_mode)
        if stat.S_ISDIR(os.fstat(target_fd).st_mode) != directory:  # move_mount says only EINVAL
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), step.destination)
        for kind, recursive in step.options.propagation:  # here: on a detached root there is no later
            mounts.mount_setattr(tree_fd, "", propagation=kind, recursive=recursive)
        mounts.move_mount(tree_fd, target_fd)

    def _protect_proc(self, tree_fd: int, target_fd: int, step: MountStep) -> None:
        """Refuse what `plan` cannot see: a link that leads into /proc, a volume in the place of it."""
        if step.destination in _PROC_ALLOWED:
            return
        over_proc = step.destination == "/proc"
        if over_proc and system.statfs_type(tree_fd) != system.PROC_SUPER_MAGIC:
            raise ProcHidden(0, "only a process file system may be mounted there", "/proc")
        if not over_proc and system.statfs_type(target_fd) == system.PROC_SUPER_MAGIC:
            raise ProcHidden(0, "nothing may be mounted inside /proc", step.destination)

    def _real_directory(self, path: str) -> int:
        """Open /proc, /sys or /dev, which must not be links: much relies on what is there."""
        resolve = IN_ROOT | Resolve.NO_SYMLINKS
        relative = path.lstrip("/")
        try:
            return openat2(self.fd, relative, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
        except FileNotFoundError:
            os.close(self.make_directories(path))
            return openat2(self.fd, relative, os.O_PATH | os.O_DIRECTORY, resolve=resolve)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _open_or_make_one(dir_fd: int, name: str, *, is_file: bool) -> int:
    """Return an O_PATH descriptor of `name`, a link not followed; made when it is missing."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            return openat2(dir_fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=BENEATH)
        with contextlib.suppress(FileExistsError):  # somebody else was faster
            if is_file:
                os.close(openat2(dir_fd, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, BENEATH))
            else:
                os.mkdir(name, 0o755, dir_fd=dir_fd)
    raise FileNotFoundError(errno.ENOENT, "it comes and goes", name)


def _detached(step: MountStep, progress: Progress) -> int:
    """Return a new, detached file system; an overlay may have more layers than one option can name."""
    found = _overlay(step, progress) if step.fstype == "overlay" else None
    return new_filesystem(step, progress) if found is None else found


def new_filesystem(step: MountStep, progress: Progress, attributes: MountAttr | None = None) -> int:
    """Return a new, detached file system of the step's type; its attributes are the step's unless given."""
    fs_fd = mounts.fsopen(step.fstype)
    try:
        try:
            if step.source:
                mounts.fsconfig_string(fs_fd, "source", step.source)
            _set_options(fs_fd, step.options.data)
            mounts.fsconfig_create(fs_fd)
        except OSError as err:
            progress.say(mounts.fs_messages(fs_fd) or str(err.filename or ""))
            raise
        return mounts.fsmount(fs_fd, step.options.attr_new if attributes is None else attributes)
    finally:
        os.close(fs_fd)


def configure(mount_fd: int, data: Sequence[tuple[str, str | None]], progress: Progress) -> None:
    """Change options of the file system that the mount `mount_fd` shows."""
    fs_fd = mounts.fspick(mount_fd)
    try:
        _set_options(fs_fd, data)
        mounts.fsconfig_reconfigure(fs_fd)
    except OSError as err:
        progress.say(mounts.fs_messages(fs_fd) or str(err.filename or ""))
        raise
    finally:
        os.close(fs_fd)


def _set_options(fs_fd: int, data: Sequence[tuple[str, str | None]]) -> None:
    for key, value in data:
        if value is None:
            mounts.fsconfig_flag(fs_fd, key)
        else:
            mounts.fsconfig_string(fs_fd, key, value)


def _copy_up(from_fd: int, to_fd: int) -> None:
    with contextlib.ExitStack() as opened:
        here = [openat2(fd, ".", os.O_RDONLY | os.O_DIRECTORY, resolve=BENEATH) for fd in (from_fd, to_fd)]
        for fd in here:
            opened.callback(os.close, fd)
        treecopy.copy(*here)


def mount_root(path: str, layers: Iterable[Mount], progress: Progress, tree_fd: int | None = None) -> int:
    """Make the root's own mounts at `path`; return an O_PATH descriptor of the topmost.

    Without `layers` the directory itself is made a mount, as pivot_root demands. When the runtime has
    done so (`tree_fd`, which is closed), it is attached over the old root, which every user can reach.
    """
    made = False
    if tree_fd is not None:
        progress.at("bind the root", path)
        return _over_old_root(tree_fd)
    for layer in layers:
        progress.at(f"mount {layer.type or 'root'} at", path)
        _mount_layer(path, layer, progress)
        made = True
    if not made:
        progress.at("bind the root", path)
        tree_fd = mounts.open_tree(AT_FDCWD, path, clone=True, recursive=True)
        _move(tree_fd, path)
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _over_old_root(tree_fd: int) -> int:
    old_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.move_mount(tree_fd, old_fd)
    finally:
        os.close(old_fd)
    return tree_fd


def _mount_layer(path: str, layer: Mount, progress: Progress) -> None:
    options = parse_options(layer.options)
    step = MountStep("/", layer.type, layer.source, options)
    if options.bind or layer.type in ("bind", "rbind"):
        tree_fd = mounts.open_tree(AT_FDCWD, layer.source, clone=True, recursive=options.recursive)
        if options.attr_set or options.attr_clr:
            mounts.mount_setattr(tree_fd, "", options.attr_set, options.attr_clr)
    elif layer.type == "overlay":
        found = _overlay(step, progress)
        if found is None:
            _overlay_by_string(path, step)
            return
        tree_fd = found
    else:
        tree_fd = new_filesystem(step, progress)
    _move(tree_fd, path)


def _move(tree_fd: int, path: str) -> None:
    try:
        target_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mounts.move_mount(tree_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(tree_fd)


def split_lowerdir(value: str) -> list[str]:
    r"""Return the layers of a `lowerdir=` value, topmost first; `\:` is a colon of a name."""
    layers = [""]
    escaped = False
    for letter in value:
        if escaped or letter not in "\\:":
            layers[-1] += letter
            escaped = False
        elif letter == "\\":
            escaped = True
        else:
            layers.append("")
    return layers


def _overlay(step: MountStep, progress: Progress) -> int | None:
    """Return an overlay made with one option a layer; None where the kernel lacks that (before 6.8)."""
    pairs: list[tuple[str, str | None]] = []
    for key, value in step.options.data:
        if key == "lowerdir" and value is not None:
            pairs += [("lowerdir+", layer) for layer in split_lowerdir(value)]
        else:
            pairs.append((key, value))
    if any(len(os.fsencode(value or "")) > _FSCONFIG_VALUE_MAX for _, value in pairs):
        return None
    options = MountOptions(attr_set=step.options.attr_set, data=tuple(pairs))
    try:
        return new_filesystem(MountStep("/", "overlay", step.source or "overlay", options), progress)
    except OSError as err:
        if err.errno == errno.EINVAL and "lowerdir+" in str(err.filename or ""):
            progress.say("")
            return None
        raise


def _overlay_by_string(path: str, step: MountStep) -> None:
    """Make an overlay by mount(2), whose options fill at most a page."""
    data = ",".join(key if value is None else f"{key}={value}" for key, value in step.options.data)
    if len(os.fsencode(data)) > _MOUNT_DATA_MAX:
        raise OSError(errno.E2BIG, "too many layers for this kernel (6.8 takes any number)", path)
    flags = MountFlag.NONE
    for attr, flag in (
        (MountAttr.RDONLY, MountFlag.RDONLY),
        (MountAttr.NOSUID, MountFlag.NOSUID),
        (MountAttr.NODEV, MountFlag.NODEV),
        (MountAttr.NOEXEC, MountFlag.NOEXEC),
    ):
        if step.options.attr_set & attr:
            flags |= flag
    mounts.mount(step.source or "overlay", path, "overlay", flags, data)
