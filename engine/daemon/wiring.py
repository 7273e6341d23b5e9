"""Every object of the engine, made once, in the order of the layers; closed in the reverse order."""

import asyncio
import contextlib
import logging
import os
import time
from pathlib import Path

from engine.api.audit import AuditLog
from engine.api.routes.containers import ContainerRoutes
from engine.api.routes.images import ImageRoutes
from engine.api.routes.system import About, SystemRoutes
from engine.api.routes.volumes import NetworkRoutes, VolumeRoutes
from engine.api.server import Application, Server
from engine.base import ids
from engine.base.database import Database, DatabaseDamaged
from engine.base.errors import Denied, NotSupported
from engine.base.lockfile import LockFile
from engine.base.paths import Root, Run
from engine.containers.events import EventBus
from engine.containers.runtimes import Runtimes
from engine.containers.service import ContainerService
from engine.containers.shims import Shims
from engine.daemon import configfile
from engine.daemon.config import Config
from engine.images.service import ImageService
from engine.kernel.cgroup import hierarchies
from engine.networks.hostports import HostPorts
from engine.networks.service import NetworkService
from engine.snapshots.overlay import OverlaySnapshotter
from engine.volumes.service import VolumeService

log = logging.getLogger(__name__)
_KERNEL_MIN = (5, 12)  # mount_setattr; openat2 is older


class Engine:
    """One engine, from its lock to its socket; `open` once, `close` once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._root = Root(config.root)
        self._run = Run(config.run)
        self._closing = contextlib.AsyncExitStack()

    async def open(self) -> None:
        """Take the root, recover what the last daemon left, serve.

        Raises:
            Denied: not root.
            NotSupported: this kernel cannot do it.
            Locked: another daemon uses this root, or this run directory.
            Conflict: the socket is taken.
        """
        try:
            await self._open()
        except BaseException:
            await self._closing.aclose()
            raise

    async def close(self) -> None:
        """Stop serving and let go of everything; containers run on."""
        await self._closing.aclose()

    async def _open(self) -> None:
        _check_host()
        config, root, run = self._config, self._root, self._run
        runtimes = _runtimes(config)
        for path, mode in ((root.path, 0o700), (root.tmp, 0o700), (run.path, 0o711)):
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        for held in (root.lock, run.lock):
            lock = LockFile(held)
            lock.acquire()
            self._closing.callback(lock.release)
        shims = Shims(run)
        await shims.open()  # first: the nursery imports while the rest is opened
        self._closing.push_async_callback(shims.close)
        database, rebuilt = self._open_database()
        self._closing.callback(database.close)
        events = EventBus()
        snapshotter = OverlaySnapshotter(root)
        await asyncio.to_thread(snapshotter.open)
        images = ImageService(
            root,
            database,
            snapshotter,
            emit=lambda action, image, name: events.publish("image", action, image, {"name": name or image}),
        )
        await images.open()
        self._closing.push_async_callback(images.close)
        networks = NetworkService(
            database,
            run,
            bridge=config.bridge,
            bip=config.bip,
            host_ports=HostPorts(config.ports_socket) if config.ports_socket else None,
            isolate_host=config.isolate_host,
        )
        await networks.open()
        self._closing.push_async_callback(networks.close)
        volumes = VolumeService(
            root, emit=lambda action, name: events.publish("volume", action, name, {"driver": "local"})
        )
        await volumes.open()
        self._closing.push_async_callback(volumes.close)
        containers = ContainerService(
            root,
            run,
            database,
            images,
            snapshotter,
            networks,
            volumes,
            shims,
            events,
            mode=config.mode,
            runtimes=runtimes,
            rebuild=rebuilt,
        )
        await containers.open()
        self._closing.push_async_callback(containers.close)
        if config.preload is not None:
            await images.preload(config.preload)
        await self._serve(containers, images, volumes, networks, events, snapshotter.name, runtimes)

    async def _serve(  # noqa: PLR0917 (one collaborator each)
        self,
        containers: ContainerService,
        images: ImageService,
        volumes: VolumeService,
        networks: NetworkService,
        events: EventBus,
        driver: str,
        runtimes: Runtimes,
    ) -> None:
        audit = AuditLog(self._root.audit_log)
        self._closing.callback(audit.close)
        application = Application(audit)
        about = About(
            engine_id=self._engine_id(),
            root=str(self._root.path),
            driver=driver,
            cgroup_version="2" if hierarchies().is_unified else "1",
            in_machine=self._config.isolate_host,
            runtimes=runtimes,
        )
        application.install(
            [
                *SystemRoutes(about, containers, images, volumes, networks, events).routes(),
                *ContainerRoutes(containers).routes(),
                *ImageRoutes(images, containers).routes(),
                *VolumeRoutes(volumes, containers).routes(),
                *NetworkRoutes(networks).routes(),
            ]
        )
        self._config.host.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        server = Server(application, self._config.host)
        await server.open()
        self._closing.push_async_callback(server.close)

    def _open_database(self) -> tuple[Database, bool]:
        """Return the database, and whether it had to be begun anew."""
        try:
            return Database(self._root.database), False
        except DatabaseDamaged as err:
            aside = Path(f"{self._root.database}.damaged-{int(time.time())}")
            log.error("%s; it is moved to %s and rebuilt from the objects on disk", err, aside)  # noqa: TRY400
            os.rename(self._root.database, aside)
            for suffix in ("-wal", "-shm"):
                Path(f"{self._root.database}{suffix}").unlink(missing_ok=True)
            return Database(self._root.database), True

    def _engine_id(self) -> str:
        """Return the id of this root, made at its first use."""
        path = self._root.path / "engine-id"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text(encoding="ascii").strip()
        made = ids.new_id()
        path.write_text(made + "\n", encoding="ascii")
        return made


def _runtimes(config: Config) -> Runtimes:
    file = configfile.read(
        config.config_file or configfile.DEFAULT_PATH, is_needed=config.config_file is not None
    )
    return configfile.runtimes(file, config.add_runtime, config.default_runtime)


def _check_host() -> None:
    """Refuse at once what would fail later, one container at a time."""
    if os.geteuid() != 0:
        raise Denied(
            "pyengined needs root", hint="run it with sudo, or use a machine: pyengine without --native"
        )
    release = os.uname().release
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if version < _KERNEL_MIN:
        raise NotSupported(f"kernel {release} is too old: mount_setattr needs 5.12")
