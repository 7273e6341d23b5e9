"""The /dev of a container: nodes, links, terminal.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Default Devices".
"""

import contextlib
import os
import stat

from engine.kernel import mount as mounts
from engine.kernel import system, tty
from engine.kernel.mount import AT_FDCWD
from engine.kernel.openat2 import BENEATH, IN_ROOT, Resolve, openat2
from engine.runtime.progress import Progress
from engine.runtime.rootfs import Rootfs
from engine.spec.runtime import Device, Process

_MODE = 0o666
DEFAULT = tuple(
    Device(path=f"/dev/{name}", type="c", major=major, minor=minor, file_mode=_MODE)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class NotATerminal(OSError):
    """What is at /dev/pts is not devpts."""


class NoSuchDevice(OSError):
    """A node may not be made, and cannot be had from the host."""


def make_all(rootfs: Rootfs, devices: tuple[Device, ...], progress: Progress) -> None:
    """Make the default nodes, `devices`, and the usual links."""
    asked = {device.path for device in devices}
    for device in (*(device for device in DEFAULT if device.path not in asked), *devices):
        progress.at("make device", device.path)
        _make(rootfs, device, asked=device.path in asked)
    progress.at("make the links in /dev")
    dev_fd = rootfs.make_directories("/dev")
    try:
        for name, target in _LINKS:
            with contextlib.suppress(FileExistsError):
                os.symlink(target, name, dir_fd=dev_fd)
    finally:
        os.close(dev_fd)


def _make(rootfs: Rootfs, device: Device, *, asked: bool) -> None:
    parent, _, name = device.path.rpartition("/")
    parent_fd = rootfs.make_directories(parent)
    try:
        mode = _MODE if device.file_mode is None else stat.S_IMODE(device.file_mode)
        number = os.makedev(device.major, device.minor) if device.type != "p" else 0
        try:
            os.mknod(name, _KINDS[device.type] | mode, number, dir_fd=parent_fd)
        except FileExistsError:
            if asked:
                _check_is(device, os.stat(name, dir_fd=parent_fd, follow_symlinks=False))
            return  # the image's, or of a volume
        except PermissionError:  # in a user namespace nobody may
            _bind(rootfs, device)
            return
        # The umask is 0, so the mode is right. A chmod would follow a link that another container,
        # which has the same volume, may have put there meanwhile: to a file of the host.
        if device.uid or device.gid:
            os.chown(name, device.uid, device.gid, dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(parent_fd)


def _check_is(device: Device, found: os.stat_result) -> None:
    number = os.makedev(device.major, device.minor) if device.type != "p" else 0
    if stat.S_IFMT(found.st_mode) != _KINDS[device.type] or found.st_rdev != number:
        raise NoSuchDevice(0, "something else is there", device.path)


def _bind(rootfs: Rootfs, device: Device) -> None:
    """Show the host's node of that path, if it is the same device; its owner and mode are the host's."""
    try:
        tree_fd = mounts.open_tree(AT_FDCWD, device.path, clone=True, follow=False)
    except FileNotFoundError:
        raise NoSuchDevice(0, "may not be made here, and the host has none to show", device.path) from None
    try:
        try:
            _check_is(device, os.fstat(tree_fd))
        except NoSuchDevice:
            text = "may not be made here, and the host's is another device"
            raise NoSuchDevice(0, text, device.path) from None
        target_fd = rootfs.open_or_make(device.path, directory=False)
        try:
            mounts.move_mount(tree_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(tree_fd)


def open_terminal(root_fd: int) -> tuple[int, int]:
    """Return the master and slave descriptors of a new terminal of the devpts below `root_fd`.

    Raises:
        NotATerminal: the container's /dev/pts is something else.
    """
    pts_fd = openat2(root_fd, "dev/pts", os.O_PATH | os.O_DIRECTORY, resolve=IN_ROOT | Resolve.NO_SYMLINKS)
    try:
        if system.statfs_type(pts_fd) != system.DEVPTS_SUPER_MAGIC:
            raise NotATerminal(0, "/dev/pts is not a devpts", "/dev/pts")
        master_fd = openat2(pts_fd, "ptmx", os.O_RDWR | os.O_NOCTTY, resolve=BENEATH)
    finally:
        os.close(pts_fd)
    tty.unlock_pt(master_fd)
    return master_fd, tty.open_peer(master_fd)


def size_terminal(master_fd: int, process: Process) -> None:
    """Give a terminal the size that the process was promised."""
    size = process.console_size
    if size is not None:
        tty.set_winsize(master_fd, rows=size.height, columns=size.width)


def bind_console(rootfs: Rootfs, slave_fd: int) -> None:
    """Mount the terminal at /dev/console: that very one, whatever is at its name (CVE-2025-52565)."""
    tree_fd = mounts.open_tree(slave_fd, "", clone=True)
    try:
        target_fd = rootfs.open_or_make("/dev/console", directory=False)
        try:
            mounts.move_mount(tree_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(tree_fd)
