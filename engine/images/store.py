"""Which images there are and what they are called: rows in the database, mirrored in memory.

The database is the truth about names. What an image is made of is in its
manifest and configuration, which are blobs; both are read once, at start, and
kept, so that looking something up waits for nothing.

Every change is one transaction; the mirror follows after its commit, in a step
of its own that a cancelled caller does not cut off.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from engine.base.database import Database
from engine.base.errors import EngineError, InvalidArgument, NotFound
from engine.base.ids import is_id
from engine.images.content import ContentStore
from engine.images.documents import parse_config, parse_image_manifest
from engine.images.limits import Limits
from engine.images.model import Image
from engine.spec import digest as digests
from engine.spec import reference
from engine.spec.distribution import Manifest
from engine.spec.image import ImageConfig
from engine.spec.reference import Reference

log = logging.getLogger(__name__)

_MIGRATIONS = (
    """
    CREATE TABLE image (
        id TEXT PRIMARY KEY,
        manifest TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        added_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE image_reference (
        reference TEXT PRIMARY KEY,
        image_id TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
        updated_ns INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE image_preload (archive TEXT PRIMARY KEY) STRICT
    """,
    # Its one row says that the tables are the whole truth; without it the blobs are searched for images.
    "CREATE TABLE image_complete (one INTEGER PRIMARY KEY CHECK (one = 1)) STRICT",
)


@dataclass(frozen=True, slots=True)
class Record:
    """One image as the store keeps it."""

    id: str
    config: ImageConfig
    manifest_digest: str
    manifest: Manifest
    size_bytes: int
    added_ns: int

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """The layers, bottom first, each with all below it."""
        return digests.chain_ids(self.config.diff_ids)

    @property
    def blobs(self) -> tuple[str, ...]:
        """Digests of everything in the content store that belongs to it."""
        layers = (layer.digest for layer in self.manifest.layers)
        return (self.id, self.manifest_digest, *layers)


class ImageStore:
    """The images of one engine. Changes are coroutines of one event loop; look-ups are plain."""

    def __init__(self, database: Database, content: ContentStore, limits: Limits) -> None:
        self._database = database
        self._content = content
        self._limits = limits
        self._records: dict[str, Record] = {}
        self._references: dict[str, tuple[Reference, str, int]] = {}  # name -> (parsed, image id, updated)
        self._preloaded: set[str] = set()
        self._broken: set[str] = set()
        self._images: dict[str, Image] = {}

    def open(self) -> None:
        """Make the tables and read everything; an image with a damaged blob is left out, and logged."""
        self._database.migrate("images", _MIGRATIONS)
        for image_id, manifest, size_bytes, added_ns in self._database.read("SELECT * FROM image"):
            try:
                self._records[image_id] = self.read_record(image_id, manifest, size_bytes, added_ns)
            except EngineError as err:
                self.leave_out(image_id, str(err))
        for name, image_id, updated_ns in self._database.read("SELECT * FROM image_reference"):
            self._references[name] = (reference.parse(name), image_id, updated_ns)
        self._preloaded = {row[0] for row in self._database.read("SELECT archive FROM image_preload")}

    @property
    def is_complete(self) -> bool:
        """Whether the tables are the whole truth; not so after the database was lost."""
        return bool(self._database.read("SELECT 1 FROM image_complete"))

    async def complete(self, records: Iterable[Record]) -> None:
        """Add what was found among the blobs, and say that this is all: one transaction."""
        await self.add(records, (), complete=True)

    def leave_out(self, image_id: str, reason: str) -> None:
        """Treat an image as not there until it is loaded or pulled again."""
        log.warning("image %s is left out: %s", image_id, reason)
        self._broken.add(image_id)
        self._records.pop(image_id, None)
        self._images.clear()

    def read_record(self, image_id: str, manifest_digest: str, size_bytes: int, added_ns: int) -> Record:
        """Return an image from its blobs.

        Raises:
            Damaged: one of its documents is missing or altered.
        """
        limit = self._limits.document_bytes
        manifest = parse_image_manifest(self._content.read(manifest_digest, limit), None, self._limits)
        if not isinstance(manifest, Manifest) or manifest.config.digest != image_id:
            raise InvalidArgument(f"manifest {manifest_digest} is not of image {image_id}")
        config = parse_config(self._content.read(image_id, limit), self._limits)
        return Record(image_id, config, manifest_digest, manifest, size_bytes, added_ns)

    # looking up

    @property
    def has_broken(self) -> bool:
        """Whether some image could not be read, so that nobody knows what belongs to it."""
        return bool(self._broken)

    def records(self) -> Iterator[Record]:
        """Yield every image, in no order."""
        yield from self._records.values()

    def get(self, image_id: str) -> Image | None:
        """Return the image with the whole id `image_id`."""
        if image_id not in self._images and (record := self._records.get(image_id)):
            self._images[image_id] = self._image(record)
        return self._images.get(image_id)

    def record(self, image_id: str) -> Record:
        """Return the record of an image that exists."""
        return self._records[image_id]

    def references(self, image_id: str) -> list[Reference]:
        """Return every name of an image, sorted."""
        found = [parsed for parsed, owner, _ in self._references.values() if owner == image_id]
        return sorted(found, key=str)

    def tagged_ns(self, image_id: str) -> int:
        """Return when the image was given a name last; 0: never."""
        return max((ns for _, owner, ns in self._references.values() if owner == image_id), default=0)

    def owner(self, name: Reference) -> str:
        """Return the id of the image that is called exactly `name`, or nothing."""
        found = self._references.get(str(name))
        return found[1] if found and found[1] in self._records else ""

    def broken(self, name: str) -> str:
        """Return the id of the left-out image that `name` means, a whole id or a reference; or nothing."""
        if name in self._broken:
            return name
        with contextlib.suppress(InvalidArgument):
            found = self._references.get(str(reference.parse(name).with_default_tag()))
            if found and found[1] in self._broken:
                return found[1]
        return ""

    def was_preloaded(self, archive: str) -> bool:
        """Tell whether an archive of this description was loaded at some start before."""
        return archive in self._preloaded

    def resolve(self, name: str) -> tuple[Image, Reference | None]:
        """Return the image that `name` means, and the reference that matched (None: an id did).

        Raises:
            NotFound: there is none.
            InvalidArgument: not a reference, or the start of several ids.
        """
        whole = f"sha256:{name}" if is_id(name) else name
        if digests.is_digest(whole):
            image = self.get(whole)
            if image is None:
                raise NotFound("image", whole)
            return image, None
        parsed = self._parse(name)
        if parsed is not None:
            key = parsed.with_digest(parsed.digest) if parsed.digest else parsed.with_default_tag()
            if image := self.get(self.owner(key)):
                return image, key
        if image := self._by_prefix(name):
            return image, None
        if parsed is None:
            raise InvalidArgument("invalid reference format")
        raise NotFound("image", parsed.with_default_tag().familiar)

    def _parse(self, name: str) -> Reference | None:
        if name.startswith("sha256:"):
            return None
        return reference.parse(name)

    def _by_prefix(self, name: str) -> Image | None:
        start = name.removeprefix("sha256:")
        if not start or start.strip("0123456789abcdef"):
            return None
        found = [image_id for image_id in self._records if image_id.startswith(f"sha256:{start}")]
        if len(found) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {name}")
        return self.get(found[0]) if found else None

    def _image(self, record: Record) -> Image:
        names = self.references(record.id)
        return Image(
            id=record.id,
            config=record.config,
            diff_ids=record.config.diff_ids,
            chain_ids=record.chain_ids,
            repo_tags=tuple(name.familiar for name in names if name.tag),
            repo_digests=tuple(name.familiar for name in names if name.digest),
            size_bytes=record.size_bytes,
            created=record.config.created or "",
            manifest_digest=record.manifest_digest,
        )

    # changing

    async def add(
        self, records: Iterable[Record], names: Iterable[tuple[Reference, str]], *, complete: bool = False
    ) -> None:
        """Commit images and names together; a name that meant another image moves."""
        added = [record for record in records if record.id not in self._records]
        named = [(name, image_id, time.time_ns()) for name, image_id in names]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO image VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
                " manifest = excluded.manifest, size_bytes = excluded.size_bytes",
                [(one.id, one.manifest_digest, one.size_bytes, one.added_ns) for one in added],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO image_reference VALUES (?, ?, ?)",
                [(str(name), image_id, when) for name, image_id, when in named],
            )
            if complete:
                connection.execute("INSERT OR IGNORE INTO image_complete VALUES (1)")

        def mirror() -> None:
            for record in added:
                self._records.setdefault(record.id, record)
                self._broken.discard(record.id)
            for name, image_id, when in named:
                self._references[str(name)] = (name, image_id, when)

        await self._commit(work, mirror)

    async def untag(self, names: Iterable[Reference]) -> None:
        """Forget names; those that are gone already are ignored."""
        gone = [str(name) for name in names]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM image_reference WHERE reference = ?", [(name,) for name in gone]
            )

        def mirror() -> None:
            for name in gone:
                self._references.pop(name, None)

        await self._commit(work, mirror)

    async def delete(self, image_id: str) -> None:
        """Forget an image and its names; its blobs and layers are for the caller to sweep."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM image WHERE id = ?", (image_id,))

        def mirror() -> None:
            self._records.pop(image_id, None)
            self._broken.discard(image_id)
            for name in [name for name, entry in self._references.items() if entry[1] == image_id]:
                del self._references[name]

        await self._commit(work, mirror)

    async def note_preloaded(self, archive: str) -> None:
        """Remember that an archive of this description was loaded."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO image_preload VALUES (?)", (archive,))

        await self._commit(work, lambda: self._preloaded.add(archive))

    async def _commit(self, work: Callable[[sqlite3.Connection], None], mirror: Callable[[], None]) -> None:
        async def whole() -> None:
            await asyncio.wrap_future(self._database.write(work))
            mirror()
            self._images.clear()

        await asyncio.shield(asyncio.ensure_future(whole()))
