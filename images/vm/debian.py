"""Debian packages: resolve names, download by hash, unpack. No root, no dpkg database, no scripts.

apt does what it is made for (signed indexes, mirrors, proxies) with a configuration of its own, so neither
the host's release nor its list of packages matters.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import EngineError, NotFound
from engine.base.process import ProcessFailed, run

# Debian's own address, for hosts that are not Debian; a Debian host's mirror is used where there is one.
_DEFAULT_MIRROR = "http://deb.debian.org/debian"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_APT_TIMEOUT_S = 900
_UNPACK_TIMEOUT_S = 300

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Package:
    """One version of one Debian package."""

    name: str
    version: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """Name in the cache; the hash makes it unique across architectures."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.sha256[:12]}.deb"


class Apt:
    """apt-get for one architecture of one release, with its state under `directory`."""

    def __init__(self, directory: Path, *, arch: str, suite: str, mirror: str) -> None:
        self._directory = directory
        self._arch = arch
        self._suite = suite
        self._mirror = mirror
        self._updated = False

    def resolve(self, names: Sequence[str]) -> dict[str, Package]:
        """Return the newest version of each of `names`."""
        shown = self._show(["--no-all-versions", *names])
        found = {package.name: package for package in shown}
        for name in names:
            if name not in found:
                raise NotFound("Debian package", f"{name} ({self._suite}, {self._arch})")
        return found

    def depends(self, name: str) -> list[str]:
        """Return the names that the newest `name` depends on."""
        self._update()
        text = self._run(["apt-cache", "depends", "--important", name])
        return re.findall(r"Depends: ([a-z0-9][a-z0-9.+-]*)", text)

    def available(self, packages: Iterable[Package]) -> set[Package]:
        """Return those of `packages` that the mirror still offers in exactly this version."""
        wanted = list(packages)
        return set(self._show(sorted({package.name for package in wanted}), missing_ok=True)) & set(wanted)

    def download(self, packages: Sequence[Package], into: Path) -> None:
        """Put the files of `packages` under `into` as `Package.file_name`.

        Raises:
            EngineError: a file's hash is not the one given.
        """
        self._update()
        work = self._directory / "download"
        work.mkdir(exist_ok=True)
        for left in work.iterdir():
            left.unlink()
        wanted = [f"{package.name}={package.version}" for package in packages]
        self._run(["env", "-C", str(work), "apt-get", "download", *wanted])
        by_name = {path.name.split("_")[0]: path for path in work.iterdir()}
        for package in packages:
            path = by_name[package.name]
            _verify(path, package)
            path.rename(into / package.file_name)

    def _show(self, arguments: Sequence[str], *, missing_ok: bool = False) -> list[Package]:
        self._update()
        try:
            text = self._run(["apt-cache", "show", *arguments])
        except ProcessFailed:
            if not missing_ok:
                raise
            text = ""
        packages = []
        for stanza in text.split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
            if "SHA256" in fields:
                size = int(fields["Size"])
                packages.append(Package(fields["Package"], fields["Version"], fields["SHA256"], size))
        return packages

    def _update(self) -> None:
        if self._updated:
            return
        for name in ("lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/trusted.gpg.d"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        (self._directory / "status").touch()
        security = re.sub(r"/debian/?$", "/debian-security", self._mirror)
        lines = [
            f"deb [arch={self._arch} signed-by={_KEYRING}] {address} main\n"
            for address in (
                f"{self._mirror} {self._suite}",
                f"{self._mirror} {self._suite}-updates",
                f"{security} {self._suite}-security",
            )
        ]
        (self._directory / "sources.list").write_text("".join(lines))
        self._run(["apt-get", "update", "-o", "APT::Update::Error-Mode=any"])
        self._updated = True

    def _run(self, argv: Sequence[str]) -> str:
        at = self._directory
        options = {
            "Dir::State": at, "Dir::State::lists": at / "lists", "Dir::State::status": at / "status",
            "Dir::Etc::sourcelist": at / "sources.list", "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferences": "-", "Dir::Etc::preferencesparts": at / "etc/preferences.d",
            "Dir::Cache": at / "cache", "APT::Architecture": self._arch, "APT::Architectures": self._arch,
            "APT::Sandbox::User": "", "Debug::NoLocking": "1", "Acquire::Languages": "none",
            "Acquire::Retries": "3", "Acquire::AllowInsecureRepositories": "false",
        }  # fmt: skip
        flags = [f"-o{key}={value}" for key, value in options.items()]
        at_program = next(i for i, word in enumerate(argv) if word.startswith("apt-"))
        line = [*argv[: at_program + 1], *flags, *argv[at_program + 1 :]]
        return run(line, timeout_s=_APT_TIMEOUT_S, env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout.decode()


def host_mirror() -> str:
    """Return the Debian mirror that this host uses, or Debian's own address."""
    try:
        text = run(
            ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)"], timeout_s=60
        ).stdout.decode()
    except EngineError:
        return _DEFAULT_MIRROR
    for line in text.splitlines():
        label, _, address = line.partition(" ")
        if label == "Debian" and address.rstrip("/").endswith("/debian"):
            return address.rstrip("/")
    return _DEFAULT_MIRROR


def fetch(packages: Sequence[Package], apt: Apt, into: Path, progress: Progress) -> dict[str, Package]:
    """Make sure that each package lies in `into`; return what was taken, by name.

    A version that has left the mirror is replaced by the newest one, loudly.
    """
    into.mkdir(parents=True, exist_ok=True)
    taken = {package.name: package for package in packages}
    missing = [package for package in packages if not (into / package.file_name).exists()]
    if not missing:
        return taken
    offered = apt.available(missing)
    gone = [package for package in missing if package not in offered]
    if gone:
        for name, newest in _successors(gone, apt).items():
            old = taken.pop(name)
            progress(
                f"WARNING: {old.name} {old.version} is gone: taking {newest.name} {newest.version} instead"
            )
            taken[newest.name] = newest
        missing = [package for package in taken.values() if not (into / package.file_name).exists()]
    size = sum(package.size_bytes for package in missing)
    progress(f"downloading {len(missing)} Debian packages, {size / 1e6:.0f} MB")
    apt.download(missing, into)
    return taken


def _successors(gone: Sequence[Package], apt: Apt) -> dict[str, Package]:
    """Return the newest package in place of each of `gone`; a kernel's name carries its version."""
    names = {}
    for package in gone:
        kernel = re.fullmatch(r"linux-image-.*-cloud-([a-z0-9]+)", package.name)
        if kernel:
            meta = f"linux-image-cloud-{kernel.group(1)}"
            names[package.name] = next(name for name in apt.depends(meta) if name.startswith("linux-image-"))
        else:
            names[package.name] = package.name
    found = apt.resolve(sorted(set(names.values())))
    return {old: found[new] for old, new in names.items()}


def unpack(files: Sequence[Path], into: Path) -> None:
    """Unpack the packages into the tree `into`, several at a time."""

    def one(path: Path) -> None:
        run(["dpkg-deb", "--extract", str(path), str(into)], timeout_s=_UNPACK_TIMEOUT_S)

    into.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(one, files):
            pass


def _verify(path: Path, package: Package) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise EngineError(f"{package.name} {package.version}: sha256 is {found}, not {package.sha256}")
