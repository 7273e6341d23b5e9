"""Every file that pyengine keeps on the host, each with a comment.

Four kinds of directory, as the XDG base directory specification has them:
settings, disks and their locks (data), logs (state), what can be made again
(cache), and sockets (run). `PYENGINE_HOME` puts all four under one directory.

A socket's path must fit into `sun_path` (104 bytes on macOS, 108 on Linux),
so the run directory is short, and a long `PYENGINE_HOME` gets one elsewhere.
The command line imports this on its fast path: keep the imports few.

Source: XDG Base Directory Specification 0.8; unix(7), "Address format".
"""

import os
import stat
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import Denied

NAME_MAX_CHARS = 24
_SUN_PATH_MAX = 100  # the smaller limit, less some room
_LONGEST_SOCKET = "control.sock"
DEFAULT_MACHINE = "default"


def selected_machine() -> str:
    """Return the machine that commands are for: PYENGINE_INSTANCE, or `default`."""
    return os.environ.get("PYENGINE_INSTANCE") or DEFAULT_MACHINE


@dataclass(frozen=True, slots=True)
class HostPaths:
    """The four directories of this user, and what is common to all machines."""

    data: Path
    state: Path
    cache: Path
    run: Path

    @property
    def machines(self) -> Path:
        """One directory a machine."""
        return self.data / "machines"

    @property
    def images(self) -> Path:
        """VM images built or downloaded, one directory an architecture."""
        return self.cache / "images"

    @property
    def accelerators(self) -> Path:
        """What probing the accelerators found: keyed by emulator version and boot of the host."""
        return self.cache / "accelerators.json"


@dataclass(frozen=True, slots=True)
class MachinePaths:
    """Every file of one machine. The name has been checked against the grammar, or comes from a listing."""

    name: str

    @property
    def directory(self) -> Path:
        """What `machine rm` removes: settings, keys and disk."""
        return host_paths().machines / self.name

    @property
    def settings(self) -> Path:
        """The settings, versioned JSON; a machine exists when this file does."""
        return self.directory / "machine.json"

    @property
    def data_disk(self) -> Path:
        """The raw, sparse disk that holds images, containers and volumes."""
        return self.directory / "data.raw"

    @property
    def client_key(self) -> Path:
        """The private key that the agent logs in with."""
        return self.directory / "id_ed25519"

    @property
    def host_key(self) -> Path:
        """The private key that the guest's sshd is given at boot, and that the agent pins."""
        return self.directory / "ssh_host_ed25519_key"

    @property
    def image_record(self) -> Path:
        """Size, times and inode of the image files when they were last hashed."""
        return self.directory / "image-verified.json"

    @property
    def logs(self) -> Path:
        """The directory of the logs."""
        return host_paths().state / "machines" / self.name

    @property
    def agent_log(self) -> Path:
        """What the host agent has to say."""
        return self.logs / "agent.log"

    @property
    def qemu_log(self) -> Path:
        """Standard output and error of the emulator."""
        return self.logs / "qemu.log"

    @property
    def console_log(self) -> Path:
        """The guest's serial console since the last start."""
        return self.logs / "console.log"

    @property
    def previous_console_log(self) -> Path:
        """The console of the start before: the last words of a machine that ended and was started again."""
        return self.logs / "console.previous.log"

    @property
    def run(self) -> Path:
        """Sockets; a reboot may forget them."""
        return host_paths().run / self.name

    @property
    def docker_socket(self) -> Path:
        """The Docker Engine API, carried into the machine."""
        return self.run / "docker.sock"

    @property
    def agent_socket(self) -> Path:
        """The host agent's own: JSON lines, see `hostagent.client.agent`."""
        return self.run / "agent.sock"

    @property
    def qmp_socket(self) -> Path:
        """The emulator's monitor."""
        return self.run / "qmp.sock"

    @property
    def control_socket(self) -> Path:
        """The host end of the virtio-serial control port."""
        return self.run / "control.sock"

    @property
    def agent_lock(self) -> Path:
        """Held by the one agent of this machine as long as it lives.

        Beside the disk and not among the sockets, as the lock below: where sockets are depends on the
        session (XDG_RUNTIME_DIR), and a cron job must not start a second machine on the same disk.
        """
        return self.directory / "agent.lock"

    @property
    def machine_lock(self) -> Path:
        """Held by the emulator as long as it lives (it inherits the descriptor)."""
        return self.directory / "machine.lock"

    @property
    def settings_lock(self) -> Path:
        """Held while settings are created or removed."""
        return self.run / "settings.lock"

    @property
    def pidfile(self) -> Path:
        """The emulator's pid and start time, accelerator and SSH port; for the agent that adopts it."""
        return self.run / "vm.json"


def host_paths() -> HostPaths:
    """Return the directories of this user on this system, not yet made."""
    home = os.environ.get("PYENGINE_HOME")
    if home:
        root = Path(os.path.abspath(home))
        return HostPaths(root / "data", root / "state", root / "cache", _short(root / "run", str(root)))
    return _platform_paths()


def make_private(path: Path) -> Path:
    """Create the directory `path` and its parents, 0700, and refuse one that is not ours alone.

    Raises:
        Denied: it is a link or no directory, or belongs to another user.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(path)
    return path


def make_directories(machine: MachinePaths) -> None:
    """Create what a machine needs before its first file is written.

    Raises:
        Denied: see `make_private`.
    """
    host = host_paths()
    for path in (host.run, machine.run, host.data, machine.directory, machine.logs):
        make_private(path)


if sys.platform == "win32":

    def _platform_paths() -> HostPaths:
        local = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "pyengine"
        return HostPaths(local / "data", local / "state", local / "cache", local / "run")

    def _check_owner(path: Path) -> None:
        """Trust the profile directory: it is the user's by its ACL."""

    def _user() -> str:
        return os.environ.get("USERNAME", "user")
else:

    def _check_owner(path: Path) -> None:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise Denied(f"{path}: not a directory")
        if found.st_uid != os.geteuid():
            raise Denied(f"{path}: owned by user {found.st_uid}, not by user {os.geteuid()}")
        if found.st_mode & 0o077:
            os.chmod(path, 0o700)

    def _user() -> str:
        return str(os.geteuid())


if sys.platform == "darwin":

    def _platform_paths() -> HostPaths:
        root = Path.home() / ".pyengine"
        return HostPaths(root / "data", root / "state", root / "cache", _short(root / "run", str(root)))
elif sys.platform != "win32":

    def _platform_paths() -> HostPaths:
        home = Path.home()
        data = _xdg("XDG_DATA_HOME", home / ".local" / "share") / "pyengine"
        state = _xdg("XDG_STATE_HOME", home / ".local" / "state") / "pyengine"
        cache = _xdg("XDG_CACHE_HOME", home / ".cache") / "pyengine"
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        # One user may have several homes (sudo -E, a container, a test): each has machines of its own.
        key = f"{zlib.crc32(os.fsencode(data)):08x}"
        if runtime.startswith("/") and os.path.isdir(runtime):
            run = Path(runtime) / f"pyengine-machines-{key}"
        elif os.geteuid() == 0:
            run = Path(f"/run/pyengine-machines-{key}")
        else:
            run = Path(f"/tmp/pyengine-{_user()}-{key}")  # noqa: S108 (owner and mode are checked before use)
        return HostPaths(data, state, cache, _short(run, str(run)))


def _xdg(variable: str, fallback: Path) -> Path:
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else fallback


def _short(run: Path, seed: str) -> Path:
    """Return `run`, or a directory with a short name of its own when a socket in `run` would not fit."""
    if len(os.fsencode(run)) + NAME_MAX_CHARS + len(_LONGEST_SOCKET) + 2 <= _SUN_PATH_MAX:
        return run
    import hashlib  # noqa: PLC0415 (only for deep directories; costs the fast path 2 ms)

    digest = hashlib.sha256(os.fsencode(seed)).hexdigest()[:12]
    return Path(f"/tmp/pyengine-{_user()}-{digest}")  # noqa: S108 (owner and mode are checked before use)
