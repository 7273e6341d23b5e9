"""The QEMU command line of a machine: data in, arguments out.

q35 and not microvm: under tcg microvm hangs in a third of its boots for want
of a timer to calibrate, and its second saved per boot is not worth that.

Every device is asked for by name (`-nodefaults`), the kernel is loaded
directly, and both disks are raw by declaration: a guest that writes a qcow2
header onto its disk cannot make QEMU follow it to a backing file.

Source: qemu(1), 7.2; docs/system/i386/kvm-pv.rst for the kernel arguments.
"""

from dataclasses import dataclass
from pathlib import Path

from hostagent.machine.model import Accel, Arch
from vmguest.protocol import PORT_NAME

DATA_DISK_SERIAL = "pyengine-data"
GUEST_NETWORK = "10.0.2.0/24"
GUEST_SSH_PORT = 22
QBOOT = "qboot.rom"
_TCG_BUFFER_MIB = 256
_SKIPPED = "jent_mod_init,load_system_certificate_list"

_BINARY = {Arch.X86_64: "qemu-system-x86_64", Arch.AARCH64: "qemu-system-aarch64"}
_CONSOLE = {Arch.X86_64: "ttyS0", Arch.AARCH64: "ttyAMA0"}
# What the emulator may not do although it could: become somebody else, run programs.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything that the command line depends on."""

    name: str
    arch: Arch
    accel: Accel  # not AUTO
    cpus: int
    memory_mib: int
    kernel: Path
    initrd: Path
    rootfs: Path
    data_disk: Path
    qmp_socket: Path
    control_socket: Path
    console_log: Path
    sandbox: bool = False  # this QEMU has seccomp (Linux only)
    qboot: bool = False  # this QEMU brings qboot, a firmware that does nothing but start a kernel
    binary: str = ""  # empty: by architecture, from PATH


def binary_of(arch: Arch) -> str:
    """Return the name of the emulator for `arch`."""
    return _BINARY[arch]


def argv(launch: Launch) -> list[str]:
    """Return the arguments that start `launch`.

    SSH is forwarded from a port of 127.0.0.1 that the kernel picks; ask QMP
    which one. The machine does not restart by itself: a reboot ends it.
    """
    if launch.accel is Accel.AUTO:
        raise ValueError("the accelerator must be chosen first")
    return [
        launch.binary or binary_of(launch.arch),
        "-name", f"pyengine-{launch.name}",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        *(["-bios", QBOOT] if launch.qboot and launch.arch is Arch.X86_64 else []),
        *(["-sandbox", _SANDBOX] if launch.sandbox else []),
        *_machine(launch),
        "-smp", str(launch.cpus),
        "-m", f"{launch.memory_mib}M",
        "-kernel", str(launch.kernel),
        "-initrd", str(launch.initrd),
        "-append", kernel_command_line(launch.arch, launch.accel),
        "-qmp", f"unix:{_escape(launch.qmp_socket)},server=on,wait=off",
        "-chardev", f"file,id=console,path={_escape(launch.console_log)}",
        "-serial", "chardev:console",
        *_disk("root", launch.rootfs, read_only=True),
        *_disk("data", launch.data_disk, read_only=False),
        "-netdev", f"user,id=net,net={GUEST_NETWORK},restrict=off,hostfwd=tcp:127.0.0.1:0-:{GUEST_SSH_PORT}",
        "-device", "virtio-net-pci,netdev=net,romfile=",
        "-object", "rng-builtin,id=rng",
        "-device", "virtio-rng-pci,rng=rng",
        "-device", "virtio-balloon-pci,free-page-reporting=on",
        "-device", "virtio-serial-pci,id=serial",
        "-chardev", f"socket,id=control,path={_escape(launch.control_socket)},server=on,wait=off",
        "-device", f"virtserialport,bus=serial.0,chardev=control,name={PORT_NAME}",
    ]  # fmt: skip


def kernel_command_line(arch: Arch, accel: Accel) -> str:
    """Return the guest kernel's arguments.

    The log level lets the version line through: it is the sign of life that
    the accelerator's probe waits for.
    """
    words = [
        f"console={_CONSOLE[arch]}",
        "loglevel=6",
        "panic=-1",
        "root=/dev/vda",
        "ro",
        "random.trust_cpu=on",
    ]
    if accel is Accel.TCG:
        # Emulated, the processor's flaws are not there, and their mitigations cost a tenth of everything.
        # Self-tests of every cipher and the maker's certificates (for modules, but those lie in an image
        # whose hash was checked) are not worth theirs either.
        words += ["mitigations=off", "nowatchdog", "cryptomgr.notests", f"initcall_blacklist={_SKIPPED}"]
        if arch is Arch.X86_64:
            # Emulated processors' counters are the host's: calibrating and watching them only takes time.
            words += ["tsc=reliable", "no_timer_check"]
    return " ".join(words)


def _machine(launch: Launch) -> list[str]:
    accel = str(launch.accel)
    if launch.accel is Accel.TCG:
        accel = f"tcg,thread=multi,tb-size={_TCG_BUFFER_MIB}"
    if launch.arch is Arch.AARCH64:
        board = "virt,gic-version=max" if launch.accel is Accel.TCG else "virt"
    else:
        board = "q35,vmport=off"
        if launch.accel is Accel.WHPX:
            board += ",kernel-irqchip=off"
    return ["-machine", board, "-accel", accel, "-cpu", _cpu(launch)]


def _cpu(launch: Launch) -> str:
    if launch.accel is not Accel.TCG:
        # whpx cannot pass every host feature through; max is what it supports
        return "max" if launch.accel is Accel.WHPX else "host"
    # pointer authentication is computed in software and costs two thirds of the boot
    return "max,pauth-impdef=on" if launch.arch is Arch.AARCH64 else "max"


def _disk(role: str, path: Path, *, read_only: bool) -> list[str]:
    flags = "read-only=on" if read_only else "discard=unmap,detect-zeroes=unmap"
    serial = DATA_DISK_SERIAL if role == "data" else "pyengine-root"
    return [
        "-blockdev", f"driver=file,node-name={role}-file,filename={_escape(path)},{flags}",
        "-blockdev", f"driver=raw,node-name={role},file={role}-file,{flags}",
        "-device", f"virtio-blk-pci,drive={role},serial={serial}",
    ]  # fmt: skip


def _escape(path: Path) -> str:
    """Return `path` for an option list: QEMU splits at commas, and a doubled one stands for itself."""
    return str(path).replace(",", ",,")
