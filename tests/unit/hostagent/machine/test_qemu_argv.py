import dataclasses
from pathlib import Path

import pytest

from hostagent.machine.model import Accel, Arch
from hostagent.machine.qemu.argv import Launch, argv, kernel_command_line

LAUNCH = Launch(
    name="web",
    arch=Arch.X86_64,
    accel=Accel.TCG,
    cpus=2,
    memory_mib=1024,
    kernel=Path("/i/vmlinux"),
    initrd=Path("/i/initrd.img"),
    rootfs=Path("/i/rootfs.erofs"),
    data_disk=Path("/m/data.raw"),
    qmp_socket=Path("/r/qmp.sock"),
    control_socket=Path("/r/control.sock"),
    console_log=Path("/l/console.log"),
)

COMMON = (
    "-smp 2 -m 1024M -kernel /i/vmlinux -initrd /i/initrd.img -append {append} "
    "-qmp unix:/r/qmp.sock,server=on,wait=off -chardev file,id=console,path=/l/console.log "
    "-serial chardev:console "
    "-blockdev driver=file,node-name=root-file,filename=/i/rootfs.erofs,read-only=on "
    "-blockdev driver=raw,node-name=root,file=root-file,read-only=on "
    "-device virtio-blk-pci,drive=root,serial=pyengine-root "
    "-blockdev driver=file,node-name=data-file,filename=/m/data.raw,discard=unmap,detect-zeroes=unmap "
    "-blockdev driver=raw,node-name=data,file=data-file,discard=unmap,detect-zeroes=unmap "
    "-device virtio-blk-pci,drive=data,serial=pyengine-data "
    "-netdev user,id=net,net=10.0.2.0/24,restrict=off,hostfwd=tcp:127.0.0.1:0-:22 "
    "-device virtio-net-pci,netdev=net,romfile= -object rng-builtin,id=rng -device virtio-rng-pci,rng=rng "
    "-device virtio-balloon-pci,free-page-reporting=on -device virtio-serial-pci,id=serial "
    "-chardev socket,id=control,path=/r/control.sock,server=on,wait=off "
    "-device virtserialport,bus=serial.0,chardev=control,name=io.pyengine.control"
)
NATIVE_X86 = "console=ttyS0 loglevel=6 panic=-1 root=/dev/vda ro random.trust_cpu=on"
NATIVE_ARM = NATIVE_X86.replace("ttyS0", "ttyAMA0")
TCG = (
    " mitigations=off nowatchdog cryptomgr.notests"
    " initcall_blacklist=jent_mod_init,load_system_certificate_list"
)
BASE = "-name pyengine-web -nodefaults -no-user-config -display none -no-reboot"
X86 = f"qemu-system-x86_64 {BASE} -machine q35,vmport=off"
ARM = f"qemu-system-aarch64 {BASE} -machine virt"

GOLDEN = [
    (
        Arch.X86_64, Accel.TCG,
        f"{X86} -accel tcg,thread=multi,tb-size=256 -cpu max",
        f"{NATIVE_X86}{TCG} tsc=reliable no_timer_check",
    ),
    (Arch.X86_64, Accel.KVM, f"{X86} -accel kvm -cpu host", NATIVE_X86),
    (Arch.X86_64, Accel.HVF, f"{X86} -accel hvf -cpu host", NATIVE_X86),
    (
        Arch.X86_64, Accel.WHPX,
        f"{X86},kernel-irqchip=off -accel whpx -cpu max",
        NATIVE_X86,
    ),
    (
        Arch.AARCH64, Accel.TCG,
        f"{ARM},gic-version=max -accel tcg,thread=multi,tb-size=256 -cpu max,pauth-impdef=on",
        f"{NATIVE_ARM}{TCG}",
    ),
    (Arch.AARCH64, Accel.KVM, f"{ARM} -accel kvm -cpu host", NATIVE_ARM),
    (Arch.AARCH64, Accel.HVF, f"{ARM} -accel hvf -cpu host", NATIVE_ARM),
]  # fmt: skip


@pytest.mark.parametrize(("arch", "accel", "head", "append"), GOLDEN)
def test_the_command_line_is_the_golden_one(arch: Arch, accel: Accel, head: str, append: str) -> None:
    got = argv(dataclasses.replace(LAUNCH, arch=arch, accel=accel))

    want = f"{head} {COMMON}".split(" ")
    want[want.index("{append}")] = append
    assert got == want


def test_where_qemu_has_a_sandbox_it_is_locked_in() -> None:
    got = argv(dataclasses.replace(LAUNCH, sandbox=True))

    flags = got[got.index("-sandbox") + 1]
    assert flags == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def test_qboot_is_for_x86_only() -> None:
    assert "qboot.rom" in argv(dataclasses.replace(LAUNCH, qboot=True))
    assert "qboot.rom" not in argv(dataclasses.replace(LAUNCH, qboot=True, arch=Arch.AARCH64))


def test_a_comma_in_a_path_does_not_become_an_option() -> None:
    got = argv(dataclasses.replace(LAUNCH, data_disk=Path("/m/a,readonly=on/data.raw")))

    assert "filename=/m/a,,readonly=on/data.raw,discard" in " ".join(got)


def test_a_wish_is_no_accelerator() -> None:
    with pytest.raises(ValueError, match="must be chosen"):
        argv(dataclasses.replace(LAUNCH, accel=Accel.AUTO))


@pytest.mark.parametrize("arch", list(Arch))
def test_flaws_are_mitigated_where_the_processor_is_real(arch: Arch) -> None:
    assert "mitigations=off" not in kernel_command_line(arch, Accel.KVM)
