"""What Debian's maintainer scripts would have done, by hand, and what the machine does not need, away.

Works on a tree of the target's packages with no root and without running anything of the target, except the
host-architecture loader, Python, ldconfig and depmod of such a tree: see `Tools`.
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from busybox import applets

from engine.base.errors import EngineError
from engine.base.process import run

_MERGED = ("bin", "sbin", "lib", "lib64")
_DIRECTORIES = (
    "dev", "etc/ssh", "etc/ssl/certs", "mnt", "proc", "root", "run", "sys", "tmp", "usr/lib/pyengine",
    "usr/lib/ssl", "usr/share/pyengine/images", "var/cache", "var/lib/pyengine", "var/log", "var/tmp",
)  # fmt: skip
_LINKS = {
    "etc/mtab": "../proc/self/mounts",
    "etc/resolv.conf": "../run/resolv.conf",
    "usr/bin/python3": "python3.13",
    "usr/bin/sh": "busybox",
    "usr/lib/ssl/cert.pem": "/etc/ssl/certs/ca-certificates.crt",
    "usr/lib/ssl/certs": "/etc/ssl/certs",
    "var/run": "/run",
    "var/lock": "/run/lock",
}
_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "sshd:x:100:65534:sshd:/run/sshd:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:20000:0:99999:7:::\nsshd:!:20000::::::\nnobody:*:20000:0:99999:7:::\n",
    "etc/hostname": "pyengine\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/machine-id": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "etc/shells": "/bin/sh\n",
}
_SECRET = ("etc/shadow",)
_COMPILE_TIMEOUT_S = 300


class Tools:
    """Programs of an unpacked tree of the host's architecture, run in place through the tree's own loader."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._loader = next(path for path in (tree / "usr/lib").rglob("ld-linux-*.so.*") if path.is_file())

    def run(self, program: str, *arguments: str) -> None:
        """Run `program` of the tree to its end."""
        libraries = os.pathsep.join(str(path) for path in (self._tree / "usr/lib").glob("*-linux-gnu"))
        run(
            [str(self._loader), "--library-path", libraries, str(self._tree / program), *arguments],
            timeout_s=_COMPILE_TIMEOUT_S,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONHOME": str(self._tree / "usr")},
        )

    def compile(self, directories: Sequence[Path], tree: Path) -> None:
        """Byte-compile all below `directories`; the guest never compares the result with its sources."""
        self.run(
            "usr/bin/python3.13", "-I", "-S", "-m", "compileall", "-q", "-f",
            "--invalidation-mode", "unchecked-hash", "-s", str(tree), "-p", "/", *map(str, directories),
        )  # fmt: skip

    def index_modules(self, tree: Path, version: str) -> None:
        """Write what modprobe reads."""
        self.run("usr/sbin/depmod", "-b", str(tree), version)

    def index_libraries(self, tree: Path) -> None:
        """Write the loader's cache."""
        run([str(self._tree / "usr/sbin/ldconfig"), "-r", str(tree), "-X"], timeout_s=_COMPILE_TIMEOUT_S)
        shutil.rmtree(tree / "var/cache/ldconfig", ignore_errors=True)  # times of this build's files


def prepare(tree: Path) -> None:
    """Make the directories that packages unpack into, each behind its usual name."""
    for name in _MERGED:
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to(f"usr/{name}")


def prune(tree: Path, drop: Sequence[str], keep: Sequence[str]) -> None:
    """Remove what matches `drop` and not `keep`, and then the directories that are empty."""
    for directory, _, names in os.walk(tree, topdown=False):
        relative = Path(directory).relative_to(tree)
        for name in names:
            path = str(relative / name)
            if _matches(path, drop) and not _matches(path, keep):
                (tree / path).unlink()
        for name in os.listdir(directory):
            path = str(relative / name)
            if (tree / path).is_symlink():
                if _matches(path, drop):
                    (tree / path).unlink(missing_ok=True)
            elif (tree / path).is_dir() and not os.listdir(tree / path):
                (tree / path).rmdir()


def configure(tree: Path) -> None:
    """Write accounts, names, certificates, links and the shell."""
    for name in _DIRECTORIES:
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        path = tree / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o640 if name in _SECRET else 0o644)
    for name, target in _LINKS.items():
        path = tree / name
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    _certificates(tree)
    _os_release(tree)
    for name in applets((tree / "usr/bin/busybox").read_bytes()):
        if not any((tree / "usr" / folder / name).exists() for folder in ("bin", "sbin")):
            (tree / "usr/bin" / name).symlink_to("busybox")


def copy_sources(sources: Path, into: Path) -> None:
    """Copy one import package, without caches."""
    shutil.copytree(
        sources, into / sources.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "README.md")
    )


def link_tree(source: Path, target: Path) -> None:
    """Make `target` a copy of `source` for reading: hard links, in no time, where the file system has them.

    Raises:
        EngineError: a file cannot be copied; said at the first one.
    """
    shutil.copytree(source, target, symlinks=True, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    with contextlib.suppress(OSError):  # another file system, or one without links
        os.link(source, target)
        return
    try:
        shutil.copy2(source, target)
    except OSError as err:  # which copytree would collect, one for each of thousands of files
        raise EngineError(f"{target}: {(err.strerror or str(err)).lower()}") from err


def _certificates(tree: Path) -> None:
    folder = tree / "usr/share/ca-certificates"
    parts = [path.read_bytes().rstrip() + b"\n" for path in sorted(folder.rglob("*.crt"))]
    (tree / "etc/ssl/certs/ca-certificates.crt").write_bytes(b"".join(parts))
    shutil.rmtree(folder)


def _os_release(tree: Path) -> None:
    path = tree / "usr/lib/os-release"
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("PRETTY_NAME=")]
    path.unlink()
    path.write_text("\n".join(['PRETTY_NAME="pyengine machine (Debian GNU/Linux 13)"', *kept]) + "\n")


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)
