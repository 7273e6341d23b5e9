"""Snapshots: the file system of a container, made from the layers of its image.

Layers are read-only and shared; `engine.images` puts them below
ROOT/layers/<chain id>/diff and never changes one after that. A snapshot is
what one container adds: a place to write, and the mounts that show it and the
layers as one tree. Its key is the container's id, its files are in the
container's directory.

    prepare(key, chain ids) ---> (mounts)     create, and again before each start
         |                          |
         |                     the runtime makes them, in the container's own
         |                     mount namespace: nothing is mounted by us, so
         |                     nothing can be left mounted
         v
    remove(key)                               once the container is gone

`prepare` is idempotent: a second call keeps what the container wrote. What it
wrote is durable when the file system says so, except for `volatile` snapshots,
which skip every sync because they end with their container.

A snapshot pins its layers until it is removed: `pinned_layers` tells the image
service what must stay although no image names it any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.spec.runtime import Mount


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container wrote."""

    size_bytes: int
    inodes: int


class Snapshotter(Protocol):
    """Makes and removes snapshots. Synchronous; safe from several threads for different keys."""

    name: str  # as `docker info` shows it: "overlay2"

    def open(self) -> None:
        """Remove what a crash left of a removal; once, before the rest."""
        ...

    def prepare(self, key: str, chain_ids: Sequence[str], *, volatile: bool = False) -> tuple[Mount, ...]:
        """Make, or find again, the snapshot `key` on top of `chain_ids` (bottom first).

        Returns:
            The mounts that show it, to be made in order; the destination is
            relative to the container's root and is ``/``.

        Raises:
            NotFound: a layer is not there.
            OutOfSpace: the disk is full; nothing is left behind.
        """
        ...

    def remove(self, key: str) -> None:
        """Remove the snapshot; harmless when it is gone. It must not be mounted any more."""
        ...

    def usage(self, key: str) -> Usage:
        """Measure what the container wrote; zeros when there is no such snapshot."""
        ...

    def layer_dirs(self, chain_ids: Sequence[str]) -> tuple[Path, ...]:
        """Return the directories of the layers, topmost first.

        They are in the form of overlayfs: a character device 0:0 hides what
        is below it, and so does a directory with ``trusted.overlay.opaque``.
        """
        ...

    def pinned_layers(self) -> frozenset[str]:
        """Return the chain ids that some snapshot still stands on."""
        ...
