"""The images of one engine: load, pull, list, tag, inspect, remove.

Methods that change anything are coroutines; what only looks is synchronous and
answers from memory, so that creating a container waits for no disk.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.base.database import Database
from engine.base.errors import EngineError, InvalidArgument, NotFound
from engine.base.ids import short
from engine.base.paths import Root
from engine.images import progress, removal, view
from engine.images.archive import Archive, ArchivedImage
from engine.images.documents import parse_platform
from engine.images.intake import Intake
from engine.images.library import Library
from engine.images.limits import DEFAULT, Limits, bounded_by_disk
from engine.images.model import Image, ImageUse, RegistryAuth
from engine.images.operation import Operation, StreamSource
from engine.images.platforms import host_platform
from engine.images.progress import Progress
from engine.snapshots.model import Snapshotter
from engine.spec import reference

log = logging.getLogger(__name__)

Objects = list[dict[str, Any]]
InUse = Callable[[str], Sequence[ImageUse]]  # image id -> containers that use it
Emit = Callable[[str, str, str], None]  # ("pull"|"load"|"tag"|"untag"|"delete", image id, familiar name)
_CHUNK_BYTES = 1 << 20
_PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})


def _silent(_action: str, _image_id: str, _name: str) -> None:
    """Tell nobody."""


def _unused(_image_id: str) -> Sequence[ImageUse]:
    """No container uses any image."""
    return ()


class ImageService:
    """All images below one root. `open` first, `close` last."""

    def __init__(
        self,
        root: Root,
        database: Database,
        snapshotter: Snapshotter,
        *,
        emit: Emit | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        self._root = root
        self._driver = snapshotter.name
        self._library = Library(root, database, snapshotter, limits)
        self._store = self._library.store
        self._limits = limits
        self._emit = emit or _silent

    async def open(self) -> None:
        """Read what is there; remove what an interrupted load or pull left behind."""
        await self._library.open()

    async def close(self) -> None:
        """Release what `open` took; loads and pulls must have ended."""

    # looking

    def resolve(self, name: str) -> Image:
        """Return the image that `name` means: a tag, ``name@digest``, an id or the start of one.

        Raises:
            NotFound: kind ``image``; `name` of the error is as docker writes
                it (``busybox:latest``): "No such image: " + err.name.
            InvalidArgument: not a reference, or the start of several ids.
        """
        return self._store.resolve(name)[0]

    def all(self) -> list[Image]:
        """Return every image, in no order."""
        found = [self._store.get(record.id) for record in self._store.records()]
        return [image for image in found if image is not None]

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> Objects:
        """Return docker's ImageSummary of each image, newest first.

        `filters`: ``reference``, ``dangling``, ``label``, ``before``,
        ``since``, ``until``; the values of one are alternatives (labels: all
        must match).

        Raises:
            InvalidArgument: an unknown filter, or a bad value.
            NotFound: the image of ``before`` or ``since``.
        """
        return view.select(self.all(), filters or {}, self.resolve)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return docker's ImageInspect. Raises as `resolve` does."""
        image = self.resolve(name)
        return view.details(image, driver=self._driver, tagged_ns=self._store.tagged_ns(image.id))

    def history(self, name: str) -> Objects:
        """Return docker's HistoryResponseItem of each step, newest first. Raises as `resolve` does."""
        image = self.resolve(name)
        return view.history(image, [self._library.layer_size(chain_id) for chain_id in image.chain_ids])

    # bringing in

    def load(self, stream: AsyncIterator[bytes], *, quiet: bool = False) -> AsyncIterator[Progress]:
        """Take in an archive: docker's or an OCI layout; plain or compressed; any number of images.

        Yields docker's progress objects. A failure before the first object is
        raised; a later one is the last object (``errorDetail``). Either way
        nothing of the archive is left.

        Raises:
            InvalidArgument: ``invalid image archive: ...``
            OutOfSpace, NotSupported: as they say.
        """
        operation = Operation()

        async def work(operation: Operation) -> None:
            with self._library.staged() as intake:
                source = operation.source(stream)
                images = await asyncio.to_thread(self._receive, operation, intake, source, quiet)
                operation.check()
                await self._library.publish(intake, images)
            for image in images:
                self._tell_loaded(operation, image)

        return operation.stream(work)

    def _receive(
        self, operation: Operation, intake: Intake, source: StreamSource, quiet: bool
    ) -> Sequence[ArchivedImage]:
        archive = Archive(intake, self._limits)
        try:
            archive.receive(source, bounded_by_disk(self._limits.archive_bytes, self._root.tmp))
            images = archive.plan(host_platform())
            for image in images:
                self._library.unpack(intake, image, _reporter(operation, image, quiet=quiet))
        except InvalidArgument as err:
            raise InvalidArgument(f"invalid image archive: {err}", hint=err.hint) from err
        return images

    def _tell_loaded(self, operation: Operation, image: ArchivedImage) -> None:
        for name in image.names:
            self._emit("load", image.id, name.familiar)
            operation.report(progress.stream(f"Loaded image: {name.familiar}\n"))
        if not image.names:
            self._emit("load", image.id, "")
            operation.report(progress.stream(f"Loaded image ID: {image.id}\n"))

    def pull(
        self, name: str, *, platform: str = "", auth: RegistryAuth | None = None
    ) -> AsyncIterator[Progress]:
        """Fetch an image from its registry; `platform` is ``os/arch[/variant]``, empty: this machine's.

        Yields and fails as `load` does.

        Raises:
            NotFound, Denied: the registry's answer, in docker's words (`str(err)` is the message).
            Unavailable: the registry cannot be reached.
            InvalidArgument: bad reference, platform, manifest or layer.
        """
        wanted = reference.parse(name).with_default_tag()
        target = parse_platform(platform) if platform else host_platform()

        async def work(operation: Operation) -> None:
            # Here, because most engines never pull, and TLS and HTTP cost megabytes and half a second.
            from engine.images.pull import Pull  # noqa: PLC0415

            with self._library.staged() as intake:
                pull = Pull(self._library, intake, operation, wanted, target, auth or RegistryAuth())
                image = await pull.run()
                self._emit("pull", image, wanted.familiar)

        return Operation().stream(work)

    async def preload(self, path: Path) -> tuple[str, ...]:
        """Load the archive `path`, or each (``*.tar*``) in that directory, that was not loaded before.

        An archive is known by its name, size and time, so that an image that
        the user removed stays removed. A bad archive is logged and skipped.

        Returns:
            The familiar names of what was loaded now.
        """
        loaded: list[str] = []
        for file, key in await asyncio.to_thread(_archives, path):
            if self._store.was_preloaded(key):
                continue
            failure = ""
            try:
                async for item in self.load(_file_chunks(file), quiet=True):
                    failure = str(item.get("error", ""))
                    loaded.append(str(item.get("stream", "")).partition(": ")[2].strip())
            except EngineError as err:
                failure = str(err)
            if failure:
                log.error("preload %s: %s", file, failure)
            else:
                await self._store.note_preloaded(key)
        return tuple(name for name in loaded if name)

    # changing

    async def tag(self, source: str, target: str) -> None:
        """Let `target` mean the image that `source` means, whatever it meant before.

        Raises:
            NotFound, InvalidArgument: as `resolve`; also for a target with a digest.
        """
        image = self.resolve(source)
        name = reference.parse(target)
        if name.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        name = name.with_default_tag()
        if not await self._library.name([name], image.id):
            raise NotFound("image", source)  # it was removed while this waited
        self._emit("tag", image.id, name.familiar)

    async def remove(
        self, name: str, *, force: bool = False, prune: bool = True, in_use: InUse = _unused
    ) -> Objects:
        """Untag `name`, and delete the image when that was its last name.

        `prune` is docker's and has no meaning here: layers that nobody needs always go.

        Returns:
            Docker's answer: ``{"Untagged": ...}`` and ``{"Deleted": ...}``, in order.

        Raises:
            NotFound, InvalidArgument: as `resolve`.
            Conflict: in docker's words ("conflict: unable to delete ...").
        """
        del prune
        if damaged := self._store.broken(name):
            await self._library.delete(damaged)
            self._emit("delete", damaged, damaged)
            return [{"Deleted": damaged}]
        image, matched = self._store.resolve(name)
        names = self._store.references(image.id)
        plan = removal.plan(image, matched, names, in_use(image.id), force=force)
        return (await self._carry_out(image, plan))[0]

    async def _carry_out(self, image: Image, plan: removal.Removal) -> tuple[Objects, int]:
        """Return docker's answer, and the bytes that are free now."""
        answer: Objects = [{"Untagged": name.familiar} for name in plan.untag]
        freed = 0
        if plan.delete:
            layers, freed = await self._library.delete(image.id)
            answer += [{"Deleted": image.id}, *({"Deleted": layer} for layer in layers)]
        else:
            await self._store.untag(plan.untag)
        for name in plan.untag:
            self._emit("untag", image.id, name.familiar)
        if plan.delete:
            self._emit("delete", image.id, image.id)
        return answer, freed

    async def prune(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, in_use: InUse = _unused
    ) -> dict[str, Any]:
        """Remove unused images; answer docker's ``{"ImagesDeleted": [...], "SpaceReclaimed": n}``.

        By default only those without a tag; all unused with ``dangling=false``.
        """
        chosen = dict(filters or {})
        if unknown := set(chosen) - _PRUNE_FILTERS:
            raise InvalidArgument(f"invalid filter '{min(unknown)}'")
        if view.boolean("dangling", chosen.pop("dangling", ["true"])):
            chosen["dangling"] = ["true"]
        deleted: Objects = []
        reclaimed = 0
        for found in view.select(self.all(), chosen, self.resolve):
            image = self._store.get(found["Id"])
            if image is None or in_use(image.id):
                continue
            names = tuple(self._store.references(image.id))
            answer, freed = await self._carry_out(image, removal.Removal(names, delete=True))
            deleted += answer
            reclaimed += freed
        return {"ImagesDeleted": deleted or None, "SpaceReclaimed": reclaimed}


def _reporter(operation: Operation, image: ArchivedImage, *, quiet: bool) -> Callable[[int], None]:
    """Return what is told how far a layer was read; it also ends the work of a client that has gone."""
    last = 0

    def step(count: int) -> None:
        nonlocal last
        operation.check()
        if not quiet and (count - last >= _CHUNK_BYTES or count < last):
            last = count
            operation.report(progress.advance("Loading layer", short(image.id), count, 0))

    return step


def _archives(path: Path) -> list[tuple[Path, str]]:
    """Return the archives at `path` with what each is known by."""
    files = sorted(path.glob("*.tar*")) if path.is_dir() else [path]
    statuses = [(file, file.stat()) for file in files]
    return [(file, f"{file.name} {status.st_size} {status.st_mtime_ns}") for file, status in statuses]


async def _file_chunks(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(open, path, "rb")
    with file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk
