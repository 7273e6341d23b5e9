"""Python wheels for the guest: locked by hash, downloaded by pip, unpacked without running anything."""

import importlib.util
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from engine.base.errors import EngineError, NotSupported
from engine.base.process import run

_PYTHON = "313"
_PIP_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel file."""

    name: str
    version: str
    file_name: str
    sha256: str


def download(wheels: Sequence[Wheel], arch: str, into: Path) -> list[Path]:
    """Return the files of `wheels`, downloading what `into` lacks.

    Raises:
        EngineError: pip found nothing with this name, version and hash.
    """
    into.mkdir(parents=True, exist_ok=True)
    missing = [wheel for wheel in wheels if not (into / wheel.file_name).exists()]
    if missing:
        lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in missing]
        requirements = into / "requirements.txt"
        requirements.write_text("".join(lines))
        _pip(arch, into, ["--require-hashes", "--requirement", str(requirements)])
        requirements.unlink()
    paths = [into / wheel.file_name for wheel in wheels]
    for wheel, path in zip(wheels, paths, strict=True):
        if _sha256(path) != wheel.sha256:
            path.unlink()
            raise EngineError(f"{wheel.file_name}: wrong hash in the cache; it was removed, build again")
    return paths


def resolve(names: Sequence[str], arch: str, into: Path) -> list[Wheel]:
    """Return the newest wheel of each of `names`, downloaded into the empty directory `into`."""
    _pip(arch, into, list(names))
    found = []
    for path in sorted(into.glob("*.whl")):
        name, version = path.name.split("-")[:2]
        found.append(Wheel(re.sub(r"[-_.]+", "-", name).lower(), version, path.name, _sha256(path)))
    return found


def unpack(paths: Sequence[Path], into: Path) -> None:
    """Unpack the wheels into one directory for `sys.path`."""
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.startswith("/") or ".." in Path(member.filename).parts:
                    raise EngineError(f"{path.name}: unsafe member name: {member.filename}")
            archive.extractall(into)


def _pip(arch: str, into: Path, arguments: Sequence[str]) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_{arch}" for minor in (17, 28, 34)]
    line = [
        *_pip_command(), "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--dest", str(into), "--implementation=cp", f"--python-version={_PYTHON}",
        f"--abi=cp{_PYTHON}", "--abi=abi3", "--abi=none",
        f"--platform=manylinux2014_{arch}", *platforms, *arguments,
    ]  # fmt: skip
    environment: Mapping[str, str] = {**os.environ, "LC_ALL": "C.UTF-8"}
    run(line, timeout_s=_PIP_TIMEOUT_S, env=environment)


def _pip_command() -> list[str]:
    """Return pip's command: this interpreter's, or any, as it only downloads.

    Raises:
        NotSupported: there is none.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if path := shutil.which(name):
            return [path]
    raise NotSupported("cannot download wheels for the image: install pip (Debian: python3-pip)")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
