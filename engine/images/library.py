"""The images of one root with their blobs and layers: what is added together, swept and rebuilt."""

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Sequence

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

    async def open(self) -> None:
        """Read the database; rebuild it from the blobs when it is empty; sweep what nobody names."""
        self.root.tmp.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in os.listdir(self.root.tmp):
            if name.startswith(intakes.TMP_PREFIX):
                trees.remove(self.root.tmp / name)
        self.store.open()
        if not any(True for _ in self.store.records()) and not self.store.has_broken:
            await self._rebuild()
        await self.sweep()

    def new_intake(self) -> Intake:
        """Return a place to stage what comes in."""
        return Intake(self.root, self.content, self.limits)

    def unpack(self, intake: Intake, image: ArchivedImage, step: Step) -> None:
        """Unpack the layers of `image` that are not there yet; in a worker thread."""
        diff_ids = image.config.diff_ids
        layers = zip(diff_ids, digests.chain_ids(diff_ids), image.layer_digests, strict=True)
        for diff_id, chain_id, blob in layers:
            if not intake.has_layer(chain_id):
                intake.unpack(intake.blob_path(blob), diff_id, chain_id, step)

    async def publish(
        self, intake: Intake, images: Sequence[ArchivedImage], extra: Iterable[tuple[Reference, str]] = ()
    ) -> None:
        """Make staged images durable, then known, under their names and the `extra` ones."""
        async with self._lock:
            await asyncio.to_thread(intake.publish)
            records = [self._record(intake, image) for image in images]
            names = [(name, image.id) for image in images for name in image.names]
            await self.store.add(records, [*names, *extra])

    def _record(self, intake: Intake, image: ArchivedImage) -> Record:
        size = sum(intake.layer_size(chain_id) for chain_id in set(digests.chain_ids(image.config.diff_ids)))
        return self.store.read_record(image.id, image.manifest_digest, size, time.time_ns())

    async def delete(self, image_id: str) -> list[str]:
        """Forget an image; return the layers (chain ids) that went with it."""
        async with self._lock:
            before = set(self.store.record(image_id).chain_ids)
            await self.store.delete(image_id)
            gone = await asyncio.to_thread(self._sweep_now)
        return sorted(before & gone)

    async def sweep(self) -> None:
        """Remove blobs and layers that belong to no image and no snapshot."""
        async with self._lock:
            await asyncio.to_thread(self._sweep_now)

    def _sweep_now(self) -> set[str]:
        if self.store.has_broken:
            return set()  # nobody knows what belongs to a record that cannot be read
        try:
            kept_layers = set(self._snapshotter.pinned_layers())
        except EngineError as err:
            log.warning("layers are not swept: %s", err)
            return set()
        kept_blobs: set[str] = set()
        for record in list(self.store.records()):
            kept_blobs.update(record.blobs)
            kept_layers.update(record.chain_ids)
        for blob in [blob for blob in self.content.all() if blob not in kept_blobs]:
            self.content.path(blob).unlink(missing_ok=True)
        return self._sweep_layers(kept_layers)

    def _sweep_layers(self, kept: set[str]) -> set[str]:
        directory = self.root.layer("x").parent
        gone: set[str] = set()
        if not directory.is_dir():
            return gone
        for name in os.listdir(directory):
            if f"sha256:{name}" in kept:
                continue
            # Renamed first: a layer that is there is whole, also when this is interrupted.
            aside = self.root.tmp / f"{intakes.TMP_PREFIX}gone-{name}"
            os.rename(directory / name, aside)
            trees.remove(aside)
            gone.add(f"sha256:{name}")
        return gone

    async def _rebuild(self) -> None:
        """Find images by their manifests, for a database that was lost; their names are lost with it."""
        found: dict[str, Record] = {}
        for digest in self.content.all():
            record = self._record_of(digest)
            if record is not None:
                found[record.id] = record
        if found:
            log.warning("found %d images without a record; their names are lost", len(found))
            await self.store.add(found.values(), ())

    def _record_of(self, digest: str) -> Record | None:
        try:
            data = self.content.read(digest, self.limits.document_bytes)
            manifest = parse_image_manifest(data, None, self.limits)
            if not isinstance(manifest, Manifest):
                return None
            record = self.store.read_record(manifest.config.digest, digest, 0, time.time_ns())
            layers = [self.root.layer(chain.removeprefix("sha256:")) for chain in record.chain_ids]
            size = sum(intakes.layer_size(path) for path in set(layers))
        except (EngineError, OSError):
            return None
        return Record(record.id, record.config, digest, record.manifest, size, record.added_ns)
