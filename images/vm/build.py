"""Build the VM image: `build.py --arch x86_64 --output DIR`, whose last line is the image's directory.

Two steps. The base (Debian packages, wheels, kernel, initramfs, busybox image) is kept in the cache under a
key of recipe and lock. The last one (engine and vmguest from this checkout, byte-code, erofs) takes seconds.
Both are made in a temporary directory and renamed, so that an interrupted build leaves nothing.

The result, `DIR/<arch>-<key>/`: manifest.json vmlinux initrd.img rootfs.erofs busybox.tar.
"""

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import busybox
import debian
import kernel
import rootfs
import wheels

import engine
import vmguest
from engine.base.atomicfile import fsync_dir, write_atomic
from engine.base.errors import EngineError, NotSupported
from engine.base.process import run

_SCHEMA = 1
_RECIPE = Path(__file__).resolve().parent
_DEBIAN_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
_FILES = {"kernel": "vmlinux", "initrd": "initrd.img", "rootfs": "rootfs.erofs", "busybox": "busybox.tar"}
_SOURCES = tuple(Path(str(module.__file__)).parent for module in (engine, vmguest))
_PROGRAMS = {"apt-get": "apt", "dpkg-deb": "dpkg", "mkfs.erofs": "erofs-utils", "zstd": "zstd"}
_EROFS_TIMEOUT_S = 300
_BASES_KEPT = 2
_IMAGES_KEPT = 3  # somebody who edits the engine makes one a minute
_UUID_NAMESPACE = uuid.UUID("b7f2ad0e-6f0d-4d50-8f6b-6c1f4f0f3f35")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The data of packages.toml and of one architecture's lock."""

    arch: str
    settings: dict[str, Any]
    packages: tuple[debian.Package, ...]
    wheels: tuple[wheels.Wheel, ...]

    @property
    def debian_arch(self) -> str:
        """Debian's name of the architecture."""
        return _DEBIAN_ARCH[self.arch]


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are kept."""

    cache: Path
    output: Path
    mirror: str

    def apt(self, recipe_arch: str, suite: str) -> debian.Apt:
        """Return apt for one architecture."""
        mirror = self.mirror or debian.host_mirror()
        directory = self.cache / f"apt-{recipe_arch}"
        return debian.Apt(directory, arch=_DEBIAN_ARCH[recipe_arch], suite=suite, mirror=mirror)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _run(options)
    except KeyboardInterrupt:
        sys.stderr.write("build.py: interrupted; nothing was left behind\n")
        return 130
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        sys.stderr.write(f"build.py: {where}{(err.strerror or str(err)).lower()}\n")
        return 1
    except EngineError as err:
        sys.stderr.write(f"build.py: {err}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build.py", description="Build the image of pyengine's virtual machine."
    )
    parser.add_argument("--arch", choices=sorted(_DEBIAN_ARCH), default=platform.machine())
    parser.add_argument("--output", type=Path, metavar="DIR", help="the image becomes a directory in it")
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pyengine/vm-build"
    parser.add_argument("--cache", type=Path, metavar="DIR", default=default, help="downloads (%(default)s)")
    parser.add_argument(
        "--mirror", default="", metavar="URL", help="Debian mirror (default: the host's, or Debian's)"
    )
    parser.add_argument(
        "--key", action="store_true", help="print the name that the image would have, and end"
    )
    parser.add_argument("--update-lock", action="store_true", help="pin the newest versions, and end")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.key:
        sys.stdout.write(f"{image_name(load_recipe(options.arch))}\n")
        return 0
    if not options.update_lock and options.output is None:
        raise EngineError("--output is missing")
    cache = options.cache.resolve()
    places = Places(cache, (options.output or cache).resolve(), options.mirror)
    places.cache.mkdir(parents=True, exist_ok=True)
    if options.update_lock:
        update_lock(options.arch, places)
        return 0
    image = places.output / image_name(load_recipe(options.arch))
    if not (image / "manifest.json").exists():
        _check_programs()
        with _locked(places.cache / "lock"):
            image = build(options.arch, places)
    sys.stdout.write(f"{image}\n")
    return 0


def progress(line: str) -> None:
    """Tell the user; a reader at the other end of a pipe sees it at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def load_recipe(arch: str) -> Recipe:
    """Return the recipe for `arch` with its lock."""
    lock = json.loads(_lock_path(arch).read_text())
    return Recipe(
        arch,
        _settings(),
        tuple(debian.Package(**entry) for entry in lock["packages"]),
        tuple(wheels.Wheel(**entry) for entry in lock["wheels"]),
    )


def base_key(arch: str) -> str:
    """Return the content key of the expensive part."""
    names = sorted(path.name for path in _RECIPE.iterdir() if path.suffix in {".py", ".toml", ".sh"})
    parts = [_RECIPE / name for name in [*names, _lock_path(arch).name]]
    return _hash([(path.name, path.read_bytes()) for path in parts], arch)


def image_name(recipe: Recipe, roots: Sequence[Path] = _SOURCES) -> str:
    """Return the name of the image's directory: the architecture and a key of all that goes into it."""
    sources = [
        (str(path.relative_to(root.parent)), path.read_bytes())
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and path.name != "README.md"
    ]
    sources.append(("pyengine-init", (_RECIPE / "pyengine-init").read_bytes()))
    return f"{recipe.arch}-{_hash(sources, base_key(recipe.arch))}"


def build(arch: str, places: Places) -> Path:
    """Return the image for `arch` under `places.output`, built if another build has not made it meanwhile."""
    started = time.monotonic()
    recipe = load_recipe(arch)
    places.output.mkdir(parents=True, exist_ok=True)
    for parent in (places.cache, places.output):
        for left in parent.glob(".build-*"):  # of a build that was killed
            shutil.rmtree(left, onerror=_force)
    tools = rootfs.Tools(_base(platform.machine(), places) / "tree")
    base = _base(arch, places)
    with _temporary(places.output) as work:
        progress("adding engine and vmguest")
        tree = work / "tree"
        rootfs.link_tree(base / "tree", tree)
        library = tree / "usr/lib/pyengine"
        for source in _SOURCES:
            rootfs.copy_sources(source, library)
        # The name is that of the copies: somebody may be editing the checkout.
        image = places.output / image_name(recipe, [library / source.name for source in _SOURCES])
        if (image / "manifest.json").exists():
            return image
        tools.compile([library / source.name for source in _SOURCES], tree)
        shutil.copyfile(_RECIPE / "pyengine-init", tree / "usr/sbin/pyengine-init")
        (tree / "usr/sbin/pyengine-init").chmod(0o755)
        result = work / "image"
        result.mkdir()
        for name in ("vmlinux", "initrd.img", "busybox.tar"):
            shutil.copyfile(base / name, result / name)
        progress("making the root file system")
        _erofs(tree, result / "rootfs.erofs", image.name)
        facts = json.loads((base / "facts.json").read_text())
        write_atomic(result / "manifest.json", _manifest(recipe, image.name, result, facts), mode=0o644)
        _publish(result, image)
    _forget_old(places.cache, f"base-{arch}-", keep=_BASES_KEPT)
    _forget_old(places.output, f"{arch}-", keep=_IMAGES_KEPT)
    progress(f"built {image.name} in {time.monotonic() - started:.1f} s")
    return image


def update_lock(arch: str, places: Places) -> None:
    """Pin the newest packages and wheels for `arch` in the lock file."""
    settings = _settings()
    apt = places.apt(arch, settings["suite"])
    meta = settings["kernel"].format(arch=_DEBIAN_ARCH[arch])
    image = next(name for name in apt.depends(meta) if name.startswith("linux-image-"))
    found = apt.resolve([image, *settings["packages"]])
    with _temporary(places.cache) as work:
        chosen = wheels.resolve(settings["wheels"], arch, work)
    lock = {
        "packages": [asdict(found[name]) for name in sorted(found)],
        "wheels": [asdict(wheel) for wheel in chosen],
    }
    write_atomic(_lock_path(arch), (json.dumps(lock, indent=1) + "\n").encode(), mode=0o644)
    progress(
        f"{_lock_path(arch).name}: {len(found)} packages, {len(chosen)} wheels, kernel {found[image].version}"
    )


def _base(arch: str, places: Places) -> Path:
    """Return the directory of the expensive part, building it when the cache has none."""
    base = places.cache / f"base-{arch}-{base_key(arch)}"
    if (base / "facts.json").exists():
        return base
    recipe = load_recipe(arch)
    apt = places.apt(arch, recipe.settings["suite"])
    debs = places.cache / "debs"
    taken = debian.fetch(recipe.packages, apt, debs, progress)
    files = wheels.download(recipe.wheels, arch, places.cache / f"wheels-{arch}")
    host = None if arch == platform.machine() else _base(platform.machine(), places)
    with _temporary(places.cache) as work:
        modules = _unpack(recipe, taken, debs, work)
        tree = work / "tree"
        tools = rootfs.Tools(host / "tree" if host else tree)
        progress("configuring")
        wheels.unpack(files, tree / "usr/lib/pyengine")
        result = work / "base"
        result.mkdir()
        _boot_files(recipe, tree, modules, work / "kernel", result)
        tools.index_modules(tree, modules.version)
        tools.index_libraries(tree)
        progress("compiling Python's library")
        tools.compile([tree / "usr/lib/python3.13", tree / "usr/lib/pyengine"], tree)
        tree.rename(result / "tree")
        facts = {
            "kernel_version": modules.version,
            "locked": set(taken.values()) == set(recipe.packages),
            "packages": {package.name: package.version for package in taken.values()}
            | {wheel.name: wheel.version for wheel in recipe.wheels},
        }
        write_atomic(result / "facts.json", json.dumps(facts).encode(), mode=0o644)
        _publish(result, base)
    return base


def _unpack(recipe: Recipe, taken: dict[str, debian.Package], debs: Path, work: Path) -> kernel.Modules:
    """Unpack the packages into work/tree and work/kernel; return the kernel's modules."""
    progress(f"unpacking {len(taken)} packages")
    is_kernel = {name: name.startswith("linux-image-") for name in taken}
    tree = work / "tree"
    rootfs.prepare(tree)
    debian.unpack([debs / taken[name].file_name for name in sorted(taken) if not is_kernel[name]], tree)
    debian.unpack([debs / taken[name].file_name for name in taken if is_kernel[name]], work / "kernel")
    rootfs.prune(tree, recipe.settings["drop"], recipe.settings["keep"])
    rootfs.configure(tree)
    return kernel.Modules(work / "kernel")


def _boot_files(recipe: Recipe, tree: Path, modules: kernel.Modules, unpacked: Path, into: Path) -> None:
    """Write kernel, initramfs and busybox image into `into`, modules and that image into `tree`."""
    wanted = recipe.settings["modules"]
    modules.install(modules.closure([*wanted["initrd"], *wanted["root"]]), tree)
    (into / "vmlinux").write_bytes(kernel.boot_image(unpacked, modules.version))
    program = tree / "usr/bin/busybox"
    kernel.write_initrd(
        into / "initrd.img",
        busybox=program,
        modules=modules,
        names=wanted["initrd"],
        init=(_RECIPE / "initrd-init.sh").read_bytes(),
    )
    archive = into / "busybox.tar"
    busybox.write_image(archive, busybox=program.read_bytes(), architecture=recipe.debian_arch)
    shutil.copyfile(archive, tree / "usr/share/pyengine/images/busybox.tar")


def _erofs(tree: Path, path: Path, name: str) -> None:
    identity = str(uuid.uuid5(_UUID_NAMESPACE, name))
    run(
        ["mkfs.erofs", "--quiet", "-x-1", "-T0", f"-U{identity}", "--all-root", str(path), str(tree)],
        timeout_s=_EROFS_TIMEOUT_S,
    )


def _manifest(recipe: Recipe, name: str, image: Path, facts: dict[str, Any]) -> bytes:
    files = {}
    for role, file_name in _FILES.items():
        path = image / file_name
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[role] = {"name": file_name, "size_bytes": path.stat().st_size, "sha256": digest}
    manifest = {
        "schema": _SCHEMA,
        "arch": recipe.arch,
        "key": name.removeprefix(f"{recipe.arch}-"),
        "kernel_version": facts["kernel_version"],
        "locked": facts["locked"],
        "files": files,
        "packages": facts["packages"],
    }
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def _publish(made: Path, final: Path) -> None:
    """Give a finished directory its name; what an unfinished one left under it goes."""
    if final.exists():
        shutil.rmtree(final)
    made.rename(final)
    fsync_dir(final.parent)


def _forget_old(directory: Path, prefix: str, *, keep: int) -> None:
    """Remove all but the `keep` newest directories; a machine that runs from one holds its files open."""
    found = [path for path in directory.glob(f"{prefix}*") if path.is_dir()]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
        shutil.rmtree(path, onerror=_force)


def _settings() -> dict[str, Any]:
    return tomllib.loads((_RECIPE / "packages.toml").read_text())


def _lock_path(arch: str) -> Path:
    return _RECIPE / f"packages.{arch}.lock.json"


def _hash(parts: Sequence[tuple[str, bytes]], seed: str) -> str:
    digest = hashlib.sha256(seed.encode())
    for name, content in parts:
        digest.update(b"%d %s %d " % (len(name), name.encode(), len(content)))
        digest.update(content)
    return digest.hexdigest()[:16]


def _check_programs() -> None:
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        raise NotSupported(f"cannot build the image: install {', '.join(missing)}")


@contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    """Make a directory under `parent` and remove it at the end, whatever happens."""
    path = Path(tempfile.mkdtemp(prefix=".build-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, onerror=_force)


def _force(function: Callable[..., object], path: str, _: object) -> None:
    """Remove what lies in a directory that its package made read-only."""
    os.chmod(os.path.dirname(path), 0o700)
    function(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the one lock of builds; wait for whoever has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another build to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
