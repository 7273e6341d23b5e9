"""Programs of a hostile container, in C: quicker than what they attack, and at home without libraries."""

import contextlib
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_SOURCES = Path(__file__).parent / "attackers"
# Where the kernel looks, in a container, for the loader of the host's interpreter.
LOADER = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}[platform.machine()]
_FREESTANDING = ("-nostdlib", "-static-pie", "-fPIE", "-ffreestanding", "-mgeneral-regs-only")


@functools.cache
def _built(name: str, *options: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / name
        argv = ["gcc", "-O1", "-Wall", "-fno-stack-protector", *options, "-o", str(program)]
        subprocess.run([*argv, str(_SOURCES / f"{name}.c")], check=True, timeout=120)
        return program.read_bytes()


def _install(content: bytes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def install_attacker(path: Path) -> Path:
    """Write the program of `attackers/attacker.c` to `path`."""
    return _install(_built("attacker", "-static"), path)


def install_loader(rootfs: Path) -> None:
    """Put the program of `attackers/loader.c` in the place of the host's loader, inside `rootfs`."""
    _install(_built("loader", *_FREESTANDING), rootfs / LOADER)


def evil_library() -> bytes:
    """Return a shared library that makes `/tmp/marker` when it is loaded."""
    return _built("library", "-shared", "-fPIC")


@contextlib.contextmanager
def swapping(directory: Path, *names: str) -> Iterator[None]:
    """Exchange each name with `name.link` all the time, as a container that has the same volume could."""
    with tempfile.TemporaryDirectory() as place:
        program = install_attacker(Path(place) / "attacker")
        with subprocess.Popen([program, "swap", directory, *names], stdout=subprocess.PIPE) as swapper:
            assert swapper.stdout is not None
            assert swapper.stdout.readline() == b"ready\n"
            try:
                yield
            finally:
                swapper.kill()


def copy_interpreter(executable: str, path: Path) -> Path:
    """Copy the interpreter, for an attack to overwrite."""
    shutil.copy(os.path.realpath(executable), path)
    return path
