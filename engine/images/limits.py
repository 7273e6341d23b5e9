"""How much an image may ask of us: one table, each row with a test.

Every byte stream that an image brings has a bound on size, count and depth.
The values are far above real images and far below what hurts.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import FREE_SPACE_HINT, OutOfSpace

GIB = 1 << 30
MIB = 1 << 20
_RESERVE_PARTS = 20  # one part in twenty of the disk stays free


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds; the defaults are what the engine uses."""

    unpacked_bytes: int = 64 * GIB  # of one layer's tar, after decompression
    archive_bytes: int = 64 * GIB  # of an archive handed to `load`, after decompression
    entries: int = 2_000_000  # in one tar
    depth: int = 512  # components of one path
    path_bytes: int = 4095  # of one path or link target: PATH_MAX without its NUL
    pax_bytes: int = MIB  # of one extended header or long name
    xattrs: int = 64  # of one entry
    document_bytes: int = 4 * MIB  # of a manifest, an index or a configuration
    layers: int = 127  # docker's own bound
    descriptors: int = 1000  # in one index
    images: int = 1000  # in one archive
    window_bytes: int = 128 * MIB  # memory that a decompressor may use


DEFAULT = Limits()


def too_large(max_bytes: int, limits: Limits) -> OutOfSpace:
    """Return why no more than `max_bytes` were taken: one of `limits`, or what `bounded_by_disk` left."""
    if max_bytes < min(limits.archive_bytes, limits.unpacked_bytes):
        return OutOfSpace(
            f"no space left on device: there is room for {max_bytes} bytes", hint=FREE_SPACE_HINT
        )
    return OutOfSpace(f"unpacks to more than {max_bytes} bytes")


def bounded_by_disk(limit_bytes: int, path: Path) -> int:
    """Return `limit_bytes`, or less: what is free around `path` minus a reserve for everybody else."""
    stat = os.statvfs(path)
    free = stat.f_bavail * stat.f_frsize
    reserve = stat.f_blocks * stat.f_frsize // _RESERVE_PARTS
    return max(0, min(limit_bytes, free - min(reserve, free // 2)))
