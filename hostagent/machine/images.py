"""The VM image of a machine: found, built when it is missing, and never booted unverified.

An image is a directory with `manifest.json`; every file that boots is listed
there with size and sha256. A file is hashed when a machine uses it for the
first time, and again whenever its size, time or inode has changed since.
"""

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

import engine
import hostagent
import vmguest
from engine.base import jsonio
from engine.base.atomicfile import write_atomic
from engine.base.errors import EngineError, InvalidArgument, NotFound
from engine.base.process import spawn
from hostagent.machine.model import Arch
from hostagent.paths import host_paths, make_private

_CAN_BUILD = str(sys.platform) == "linux"
_BUILD_ERROR = "build.py: "
_BOOT_FILES = ("kernel", "initrd", "rootfs")

Progress = Callable[[str], None]


class ImageDamaged(EngineError):
    """A file of the image is missing, cut short or altered."""


class _File(msgspec.Struct, frozen=True):
    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """manifest.json, as far as the host needs it."""

    schema: int
    arch: str
    key: str
    kernel_version: str
    files: dict[str, _File]


@dataclass(frozen=True, slots=True)
class Image:
    """A verified image."""

    directory: Path
    key: str
    kernel_version: str
    kernel: Path
    initrd: Path
    rootfs: Path


class _Stamp(msgspec.Struct, frozen=True):
    """Which sources gave which image: saves asking the build at every start."""

    signature: str
    name: str


def image_dir(arch: Arch, *, wish: str = "", progress: Progress) -> Path:
    """Return the directory of the image for `arch`: `wish`, or the one of this pyengine, built if missing.

    Raises:
        NotFound: `wish` is no image, or there is none and this system cannot build one.
        ImageDamaged: the build failed; its last line says why.
    """
    if wish:
        if not (Path(wish) / "manifest.json").is_file():
            raise NotFound(
                "vm image", wish, hint="a directory with manifest.json, as images/vm/build.py makes it"
            )
        return Path(os.path.abspath(wish))
    images = host_paths().images
    stamp_path = images / f"current-{arch}.json"
    recipe = recipe_dir()
    signature = _signature(recipe, str(arch)) if recipe else ""
    stamp = _read_stamp(stamp_path)
    if stamp and stamp.signature == signature and (images / stamp.name / "manifest.json").is_file():
        return images / stamp.name
    if recipe is None or not _CAN_BUILD:
        raise NotFound(
            "vm image",
            f"for {arch} in {images}",
            hint="build one on Linux with images/vm/build.py and copy it here",
        )
    make_private(images)
    built = _build(recipe, arch, images, progress)
    write_atomic(stamp_path, jsonio.encode(_Stamp(signature, built.name)))
    return built


def recipe_dir() -> Path | None:
    """Return the directory of the build script: beside our packages, or inside the installed one."""
    package = Path(str(hostagent.__file__)).parent
    for candidate in (package.parent / "images" / "vm", package / "machine" / "recipe"):
        if (candidate / "build.py").is_file():
            return candidate
    return None


def verify(directory: Path, arch: Arch, record: Path) -> Image:
    """Return the image in `directory` after checking its files; `record` remembers what was hashed when.

    Raises:
        ImageDamaged: a file is missing, cut short or altered.
        InvalidArgument: it is for another architecture or of a newer schema.
    """
    try:
        manifest = jsonio.read(
            directory / "manifest.json", Manifest, noun=f"manifest of vm image {directory}"
        )
    except FileNotFoundError as err:
        raise ImageDamaged(
            f"vm image {directory}: manifest.json is missing", hint=_remove(directory)
        ) from err
    if manifest.schema != 1 or manifest.arch != arch:
        raise InvalidArgument(
            f"vm image {directory}: schema {manifest.schema} for {manifest.arch}, need schema 1 for {arch}"
        )
    known = _read_record(record)
    seen: dict[str, str] = {}
    for role in _BOOT_FILES:
        entry = manifest.files.get(role)
        if entry is None or "/" in entry.name or entry.name.startswith("."):
            raise ImageDamaged(f"vm image {directory}: the manifest names no {role}", hint=_remove(directory))
        identity = _identity(directory, entry)
        if known.get(entry.name) != f"{identity} {entry.sha256}":
            _check_hash(directory, entry)
        seen[entry.name] = f"{identity} {entry.sha256}"
    if seen != known:
        write_atomic(record, jsonio.encode(seen))
    return Image(
        directory,
        manifest.key,
        manifest.kernel_version,
        *(directory / manifest.files[r].name for r in _BOOT_FILES),
    )


def _identity(directory: Path, entry: _File) -> str:
    try:
        found = os.stat(directory / entry.name)
    except OSError as err:
        raise ImageDamaged(f"vm image {directory}: {entry.name} is missing", hint=_remove(directory)) from err
    if found.st_size != entry.size_bytes:
        raise ImageDamaged(
            f"vm image {directory}: {entry.name} has {found.st_size} bytes instead of {entry.size_bytes}",
            hint=_remove(directory),
        )
    return f"{directory} {found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _check_hash(directory: Path, entry: _File) -> None:
    with (directory / entry.name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != entry.sha256:
        raise ImageDamaged(
            f"vm image {directory}: {entry.name} was altered: sha256 {digest[:12]}, not {entry.sha256[:12]}",
            hint=_remove(directory),
        )


def _remove(directory: Path) -> str:
    return f"remove {directory}; the next start builds it again"


def _build(recipe: Path, arch: Arch, images: Path, progress: Progress) -> Path:
    progress(f"building the vm image for {arch} (about a minute, once)")
    root = Path(str(hostagent.__file__)).parent.parent
    argv = [sys.executable, str(recipe / "build.py"), "--arch", str(arch), "--output", str(images)]
    # The whole environment: proxies, package index and temporary directory are the user's choice.
    code, last = _run_with_progress(argv, {**os.environ, "PYTHONPATH": str(root)}, progress)
    if code != 0:
        raise ImageDamaged(
            f"vm image for {arch} cannot be built: {last.removeprefix(_BUILD_ERROR)}",
            hint=f"the next start tries again; by hand: {recipe / 'build.py'} --output DIR",
        )
    built = Path(last)
    if not (built / "manifest.json").is_file():
        raise ImageDamaged(f"vm image for {arch}: the build named {last!r}, which is no image")
    return built


def _run_with_progress(argv: list[str], env: dict[str, str], progress: Progress) -> tuple[int, str]:
    """Run `argv`, telling what it does; return its exit code and its last line.

    Its error and its result are lines too: not told, as they are the caller's to raise or to use.
    """
    read_fd, write_fd = os.pipe()
    try:
        process = spawn(argv, env=env, output_fd=write_fd)
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    last = ""
    try:
        with os.fdopen(read_fd, encoding="utf-8", errors="replace") as lines:
            for line in filter(None, map(str.strip, lines)):
                last = line
                if not line.startswith((_BUILD_ERROR, "/")):
                    progress(line)
        return process.wait(), last
    except BaseException:
        process.terminate()
        process.wait()
        raise


def _signature(recipe: Path, arch: str) -> str:
    """Return a digest of names, sizes and times of everything that goes into an image."""
    digest = hashlib.sha256(arch.encode())
    for root in (recipe, *(Path(str(module.__file__)).parent for module in (engine, vmguest))):
        for directory, names, files in os.walk(root):
            names[:] = sorted(name for name in names if name != "__pycache__")
            for name in sorted(files):
                found = os.stat(os.path.join(directory, name))
                digest.update(f"{directory}/{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read_stamp(path: Path) -> _Stamp | None:
    try:
        return jsonio.read(path, _Stamp)
    except (OSError, InvalidArgument):  # not there, or half a thought of an older version: build anew
        return None


def _read_record(path: Path) -> dict[str, str]:
    try:
        return jsonio.read(path, dict[str, str])
    except (OSError, InvalidArgument):  # then everything is hashed again
        return {}
