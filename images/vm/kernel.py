"""The kernel, its modules, and the initramfs that reaches the root file system."""

import lzma
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import cpio

from engine.base.errors import EngineError, NotFound
from engine.base.process import run

_INITRD_LINKS = ("sh", "cat", "insmod", "mount", "sleep", "switch_root")
# Linux Documentation/arch/x86/boot.rst: setup_sects, header, payload_offset and payload_length
_SETUP_SECTORS_AT = 0x1F1
_MAGIC_AT = 0x202
_PAYLOAD_AT = 0x248


class Modules:
    """The modules of one unpacked kernel package."""

    def __init__(self, root: Path) -> None:
        """Take the tree `root` with one kernel under usr/lib/modules."""
        self.version = next((root / "usr/lib/modules").iterdir()).name
        self.directory = root / "usr/lib/modules" / self.version
        self._paths = {_name(path): path for path in sorted(self.directory.rglob("*.ko*"))}
        builtin = (self.directory / "modules.builtin").read_text().split()
        self._builtin = {_name(Path(line)) for line in builtin}

    def closure(self, names: Iterable[str]) -> list[str]:
        """Return `names` with all they need, each after what it needs; what is built in is left out."""
        order: list[str] = []

        def add(name: str) -> None:
            if name in self._builtin or name in order:
                return
            for needed in self._needs(name):
                add(needed)
            order.append(name)

        for name in names:
            add(name)
        return order

    def path(self, name: str) -> Path:
        """Return where the module lies, relative to the directory, uncompressed."""
        path = self._paths[name].relative_to(self.directory)
        return path.with_suffix("") if path.suffix == ".xz" else path

    def content(self, name: str) -> bytes:
        """Return the module, uncompressed."""
        try:
            path = self._paths[name]
        except KeyError as err:
            raise NotFound("kernel module", f"{name} ({self.version})") from err
        data = path.read_bytes()
        return lzma.decompress(data) if path.suffix == ".xz" else data

    def install(self, names: Sequence[str], root: Path) -> None:
        """Write the modules `names` and what depmod reads into the tree `root`."""
        target = root / "usr/lib/modules" / self.version
        target.mkdir(parents=True)
        for name in names:
            path = target / self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.content(name))
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            (target / name).write_bytes((self.directory / name).read_bytes())

    def _needs(self, name: str) -> list[str]:
        content = self.content(name)
        found = re.search(rb"\0depends=([^\0]*)\0", content)
        needed = found.group(1).decode().split(",") if found else []
        soft = re.findall(rb"\0softdep=pre: ([^\0]*)\0", content)
        known = [
            word for text in soft for word in text.decode().split() if word.replace("-", "_") in self._paths
        ]
        return [word.replace("-", "_") for word in [*needed, *known] if word]


def write_initrd(path: Path, *, busybox: Path, modules: Modules, names: Sequence[str], init: bytes) -> None:
    """Write the initramfs: busybox, the modules `names` in loading order, and `init`."""
    archive = cpio.Archive()
    for name in ("bin", "dev", "modules", "proc", "root", "sys"):
        archive.directory(name)
    archive.device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox.read_bytes(), mode=0o755)
    for name in _INITRD_LINKS:
        archive.link(f"bin/{name}", "busybox")
    order = modules.closure(names)
    for name in order:
        archive.file(f"modules/{name}.ko", modules.content(name))
    archive.file("modules/order", "".join(f"{name}.ko\n" for name in order).encode())
    archive.file("init", init, mode=0o755)
    archive.write(path)


def boot_image(root: Path, version: str) -> bytes:
    """Return the kernel of the unpacked package in `root`, as ELF where the package hides one in a bzImage.

    QEMU starts the ELF kernel at once (PVH), while a bzImage first unpacks itself, which costs a second
    under emulation. What is lost is the random address of the kernel, chosen by the unpacking code.

    Raises:
        EngineError: the package has no kernel, or one in an unknown form.
    """
    try:
        image = (root / "boot" / f"vmlinuz-{version}").read_bytes()
    except FileNotFoundError as err:
        raise EngineError(f"linux-image for {version}: no /boot/vmlinuz-{version}") from err
    if image[_MAGIC_AT : _MAGIC_AT + 4] != b"HdrS":
        return image
    setup_sectors = image[_SETUP_SECTORS_AT] or 4
    offset, size = struct.unpack_from("<II", image, _PAYLOAD_AT)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + size - 4]  # the last four bytes are the unpacked size
    unpacked = run(["zstd", "--decompress", "--stdout"], stdin=payload, timeout_s=60).stdout
    if unpacked[:4] != b"\x7fELF":
        raise EngineError(f"vmlinuz-{version}: holds no ELF kernel")
    return unpacked


def _name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")
