"""Blobs by their digest: manifests, configurations and layers as they arrived.

A blob is a file below ROOT/blobs, complete and durable from the moment it has
its name. Its digest is checked while it is written, and for documents each
time they are read, so that a damaged disk is noticed here and not believed.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from engine.base.errors import EngineError
from engine.base.paths import Root
from engine.spec import digest as digests


class Damaged(EngineError):
    """A stored object is not what its name says."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"stored blob {name} is damaged: {reason}", hint="remove its image and pull it again"
        )


class ContentStore:
    """The blobs below one root. Synchronous; safe from several threads."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def path(self, digest: str) -> Path:
        """Return the file of a blob, whether it is there or not."""
        parsed = digests.parse(digest)
        return self._root.blob(parsed.algorithm, parsed.hexadecimal)

    def has(self, digest: str) -> bool:
        """Tell whether the blob is there."""
        return self.path(digest).is_file()

    def read(self, digest: str, limit_bytes: int) -> bytes:
        """Return a document, checked against its digest.

        Raises:
            Damaged: it is missing, larger than `limit_bytes`, or its bytes are others.
        """
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as err:
            raise Damaged(digest, (err.strerror or str(err)).lower()) from err
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit_bytes:
                raise Damaged(digest, "not a file of a document's size")
            data = file.read()
        algorithm, _, hexadecimal = digest.partition(":")
        if hashlib.new(algorithm, data).hexdigest() != hexadecimal:
            raise Damaged(digest, "its digest is another")
        return data

    def all(self) -> Iterator[str]:
        """Yield the digest of every blob, in no order."""
        for algorithm in ("sha256", "sha512"):
            directory = self._root.blob(algorithm, "x").parent
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(directory):
                    if digests.is_digest(f"{algorithm}:{name}"):
                        yield f"{algorithm}:{name}"


class BlobWriter:
    """One blob on its way in: hashes what is written to a file of the caller's choice."""

    def __init__(self, path: Path) -> None:
        """Create the file `path`, which must not exist."""
        self.path = path
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self._hash.update(data)
        self.size_bytes += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> str:
        """Close the file and return the digest of what it holds."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        return f"sha256:{self._hash.hexdigest()}"
