import os
import platform
from pathlib import Path

import pytest

from engine.base.errors import NotSupported
from hostagent.machine import accel
from hostagent.machine.accel import Qemu, Verdict
from hostagent.machine.model import Accel, Arch

QEMU = Qemu("/usr/bin/qemu", "7.2.22", sandbox=True, qboot=True)
HERE = accel.host_arch()
FOREIGN = Arch.AARCH64 if HERE is Arch.X86_64 else Arch.X86_64


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYENGINE_HOME", str(tmp_path))
    for arch in Arch:
        monkeypatch.delenv(f"QEMU_SYSTEM_{arch.upper()}", raising=False)
    return tmp_path


@pytest.fixture
def a_system(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(accel, "_boot_id", lambda: "boot-1")
    return monkeypatch


@pytest.mark.parametrize(("name", "best"), [("darwin", Accel.HVF), ("win32", Accel.WHPX)])
def test_each_system_tries_its_own_first_and_tcg_next(
    a_system: pytest.MonkeyPatch, name: str, best: Accel
) -> None:
    a_system.setattr(accel, "_PLATFORM", name)

    assert accel.candidates(Accel.AUTO, HERE, QEMU) == [(best, ""), (Accel.TCG, "")]


def test_a_wish_is_the_only_candidate() -> None:
    assert accel.candidates(Accel.KVM, HERE, QEMU) == [(Accel.KVM, "")]


def test_a_foreign_guest_is_emulated_and_says_why() -> None:
    [(found, reason)] = accel.candidates(Accel.AUTO, FOREIGN, QEMU)

    assert found is Accel.TCG
    assert reason == f"the guest is {FOREIGN}, this host is {platform.machine().lower()}"


def test_a_failed_accelerator_is_remembered_with_its_reason(a_system: pytest.MonkeyPatch) -> None:
    a_system.setattr(accel, "_PLATFORM", "darwin")
    accel.remember(Accel.HVF, QEMU, Verdict(works=False, reason="hvf is silent"))

    assert accel.candidates(Accel.AUTO, HERE, QEMU) == [(Accel.TCG, "hvf is silent")]
    assert [verdict.reason for verdict in accel.remembered().values()] == ["hvf is silent"]


def test_a_verdict_ends_with_the_hosts_boot_and_with_the_emulators_version(
    a_system: pytest.MonkeyPatch,
) -> None:
    a_system.setattr(accel, "_PLATFORM", "darwin")
    accel.remember(Accel.HVF, QEMU, Verdict(works=False, reason="hvf is silent"))

    newer = Qemu(QEMU.path, "9.0.0", sandbox=True, qboot=True)
    assert accel.candidates(Accel.AUTO, HERE, newer)[0][0] is Accel.HVF
    a_system.setattr(accel, "_boot_id", lambda: "boot-2")
    assert accel.candidates(Accel.AUTO, HERE, QEMU)[0][0] is Accel.HVF


def test_a_damaged_memory_is_found_out_again(home: Path) -> None:
    (home / "cache").mkdir()
    (home / "cache" / "accelerators.json").write_text("{")
    accel.remember(Accel.KVM, QEMU, Verdict(works=True))

    assert list(accel.remembered().values()) == [Verdict(works=True)]


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_what_qemu_can_do_is_asked_of_it_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = home / "share"
    share.mkdir()
    (share / "qboot.rom").touch()
    script = f"""
echo "$@" >> {home}/asked
case "$*" in
  "-L help") echo /none; echo {share};;
  *--version) echo "QEMU emulator version 7.2.22 (Debian)";;
esac"""
    binary = _program(home / "qemu", script)
    monkeypatch.setenv(f"QEMU_SYSTEM_{HERE.upper()}", str(binary))

    first = accel.find_qemu(HERE)
    asked = (home / "asked").read_text()

    assert first == Qemu(os.path.realpath(binary), "7.2.22", sandbox=True, qboot=True)
    assert accel.find_qemu(HERE) == first
    assert (home / "asked").read_text() == asked


def test_a_qemu_without_sandbox_is_taken_without(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = _program(
        home / "qemu", 'case "$*" in *sandbox*) exit 1;; --version) echo "QEMU emulator version 6.0";; esac'
    )
    monkeypatch.setenv(f"QEMU_SYSTEM_{HERE.upper()}", str(binary))

    assert accel.find_qemu(HERE) == Qemu(os.path.realpath(binary), "6.0", sandbox=False, qboot=False)


def test_no_qemu_is_one_line_and_a_way_to_get_it(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("PATH", str(home))

    with pytest.raises(NotSupported, match="qemu not found: no program qemu-system-") as caught:
        accel.find_qemu(HERE)
    assert "install" in caught.value.hint


def test_a_qemu_that_does_not_start_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"QEMU_SYSTEM_{HERE.upper()}", str(_program(home / "qemu", "echo broken >&2; exit 1")))

    with pytest.raises(NotSupported, match=r"qemu does not start: .*broken"):
        accel.find_qemu(HERE)
