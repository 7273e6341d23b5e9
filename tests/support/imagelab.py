"""A private image store to try things on, and a look at everything that it keeps on disk."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from engine.base.database import Database
from engine.base.paths import Root
from engine.images.limits import DEFAULT, Limits
from engine.images.service import ImageService
from engine.snapshots.overlay import OverlaySnapshotter

T = TypeVar("T")
Objects = list[dict[str, Any]]


async def chunks(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


class ImageLab:
    """One root; each `run` opens its service anew, as a restarted engine would."""

    def __init__(self, path: Path, limits: Limits = DEFAULT) -> None:
        self.root = Root(path)
        self.snapshotter = OverlaySnapshotter(self.root)
        self.events: list[tuple[str, str, str]] = []
        self._limits = limits
        path.mkdir(mode=0o700, exist_ok=True)

    def run(self, work: Callable[[ImageService], Coroutine[Any, Any, T]]) -> T:
        """Open a service, do `work` with it, close it."""

        async def whole() -> T:
            database = Database(self.root.database)
            service = ImageService(
                self.root,
                database,
                self.snapshotter,
                emit=lambda *event: self.events.append(event),
                limits=self._limits,
            )
            try:
                await service.open()
                return await work(service)
            finally:
                await service.close()
                database.close()

        return asyncio.run(whole())

    def load(self, archive: bytes, *, quiet: bool = True) -> Objects:
        """Load `archive`; raises what `load` raises."""

        async def work(service: ImageService) -> Objects:
            return [item async for item in service.load(chunks(archive), quiet=quiet)]

        return self.run(work)

    def pull(self, name: str, **how: Any) -> Objects:
        """Pull `name`; raises what `pull` raises."""

        async def work(service: ImageService) -> Objects:
            return [item async for item in service.pull(name, **how)]

        return self.run(work)

    def tags(self) -> list[str]:
        """Return all names of all images."""

        async def work(service: ImageService) -> list[str]:
            return sorted(name for image in service.all() for name in image.repo_tags)

        return self.run(work)

    def layer(self, number: int = 0, name: str = "img:1") -> Path:
        """Return the directory of a layer of an image, counted from the bottom."""

        async def work(service: ImageService) -> Path:
            return self.snapshotter.layer_dirs(service.resolve(name).chain_ids)[-1 - number]

        return self.run(work)

    def stored(self) -> set[str]:
        """Return what is below blobs, layers and tmp, one level deep."""
        found: set[str] = set()
        for directory in ("blobs/sha256", "layers", "tmp"):
            path = self.root.path / directory
            found |= {f"{directory}/{name}" for name in (os.listdir(path) if path.is_dir() else ())}
        return found
