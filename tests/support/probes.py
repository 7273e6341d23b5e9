"""Ask the machine what it can do, by trying it, once a run."""

import functools
import os
import shutil
import socket
import subprocess


def _works(*argv: str) -> bool:
    try:
        return subprocess.run(argv, check=False, capture_output=True, timeout=60).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


@functools.cache
def can_unshare() -> bool:
    """Tell whether this process may make every kind of namespace a container gets."""
    return _works("unshare", "--mount", "--pid", "--fork", "--net", "--uts", "--ipc", "--cgroup", "true")


@functools.cache
def has_user_namespaces() -> bool:
    """Tell whether a user namespace can be made."""
    return _works("unshare", "--user", "--map-root-user", "true")


@functools.cache
def has_uidmap() -> bool:
    """Tell whether an unprivileged user can be given more ids than one."""
    return all(shutil.which(tool) for tool in ("newuidmap", "newgidmap"))


@functools.cache
def is_root() -> bool:
    """Tell whether this process is root."""
    return os.geteuid() == 0


@functools.cache
def has_net_admin() -> bool:
    """Tell whether bridges and veth pairs can be made (in a namespace that ends with the probe)."""
    script = "ip link add br0 type bridge && ip link add v0 type veth peer name v1"
    script += " && ip link set v0 master br0"
    return _works("unshare", "--net", "sh", "-c", script)


@functools.cache
def has_nftables() -> bool:
    """Tell whether nf_tables answers."""
    return _works("unshare", "--net", "nft", "add", "table", "inet", "probe")


@functools.cache
def has_qemu() -> bool:
    """Tell whether the x86-64 system emulator is installed and starts."""
    return _works("qemu-system-x86_64", "--version")


@functools.cache
def has_image_tools() -> bool:
    """Tell whether a VM image can be built here."""
    return all(shutil.which(tool) for tool in ("apt-get", "dpkg-deb", "mkfs.erofs", "zstd"))


@functools.cache
def has_docker_cli() -> bool:
    """Tell whether a docker command line is installed (no daemon is needed)."""
    return _works("docker", "--version")


@functools.cache
def has_busybox() -> bool:
    """Tell whether a static busybox is there to make test images from."""
    return os.access("/bin/busybox", os.X_OK)


@functools.cache
def has_tini() -> bool:
    """Tell whether there is a program for `--init`."""
    return _works("/usr/bin/tini-static", "--version")


@functools.cache
def has_sshd() -> bool:
    """Tell whether an OpenSSH server is installed."""
    return os.access("/usr/sbin/sshd", os.X_OK)


@functools.cache
def has_strace() -> bool:
    """Tell whether strace is installed, and may trace."""
    return _works("strace", "-o", "/dev/null", "true")


@functools.cache
def has_skopeo() -> bool:
    """Tell whether skopeo is installed."""
    return _works("skopeo", "--version")


@functools.cache
def has_registry() -> bool:
    """Tell whether the distribution registry is installed."""
    return _works("docker-registry", "--version")


@functools.cache
def has_cpio() -> bool:
    """Tell whether GNU cpio is installed."""
    return _works("cpio", "--version")


@functools.cache
def has_zsh() -> bool:
    """Tell whether zsh is installed."""
    return _works("zsh", "--version")


@functools.cache
def has_fish() -> bool:
    """Tell whether fish is installed."""
    return _works("fish", "--version")


@functools.cache
def has_route() -> bool:
    """Tell whether this host has a route to the outside, and so an address of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return False
    return True


@functools.cache
def has_podman() -> bool:
    """Tell whether podman and its parent of containers are installed."""
    return _works("podman", "--version") and _works("conmon", "--version")


@functools.cache
def has_netavark() -> bool:
    """Tell whether podman can make bridges."""
    places = ("/usr/lib/podman", "/usr/libexec/podman")
    return any(_works(f"{place}/netavark", "version") for place in places)


@functools.cache
def has_runc() -> bool:
    """Tell whether runc is installed, to prove a test on."""
    return _works("runc", "--version")


@functools.cache
def has_crun() -> bool:
    """Tell whether crun is installed, to run under our shim."""
    return _works("crun", "--version")


@functools.cache
def has_containerd() -> bool:
    """Tell whether containerd, its shim for runtimes like runc, and its client are installed."""
    return all(_works(name, "--version") for name in ("containerd", "ctr")) and bool(
        shutil.which("containerd-shim-runc-v2")
    )


@functools.cache
def has_dockerd() -> bool:
    """Tell whether dockerd, containerd and docker's client are installed."""
    return all(_works(name, "--version") for name in ("dockerd", "containerd", "docker"))


@functools.cache
def has_kernel_headers() -> bool:
    """Tell whether the kernel's headers for programs are installed."""
    return os.path.exists("/usr/include/asm-generic/unistd.h")


@functools.cache
def has_compiler() -> bool:
    """Tell whether programs in C can be built, without libraries that are loaded."""
    return _works("gcc", "--version") and os.path.exists("/usr/include/stdio.h")


@functools.cache
def has_detached_mounts() -> bool:
    """Tell whether this kernel mounts on trees that are attached nowhere (Linux 6.15)."""
    from engine.runtime.changeroot import mounts_on_detached

    return is_root() and can_unshare() and mounts_on_detached()


PROBES = {
    "compiler": has_compiler,
    "podman": has_podman,
    "netavark": has_netavark,
    "runc": has_runc,
    "crun": has_crun,
    "containerd": has_containerd,
    "dockerd": has_dockerd,
    "namespaces": can_unshare,
    "uidmap": has_uidmap,
    "user_namespaces": has_user_namespaces,
    "detached_mounts": has_detached_mounts,
    "root": is_root,
    "net_admin": has_net_admin,
    "nftables": has_nftables,
    "qemu": has_qemu,
    "image_tools": has_image_tools,
    "docker_cli": has_docker_cli,
    "busybox": has_busybox,
    "kernel_headers": has_kernel_headers,
    "tini": has_tini,
    "cpio": has_cpio,
    "sshd": has_sshd,
    "strace": has_strace,
    "skopeo": has_skopeo,
    "registry": has_registry,
    "zsh": has_zsh,
    "fish": has_fish,
    "route": has_route,
}
