"""The images of one engine: load, pull, list, tag, inspect, remove.

Methods that change anything are coroutines; what only looks is synchronous and
answers from memory, so that creating a container waits for no disk.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.base.database import Database
from engine.base.paths import Root
from engine.images.model import Image, ImageUse, RegistryAuth
from engine.snapshots.model import Snapshotter

Objects = list[dict[str, Any]]
Progress = dict[str, Any]  # one object of docker's progress streams
InUse = Callable[[str], Sequence[ImageUse]]  # image id -> containers that use it
Emit = Callable[[str, str, str], None]  # ("pull"|"load"|"tag"|"untag"|"delete", image id, familiar name)


class ImageService:
    """All images below one root. `open` first, `close` last."""

    def __init__(
        self, root: Root, database: Database, snapshotter: Snapshotter, *, emit: Emit | None = None
    ) -> None: ...

    async def open(self) -> None:
        """Read what is there; remove what an interrupted load or pull left behind."""
        raise NotImplementedError

    async def close(self) -> None:
        """Release what `open` took; loads and pulls must have ended."""
        raise NotImplementedError

    def resolve(self, name: str) -> Image:
        """Return the image that `name` means: a tag, ``name@digest``, an id or the start of one.

        Raises:
            NotFound: kind ``image``; `name` of the error is as docker writes
                it (``busybox:latest``): "No such image: " + err.name.
            InvalidArgument: not a reference, or the start of several ids.
        """
        raise NotImplementedError

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Objects:
        """Return docker's ImageSummary of each image, newest first.

        `filters`: ``reference``, ``dangling``, ``label``, ``before``,
        ``since``, ``until``; the values of one are alternatives (labels: all
        must match).

        Raises:
            InvalidArgument: an unknown filter, or a bad value.
            NotFound: the image of ``before`` or ``since``.
        """
        raise NotImplementedError

    def inspect(self, name: str) -> dict[str, Any]:
        """Return docker's ImageInspect. Raises as `resolve` does."""
        raise NotImplementedError

    def history(self, name: str) -> Objects:
        """Return docker's HistoryResponseItem of each step, newest first. Raises as `resolve` does."""
        raise NotImplementedError

    def load(self, stream: AsyncIterator[bytes], *, quiet: bool = False) -> AsyncIterator[Progress]:
        """Take in an archive: docker's or an OCI layout; plain or compressed; any number of images.

        Yields docker's progress objects. A failure before the first object is
        raised; a later one is the last object (``errorDetail``). Either way
        nothing of the archive is left.

        Raises:
            InvalidArgument: ``invalid image archive: ...``
            OutOfSpace, NotSupported: as they say.
        """
        raise NotImplementedError

    def pull(
        self, reference: str, *, platform: str = "", auth: RegistryAuth | None = None
    ) -> AsyncIterator[Progress]:
        """Fetch an image from its registry; `platform` is ``os/arch[/variant]``, empty: this machine's.

        Yields and fails as `load` does.

        Raises:
            NotFound, Denied: the registry's answer, in docker's words (`str(err)` is the message).
            Unavailable: the registry cannot be reached.
            InvalidArgument: bad reference, platform, manifest or layer.
        """
        raise NotImplementedError

    async def tag(self, source: str, target: str) -> None:
        """Let `target` mean the image that `source` means, whatever it meant before.

        Raises:
            NotFound, InvalidArgument: as `resolve`; also for a target with a digest.
        """
        raise NotImplementedError

    async def remove(
        self, name: str, *, force: bool = False, prune: bool = True, in_use: InUse | None = None
    ) -> Objects:
        """Untag `name`, and delete the image when that was its last name.

        Returns:
            Docker's answer: ``{"Untagged": ...}`` and ``{"Deleted": ...}``, in order.

        Raises:
            NotFound, InvalidArgument: as `resolve`.
            Conflict: in docker's words ("conflict: unable to delete ...").
        """
        raise NotImplementedError

    async def prune(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, in_use: InUse | None = None
    ) -> dict[str, Any]:
        """Remove unused images; answer docker's ``{"ImagesDeleted": [...], "SpaceReclaimed": n}``.

        By default only those without a tag; all unused with ``dangling=false``.
        """
        raise NotImplementedError

    async def preload(self, directory: Path) -> tuple[str, ...]:
        """Load each archive (``*.tar``, ``*.tar.gz``...) of `directory` that was not loaded before.

        An archive is known by its name, size and time, so that an image that
        the user removed stays removed. A bad archive is logged and skipped.

        Returns:
            The familiar names of what was loaded now.
        """
        raise NotImplementedError
