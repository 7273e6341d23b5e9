"""What all parts of the container service share: the containers in memory and the services below.

For the event loop only; nothing here waits.
"""

import asyncio  # noqa: TC003 (dataclass fields)
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.base.errors import InvalidArgument, NotFound
from engine.base.paths import Root, Run
from engine.containers.events import EventBus
from engine.containers.live import Container
from engine.containers.runtimes import INSTALLED, Runtimes
from engine.containers.shims import Shims
from engine.containers.store import ContainerStore
from engine.images.service import ImageService
from engine.networks.service import NetworkService
from engine.snapshots.model import Snapshotter
from engine.volumes.service import VolumeService

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Core:
    """The state of the container service."""

    root: Root
    run: Run
    store: ContainerStore
    images: ImageService
    snapshotter: Snapshotter
    networks: NetworkService
    volumes: VolumeService
    shims: Shims
    events: EventBus
    containers: dict[str, Container] = field(default_factory=dict)  # by id, oldest first
    names: dict[str, str] = field(default_factory=dict)  # name -> id
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    runtimes: Runtimes = INSTALLED
    closing: bool = False
    rebuild: bool = False  # the database was lost: rows are made again from the directories

    def find(self, name: str) -> Container:
        """Return the container with this id, name, or start of an id.

        Raises:
            NotFound: kind "container".
            InvalidArgument: it is the start of several ids.
        """
        bare = name.removeprefix("/")
        container = self.containers.get(bare) or self.containers.get(self.names.get(bare, ""))
        if container is not None:
            return container
        found = [one for one in self.containers.values() if bare and one.id.startswith(bare)]
        if len(found) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {bare}")
        if not found:
            raise NotFound("container", name)
        return found[0]

    def add(self, container: Container) -> None:
        """Let it be found."""
        self.containers[container.id] = container
        self.names[container.name] = container.id

    def drop(self, container: Container) -> None:
        """Let it be found no more."""
        self.containers.pop(container.id, None)
        if self.names.get(container.name) == container.id:
            del self.names[container.name]

    def live(self) -> Iterator[Container]:
        """Yield the containers that have processes."""
        return (container for container in self.containers.values() if container.state.live)

    def publish(self, container: Container, action: str, **more: str) -> None:
        """Tell what happened to a container."""
        self.events.publish("container", action, container.id, container.attributes(**more))

    async def save(self, container: Container) -> None:
        """Make the container's state durable."""
        await self.store.save_state(container.id, container.state)

    def save_soon(self, container: Container) -> None:
        """Queue the state's commit, where the truth is also kept elsewhere (a live shim, exit.json)."""
        self.store.save_state(container.id, container.state).add_done_callback(_log_failure)

    def layers(self, container: Container) -> tuple[Path, ...]:
        """Return the directories that make up its root, topmost first, its own upper one included."""
        lower = self.snapshotter.layer_dirs(container.definition.chain_ids)
        return (self.root.container(container.id).upper, *lower)

    def begin(self, task: "asyncio.Task[None]") -> None:
        """Keep a background task until it ends; a failure is logged."""
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (err := task.exception()) is not None:
            log.error("background task failed: %s", err, exc_info=err)


def _log_failure(done: "asyncio.Future[None]") -> None:
    if not done.cancelled() and (err := done.exception()) is not None:
        log.error("state could not be saved: %s", err)
