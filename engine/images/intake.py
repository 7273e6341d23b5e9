"""Blobs and layers on their way in: staged aside, then published all at once.

    ROOT/tmp/image-<random>/blobs/<n>            written and hashed
                           /layers/<chain>/diff  unpacked
        publish:  syncfs -> rename each into place -> fsync the directories
        (the image store then commits the database: now the image exists)

Whatever ends an intake before `publish` leaves only ROOT/tmp, which is
emptied at start. What ends it between `publish` and the commit leaves whole
blobs and layers that no image names; the next start removes those.
"""

import contextlib
import hashlib
import itertools
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.base import jsonio
from engine.base.atomicfile import fsync_dir
from engine.base.errors import InvalidArgument
from engine.base.paths import Root
from engine.images.content import BlobWriter, ContentStore
from engine.images.decompress import Decompressed
from engine.images.limits import Limits, bounded_by_disk
from engine.images.tarstream import TarReader
from engine.images.unpack import LayerWriter
from engine.kernel.system import syncfs
from engine.snapshots import trees

TMP_PREFIX = "image-"
_DIR_MODE = 0o700
_READ_BYTES = 1 << 20
_DIFF_MODE = 0o755  # of a layer's root that no entry describes

Step = Callable[[int], None]  # told how many bytes were read so far; may raise to end the work


class Intake:
    """What one load or pull brings in. Synchronous; `discard` once at the end, whatever happened."""

    def __init__(self, root: Root, content: ContentStore, limits: Limits, guard: threading.Lock) -> None:
        """Stage below `root`; `guard` is what the sweep holds while it decides."""
        self._root = root
        self._guard = guard
        self.pinned: set[str] = set()  # blobs and layers of the store that this intake counts on
        self._content = content
        self._limits = limits
        self._path = root.tmp / f"{TMP_PREFIX}{secrets.token_hex(8)}"
        self._blobs: dict[str, Path] = {}
        self._layers: dict[str, Path] = {}
        self._numbers = itertools.count(1)
        for directory in (self._path, self._path / "blobs", self._path / "layers"):
            directory.mkdir(mode=_DIR_MODE, parents=True)

    def new_path(self) -> Path:
        """Return a path for a file that does not exist yet; safe from several threads."""
        return self._path / "blobs" / str(next(self._numbers))

    def new_blob(self) -> BlobWriter:
        """Return a writer for a blob; give its digest and path to `add_blob` if it is wanted."""
        return BlobWriter(self.new_path())

    def add_blob(self, digest: str, path: Path) -> None:
        """Stage the file `path`, which was checked to have `digest`."""
        self._blobs.setdefault(digest, path)

    def add_bytes(self, data: bytes) -> str:
        """Stage a document and return its digest."""
        writer = self.new_blob()
        try:
            writer.write(data)
        finally:
            digest = writer.close()
        self.add_blob(digest, writer.path)
        return digest

    def blob_path(self, digest: str) -> Path:
        """Return where the blob is now: staged, or in the store."""
        return self._blobs.get(digest) or self._content.path(digest)

    def has_layer(self, chain_id: str) -> bool:
        """Tell whether the layer is staged or in the store; from now on it stays there."""
        if chain_id in self._layers:
            return True
        with self._guard:
            self.pinned.add(chain_id)
            return has_layer(self._root, chain_id)

    def has_blob(self, digest: str, size_bytes: int) -> bool:
        """Tell whether the blob is in the store with that size; from now on it stays there."""
        with self._guard:
            self.pinned.add(digest)
            try:
                return os.stat(self._content.path(digest)).st_size == size_bytes
            except FileNotFoundError:
                return False

    def unpack(self, blob: Path, diff_id: str, chain_id: str, step: Step) -> None:
        """Unpack the layer archive `blob` and stage the result.

        Raises:
            InvalidArgument: it is damaged or hostile, or is not what `diff_id` says.
            OutOfSpace: it is larger than the limit or the disk allows.
        """
        target = self._path / "layers" / chain_id.removeprefix("sha256:")
        diff = target / "diff"
        target.mkdir(mode=_DIR_MODE)
        diff.mkdir(mode=_DIFF_MODE)
        os.chmod(diff, _DIFF_MODE)  # the umask is the daemon's, the mode the image's
        size_bytes = self._unpack_into(blob, diff, diff_id, step)
        meta = {"chain_id": chain_id, "diff_id": diff_id, "size_bytes": size_bytes}
        (target / "meta.json").write_bytes(jsonio.encode(meta))
        self._layers[chain_id] = target

    def check(self, digest: str, diff_id: str, step: Step) -> None:
        """Check a staged blob of a layer that is unpacked already, from another blob.

        Raises:
            InvalidArgument: it is damaged, or is not what `diff_id` says.
        """
        if digest in self._blobs:
            with self._opened(self._blobs[digest], diff_id, self._limits.unpacked_bytes, step) as plain:
                while plain.read(_READ_BYTES):
                    pass

    def _unpack_into(self, blob: Path, diff: Path, diff_id: str, step: Step) -> int:
        limit = bounded_by_disk(self._limits.unpacked_bytes, diff)
        root_fd = os.open(diff, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with self._opened(blob, diff_id, limit, step) as plain:
                reader = TarReader(plain, self._limits)
                with LayerWriter(root_fd, self._limits) as writer:
                    for entry in reader:
                        writer.write(entry, reader)
                    reader.finish()
                    writer.finish()
        finally:
            os.close(root_fd)
        return writer.size_bytes

    @contextlib.contextmanager
    def _opened(self, blob: Path, diff_id: str, limit: int, step: Step) -> Iterator[Decompressed]:
        """Give the plain bytes of a layer, to be read to their end; then they must be what `diff_id` says."""
        digest = hashlib.sha256()
        with open(blob, "rb", buffering=0) as file:
            yield Decompressed(_Counted(file.read, step), limit, self._limits, digest=digest)
        actual = f"sha256:{digest.hexdigest()}"
        if actual != diff_id:
            raise InvalidArgument(f"layer is {actual}, the configuration says {diff_id}")

    def layer_size(self, chain_id: str) -> int:
        """Return the bytes of all files in a layer that is staged or in the store."""
        return layer_size(self._layers.get(chain_id) or _layer_path(self._root, chain_id))

    def publish(self) -> None:
        """Make everything staged durable and give it its name; a layer that is there already stays."""
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)
        blobs = [(path, self._content.path(digest)) for digest, path in self._blobs.items()]
        layers = [(path, _layer_path(self._root, chain_id)) for chain_id, path in self._layers.items()]
        parents = {target.parent for _, target in (*blobs, *layers)}
        for parent in parents:
            make_durable_dir(parent)
        for path, target in blobs:
            os.replace(path, target)  # the same bytes, unless the old ones were damaged
        for path, target in layers:
            if not os.path.lexists(target):
                os.rename(path, target)
        for parent in parents:
            fsync_dir(parent)
        self._blobs.clear()  # from now on they are where everybody looks
        self._layers.clear()

    def discard(self) -> None:
        """Remove what was staged and not published."""
        trees.remove(self._path)


class _Counted:
    """A source that reports how far it was read."""

    def __init__(self, read: Callable[[int], bytes], step: Step) -> None:
        self._read = read
        self._step = step
        self._count = 0

    def read(self, size: int, /) -> bytes:
        data = self._read(size)
        self._count += len(data)
        self._step(self._count)
        return data


def has_layer(root: Root, chain_id: str) -> bool:
    """Tell whether the unpacked layer is in the store."""
    return (_layer_path(root, chain_id) / "diff").is_dir()


def layer_size(path: Path) -> int:
    """Return the bytes of all files in the layer at `path`, as noted when it was unpacked."""
    meta = jsonio.read(path / "meta.json", dict[str, object])
    size = meta.get("size_bytes")
    return size if isinstance(size, int) else 0


def make_durable_dir(path: Path) -> None:
    """Make the directory `path` and its parents, each with a durable name."""
    if not path.is_dir():
        make_durable_dir(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=_DIR_MODE)
        fsync_dir(path.parent)


def _layer_path(root: Root, chain_id: str) -> Path:
    return root.layer(chain_id.removeprefix("sha256:"))
