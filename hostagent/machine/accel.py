"""Which accelerator a machine gets: found out by trying, not by asking.

`/dev/kvm` that opens, or a driver that is listed, does not mean that a guest
boots. So the machine itself is the probe: started with the best accelerator,
it must print something on its console within seconds; else it is ended, tcg
takes its place, and the verdict is remembered for this boot of the host and
this build of the emulator.
"""

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.base import jsonio
from engine.base.atomicfile import write_atomic
from engine.base.errors import EngineError, InvalidArgument, NotSupported
from engine.base.process import run
from hostagent.machine.model import Accel, Arch
from hostagent.machine.qemu.argv import QBOOT, binary_of
from hostagent.paths import host_paths, make_private

SIGN_OF_LIFE_S = 5.0
_PLATFORM = str(sys.platform)  # a variable, so that type checkers look at every branch
_VERSION_TIMEOUT_S = 20
_REMEMBERED_MAX = 32
_INSTALL_HINT = {
    "linux": "apt install qemu-system-x86 (or your distribution's qemu)",
    "darwin": "brew install qemu",
    "win32": "winget install SoftwareFreedomConservancy.QEMU",
}
_MACHINE_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


T = TypeVar("T")


class Qemu(msgspec.Struct, frozen=True):
    """One build of the emulator: what it is and what it can do."""

    path: str
    version: str
    sandbox: bool
    qboot: bool


class Verdict(msgspec.Struct, frozen=True):
    """What trying an accelerator showed; `reason` is empty when it works."""

    works: bool
    reason: str = ""


class _Memory(msgspec.Struct, frozen=True):
    """accelerators.json."""

    qemus: dict[str, Qemu] = {}
    verdicts: dict[str, Verdict] = {}


def find_qemu(arch: Arch) -> Qemu:
    """Return the emulator for `arch`: QEMU_SYSTEM_<ARCH> in the environment, or the one in PATH.

    Raises:
        NotSupported: it is not installed, or does not start.
    """
    variable = f"QEMU_SYSTEM_{str(arch).upper()}"
    wanted = os.environ.get(variable) or binary_of(arch)
    path = shutil.which(wanted)
    if path is None:
        hint = _INSTALL_HINT.get(_PLATFORM, "install qemu")
        raise NotSupported(f"qemu not found: no program {wanted} in PATH", hint=hint)
    real = os.path.realpath(path)
    found = os.stat(real)
    key = f"{real} {found.st_size} {found.st_mtime_ns}"
    known = _load().qemus.get(key)
    if known is not None:
        return known
    qemu = _ask(real)
    memory = _load()
    _save(_Memory({**_last(memory.qemus), key: qemu}, memory.verdicts))
    return qemu


def candidates(wish: Accel, arch: Arch, qemu: Qemu) -> list[tuple[Accel, str]]:
    """Return the accelerators to try in turn, each with why the better ones are left out (or "").

    An explicit wish is the only candidate: who asks for kvm does not want tcg in silence.
    """
    if wish is not Accel.AUTO:
        return [(wish, "")]
    best, reason = _best_of_platform(arch)
    if best is None:
        return [(Accel.TCG, reason)]
    verdict = _load().verdicts.get(_verdict_key(best, qemu))
    if verdict is not None and not verdict.works:
        return [(Accel.TCG, verdict.reason)]
    return [(best, ""), (Accel.TCG, "")]


def remember(accel: Accel, qemu: Qemu, verdict: Verdict) -> None:
    """Keep what a start with `accel` showed, until the host boots again or the emulator changes."""
    key = _verdict_key(accel, qemu)
    memory = _load()
    if memory.verdicts.get(key) != verdict:
        _save(_Memory(memory.qemus, {**_last(memory.verdicts), key: verdict}))


def remembered() -> dict[str, Verdict]:
    """Return every verdict that is kept, of this boot of the host and of older ones."""
    return dict(_load().verdicts)


def host_arch() -> Arch:
    """Return this host's processor architecture.

    Raises:
        NotSupported: pyengine has no image for it.
    """
    name = platform.machine().lower()
    try:
        return Arch(_MACHINE_NAMES.get(name, name))
    except ValueError as err:
        raise NotSupported(f"no vm image for this processor: {name}") from err


def _best_of_platform(arch: Arch) -> tuple[Accel | None, str]:
    host = platform.machine().lower()
    if _MACHINE_NAMES.get(host, host) != arch:
        return None, f"the guest is {arch}, this host is {host}"
    if _PLATFORM == "darwin":
        return Accel.HVF, ""
    if _PLATFORM == "win32":
        return Accel.WHPX, ""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | getattr(os, "O_CLOEXEC", 0)))
    except OSError as err:
        return None, f"/dev/kvm cannot be opened: {(err.strerror or str(err)).lower()}"
    return Accel.KVM, ""


def _verdict_key(accel: Accel, qemu: Qemu) -> str:
    return f"{accel} {qemu.path} {qemu.version} {platform.release()} {_boot_id()}"


def _boot_id() -> str:
    if _PLATFORM == "linux":
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _ask(path: str) -> Qemu:
    words = _say([path, "--version"]).split("version ", 1)[-1].split()
    directories = _say([path, "-L", "help"]).splitlines()
    return Qemu(
        path,
        words[0] if words else "unknown",
        sandbox=_PLATFORM == "linux" and _accepts([path, "-sandbox", "on", "--version"]),
        qboot=any((Path(directory.strip()) / QBOOT).is_file() for directory in directories),
    )


def _say(argv: Sequence[str]) -> str:
    try:
        return run(argv, timeout_s=_VERSION_TIMEOUT_S).stdout.decode(errors="replace")
    except (EngineError, OSError, TimeoutError) as err:
        raise NotSupported(f"qemu does not start: {err}") from err


def _accepts(argv: Sequence[str]) -> bool:
    try:
        _say(argv)
    except NotSupported:
        return False
    return True


def _load() -> _Memory:
    try:
        return jsonio.read(host_paths().accelerators, _Memory)
    except (OSError, InvalidArgument):  # a cache: what is lost is found out again
        return _Memory()


def _save(memory: _Memory) -> None:
    path = host_paths().accelerators
    make_private(path.parent)
    write_atomic(path, jsonio.encode(memory))


def _last(items: dict[str, T]) -> dict[str, T]:
    return dict(list(items.items())[-_REMEMBERED_MAX:])
