"""Every path under the engine's two directories, as functions of a root.

`Root` is durable state (/var/lib/pyengine); `Run` is what a reboot may forget
(/run/pyengine). Two engines with different pairs never meet.
"""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_ROOT = Path("/var/lib/pyengine")
DEFAULT_RUN = Path("/run/pyengine")


@dataclass(frozen=True, slots=True)
class Root:
    """Durable state: what was acknowledged is here."""

    path: Path

    @property
    def lock(self) -> Path:
        """Held by the one daemon that may use this root."""
        return self.path / "lock"

    @property
    def database(self) -> Path:
        """What is mutable and relational: names, tags, leases, desired state."""
        return self.path / "state.db"

    @property
    def tmp(self) -> Path:
        """Half-made objects; emptied at start. On the same file system as what they become."""
        return self.path / "tmp"

    def blob(self, algorithm: str, hexadecimal: str) -> Path:
        """Return the file of a blob; the caller has checked both against the digest grammar."""
        return self.path / "blobs" / algorithm / hexadecimal

    def layer(self, chain_id_hex: str) -> Path:
        """Return the directory of an unpacked layer: `diff/` and `meta.json`."""
        return self.path / "layers" / chain_id_hex

    @property
    def containers(self) -> Path:
        """One directory a container."""
        return self.path / "containers"

    def container(self, container_id: str) -> "ContainerDir":
        """Return the directory of one container."""
        return ContainerDir(self.containers / container_id)

    @property
    def volumes(self) -> Path:
        """One directory a volume: `_data/` and `meta.json`."""
        return self.path / "volumes"

    @property
    def audit_log(self) -> Path:
        """Who did what, one JSON line a state-changing call; append only."""
        return self.path / "audit.log"


@dataclass(frozen=True, slots=True)
class ContainerDir:
    """Everything durable of one container; self-describing."""

    path: Path

    @property
    def config(self) -> Path:
        """What the container was created from."""
        return self.path / "config.json"

    @property
    def exit(self) -> Path:
        """How the last run ended; the shim writes it before it closes stdio."""
        return self.path / "exit.json"

    @property
    def log(self) -> Path:
        """The log, in docker's json-file or `local` form."""
        return self.path / "container.log"

    @property
    def upper(self) -> Path:
        """The writable layer."""
        return self.path / "upper"

    @property
    def work(self) -> Path:
        """The overlay's work directory."""
        return self.path / "work"

    @property
    def etc(self) -> Path:
        """`hosts`, `hostname` and `resolv.conf`, bound over the image's."""
        return self.path / "etc"


@dataclass(frozen=True, slots=True)
class Run:
    """What a reboot may forget: sockets, pid files, mounts."""

    path: Path

    @property
    def lock(self) -> Path:
        """Held by the one daemon that may use this directory: it ends shims that its root does not know."""
        return self.path / "lock"

    @property
    def api_socket(self) -> Path:
        """Where the Docker Engine API is served unless told otherwise."""
        return self.path / "pyengine.sock"

    @property
    def nursery_socket(self) -> Path:
        """The nursery's, for spawn requests of the daemon."""
        return self.path / "nursery.sock"

    @property
    def netns(self) -> Path:
        """Network namespaces, each pinned by a bind mount."""
        return self.path / "netns"

    @property
    def shims(self) -> Path:
        """One directory a live shim."""
        return self.path / "shims"

    def shim(self, container_id: str) -> "ShimDir":
        """Return the directory of one container's shim."""
        return ShimDir(self.shims / container_id)


@dataclass(frozen=True, slots=True)
class ShimDir:
    """The run-time files of one shim; also the OCI bundle of its container."""

    path: Path

    @property
    def socket(self) -> Path:
        """The shim's own socket: attach, exec, kill, resize, state."""
        return self.path / "shim.sock"

    @property
    def config(self) -> Path:
        """The OCI config.json."""
        return self.path / "config.json"

    @property
    def rootfs(self) -> Path:
        """Mount point of the root file system, in the shim's mount namespace or the host's."""
        return self.path / "rootfs"

    @property
    def state(self) -> Path:
        """The runtime's state.json: pid, start time, status."""
        return self.path / "state.json"

    @property
    def log(self) -> Path:
        """What the shim and the runtime have to say."""
        return self.path / "shim.log"
