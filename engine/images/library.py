"""The images of one root with their blobs and layers: what is added together, swept and rebuilt."""

import asyncio
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engine.base.database import Database
from engine.base.errors import EngineError
from engine.base.paths import Root
from engine.images import intake as intakes
from engine.images.archive import ArchivedImage
from engine.images.content import ContentStore
from engine.images.documents import parse_image_manifest
from engine.images.intake import Intake, Step
from engine.images.limits import Limits
from engine.images.store import ImageStore, Record
from engine.snapshots import trees
from engine.snapshots.model import Snapshotter
from engine.spec import digest as digests
from engine.spec.distribution import Manifest
from engine.spec.reference import Reference

log = logging.getLogger(__name__)


class Library:
    """One lock makes publishing and sweeping exclusive: what was just published is never swept."""

    def __init__(self, root: Root, database: Database, snapshotter: Snapshotter, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self.content = ContentStore(root)
        self.store = ImageStore(database, self.content, limits)
        self._snapshotter = snapshotter
        self._lock = asyncio.Lock()
        self._guard = (
            threading.Lock()
        )  # between a sweep that decides and intakes that begin to count on things
        self._intakes: set[Intake] = set()

    async def open(self) -> None:
        """Read the database; rebuild it from the blobs when it was lost; sweep what nobody names."""
        self.root.tmp.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in os.listdir(self.root.tmp):
            if name.startswith(intakes.TMP_PREFIX):
                trees.remove(self.root.tmp / name)
        self.store.open()
        for record in list(self.store.records()):
            missing = [chain for chain in record.chain_ids if not intakes.has_layer(self.root, chain)]
            if missing:
                self.store.leave_out(record.id, f"layer {missing[0]} is missing")
        if not self.store.is_complete:
            await self._rebuild()
        await self.sweep()

    @contextlib.contextmanager
    def staged(self) -> Iterator[Intake]:
        """Give a place to stage what comes in; what was not published is removed at the end."""
        intake = Intake(self.root, self.content, self.limits, self._guard)
        self._intakes.add(intake)
        try:
            yield intake
        finally:
            self._intakes.remove(intake)
            intake.discard()

    def unpack(self, intake: Intake, image: ArchivedImage, step: Step) -> None:
        """Unpack the layers of `image` that are not there yet; in a worker thread."""
        diff_ids = image.config.diff_ids
        layers = zip(diff_ids, digests.chain_ids(diff_ids), image.layer_digests, strict=True)
        for diff_id, chain_id, blob in layers:
            if intake.has_layer(chain_id):
                intake.check(blob, diff_id, step)
            else:
                intake.unpack(intake.blob_path(blob), diff_id, chain_id, step)

    async def publish(
        self, intake: Intake, images: Sequence[ArchivedImage], extra: Iterable[tuple[Reference, str]] = ()
    ) -> None:
        """Make staged images durable, then known, under their names and the `extra` ones."""
        async with self._lock:
            try:
                await asyncio.to_thread(intake.publish)
                records = [self._record(intake, image) for image in images]
                names = [(name, image.id) for image in images for name in image.names]
                await self.store.add(records, [*names, *extra])
            except BaseException:
                intake.pinned.clear()
                await asyncio.to_thread(self._sweep_now)
                raise

    async def name(self, names: Sequence[Reference], image_id: str) -> bool:
        """Let `names` mean the image; False when it is not there any more."""
        async with self._lock:
            if self.store.get(image_id) is None:
                return False
            await self.store.add((), [(name, image_id) for name in names])
            return True

    def _record(self, intake: Intake, image: ArchivedImage) -> Record:
        size = sum(intake.layer_size(chain_id) for chain_id in set(digests.chain_ids(image.config.diff_ids)))
        return self.store.read_record(image.id, image.manifest_digest, size, time.time_ns())

    async def delete(self, image_id: str) -> tuple[list[str], int]:
        """Forget an image; return the layers (chain ids, topmost first) that went with it, and their bytes.

        Harmless when it is gone, or was left out.
        """
        async with self._lock:
            image = self.store.get(image_id)
            chain_ids = dict.fromkeys(reversed(image.chain_ids)) if image else {}
            sizes = {chain_id: self.layer_size(chain_id) for chain_id in chain_ids}
            await self.store.delete(image_id)
            gone = await asyncio.to_thread(self._sweep_now)
        layers = [chain_id for chain_id in chain_ids if chain_id in gone]
        return layers, sum(sizes[chain_id] for chain_id in layers)

    def layer_size(self, chain_id: str) -> int:
        """Return the bytes of the files in a layer; 0 when nobody noted it."""
        try:
            return intakes.layer_size(self._layer_path(chain_id))
        except (EngineError, OSError):
            return 0

    async def sweep(self) -> None:
        """Remove blobs and layers that belong to no image and no snapshot."""
        async with self._lock:
            await asyncio.to_thread(self._sweep_now)

    def _sweep_now(self) -> set[str]:
        if self.store.has_broken:
            return set()  # nobody knows what belongs to a record that cannot be read
        try:
            with self._guard:
                doomed = self._set_aside()
        except EngineError as err:
            log.warning("layers are not swept: %s", err)
            return set()
        for aside in doomed.values():
            trees.remove(aside)
        return set(doomed)

    def _set_aside(self) -> dict[str, Path]:
        """Remove needless blobs, and rename needless layers, so that a layer that is there is whole."""
        kept = set(self._snapshotter.pinned_layers())
        for intake in list(self._intakes):
            kept |= intake.pinned
        for record in list(self.store.records()):
            kept.update(record.blobs, record.chain_ids)
        for blob in [blob for blob in self.content.all() if blob not in kept]:
            self.content.path(blob).unlink(missing_ok=True)
        doomed: dict[str, Path] = {}
        for chain_id in self._layers():
            if chain_id not in kept:
                aside = self.root.tmp / f"{intakes.TMP_PREFIX}gone-{secrets.token_hex(8)}"
                os.rename(self._layer_path(chain_id), aside)
                doomed[chain_id] = aside
        # A container that was made meanwhile has noted its layers before it looked whether they are there.
        back = set(doomed)
        try:
            back &= self._snapshotter.pinned_layers()
        finally:
            for chain_id in back:
                os.rename(doomed.pop(chain_id), self._layer_path(chain_id))
        return doomed

    def _layers(self) -> list[str]:
        try:
            return [f"sha256:{name}" for name in os.listdir(self.root.layer("x").parent)]
        except FileNotFoundError:
            return []

    def _layer_path(self, chain_id: str) -> Path:
        return self.root.layer(chain_id.removeprefix("sha256:"))

    async def _rebuild(self) -> None:
        """Find images by their manifests, for a database that was lost; their names are lost with it."""
        found: dict[str, Record] = {}
        for digest in self.content.all():
            record = self._record_of(digest)
            if record is not None:
                found[record.id] = record
        if found:
            log.warning("found %d images without a record; their names are lost", len(found))
        await self.store.complete(found.values())

    def _record_of(self, digest: str) -> Record | None:
        try:
            data = self.content.read(digest, self.limits.document_bytes)
            manifest = parse_image_manifest(data, None, self.limits)
            if not isinstance(manifest, Manifest):
                return None
            record = self.store.read_record(manifest.config.digest, digest, 0, time.time_ns())
            size = sum(intakes.layer_size(self._layer_path(chain)) for chain in set(record.chain_ids))
        except (EngineError, OSError):
            return None
        return Record(record.id, record.config, digest, record.manifest, size, record.added_ns)
