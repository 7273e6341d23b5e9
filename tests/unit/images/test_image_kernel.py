import lzma
import struct
import subprocess
from pathlib import Path

import pytest
from kernel import Modules, boot_image  # type: ignore[import-not-found,unused-ignore]

from engine.base.errors import EngineError, NotFound

VERSION = "6.12.0-test"


def _tree(root: Path, modules: dict[str, bytes], builtin: str = "") -> Modules:
    directory = root / "usr/lib/modules" / VERSION
    (directory / "kernel").mkdir(parents=True)
    for name, info in modules.items():
        (directory / f"kernel/{name}.ko.xz").write_bytes(lzma.compress(b"\x7fELF" + info))
    (directory / "modules.builtin").write_text(builtin)
    for name in ("modules.order", "modules.builtin.modinfo"):
        (directory / name).write_text("")
    return Modules(root)


def test_what_a_module_needs_comes_before_it_once_and_built_in_ones_not_at_all(tmp_path: Path) -> None:
    modules = _tree(
        tmp_path,
        {
            "erofs": b"\0depends=netfs,lib-crc\0softdep=pre: fast-crc gone\0",
            "netfs": b"\0depends=lib-crc\0",
            "lib-crc": b"\0depends=crc32\0",
            "fast-crc": b"\0depends=\0",
        },
        builtin="kernel/lib/crc32.ko\n",
    )

    assert modules.closure(["erofs", "netfs"]) == ["lib_crc", "netfs", "fast_crc", "erofs"]


def test_an_unknown_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such kernel module: xyz"):
        _tree(tmp_path, {}).closure(["xyz"])


def test_modules_are_installed_uncompressed(tmp_path: Path) -> None:
    modules = _tree(tmp_path / "from", {"dummy": b"\0depends=\0"})

    modules.install(["dummy"], tmp_path / "to")

    installed = tmp_path / "to/usr/lib/modules" / VERSION / "kernel/dummy.ko"
    assert installed.read_bytes() == b"\x7fELF\0depends=\0"


def _boot(root: Path, content: bytes) -> Path:
    (root / "boot").mkdir(parents=True)
    (root / "boot" / f"vmlinuz-{VERSION}").write_bytes(content)
    return root


def _bzimage(kernel: bytes) -> bytes:
    payload = subprocess.run(["zstd", "-c"], input=kernel, capture_output=True, check=True).stdout
    payload += struct.pack("<I", len(kernel))
    header = bytearray(1024)  # the boot sector and one sector of set-up code
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", header, 0x248, 16, len(payload))
    return bytes(header) + b"\0" * 16 + payload + b"rest"


@pytest.mark.requires("image_tools")
def test_the_elf_kernel_is_taken_out_of_a_bzimage(tmp_path: Path) -> None:
    root = _boot(tmp_path, _bzimage(b"\x7fELF kernel"))

    assert boot_image(root, VERSION) == b"\x7fELF kernel"


@pytest.mark.requires("image_tools")
def test_a_bzimage_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="holds no ELF kernel"):
        boot_image(_boot(tmp_path, _bzimage(b"MZ")), VERSION)


def test_a_kernel_in_another_form_is_taken_as_it_is(tmp_path: Path) -> None:
    assert boot_image(_boot(tmp_path, b"MZ" * 600), VERSION) == b"MZ" * 600


def test_a_package_without_a_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no /boot/vmlinuz"):
        boot_image(tmp_path, VERSION)
