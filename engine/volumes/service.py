"""Named and anonymous local volumes.

The directories are the truth; the service holds what it read of them. What
touches a disk runs in a thread, under the volume's own lock.
"""

import asyncio
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from engine.base.errors import Conflict, NotFound, NotSupported, OutOfSpace
from engine.base.ids import new_id
from engine.base.paths import Root
from engine.volumes import filters as volume_filters
from engine.volumes.filters import LIST_FILTERS, PRUNE_FILTERS, Filters
from engine.volumes.model import ANONYMOUS_LABEL, Volume, check_name
from engine.volumes.store import VolumeStore, remove_tree, timestamp

T = TypeVar("T")

InUse = Callable[
    [str], Sequence[str]
]  # name of a volume -> ids of the containers, also stopped, that mount it


Emit = Callable[[str, str], None]  # what happened, name of the volume


def _silent(_action: str, _name: str) -> None:
    pass


def _nobody(_name: str) -> Sequence[str]:
    return ()


class VolumeService:
    """The volumes under ROOT/volumes; answers are docker-shaped dicts."""

    def __init__(self, root: Root, *, emit: Emit | None = None) -> None:
        """Remember where; `open` does the work. `emit` gets "create" and "destroy" when they are done."""
        self._store = VolumeStore(root)
        self._emit = emit or _silent
        self._volumes: dict[str, Volume] = {}
        # A lock lives as long as somebody holds or awaits it.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def open(self) -> None:
        """Read every volume; finish or undo what a crash interrupted; rebuild a damaged `meta.json`."""
        self._volumes = await asyncio.to_thread(self._store.load)

    async def close(self) -> None:
        """Nothing is held open; here for symmetry."""

    async def create(
        self,
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return the volume `name` as docker shows it, made durable if it was not there.

        As docker does, a name that exists is returned as it is. None or ""
        makes an anonymous volume.

        Raises:
            InvalidArgument: the name breaks docker's grammar.
            NotFound: "volume driver".
            NotSupported: `driver_opts`.
            OutOfSpace: the disk is full.
        """
        if driver not in {"", "local"}:
            raise NotFound("volume driver", driver, hint="the only driver is local")
        if driver_opts:
            raise NotSupported(f"volume driver options are not supported: {', '.join(sorted(driver_opts))}")
        all_labels = dict(labels or {})
        if not name:
            name = new_id()
            all_labels[ANONYMOUS_LABEL] = ""
        async with self._lock(check_name(name)):
            if name not in self._volumes:
                volume = Volume(name, timestamp(time.time()), all_labels)
                await _on_disk(self._store.create, volume)
                self._volumes[name] = volume
                self._emit("create", name)
        return self.get(name)

    def get(self, name: str) -> dict[str, Any]:
        """Return one volume.

        Raises:
            NotFound: "volume".
        """
        return self._volume(name).document(self._store.data(name))

    def list(self, filters: Filters | None = None, *, in_use: InUse = _nobody) -> list[dict[str, Any]]:
        """Return the volumes that pass docker's filters name, label, driver and dangling.

        Raises:
            InvalidArgument: an unknown filter or a malformed `dangling`.
        """
        filters = filters or {}
        volume_filters.check(filters, LIST_FILTERS)
        return [
            self.get(name)
            for name, volume in sorted(self._volumes.items())
            if volume_filters.matches(volume, filters, used=in_use)
        ]

    async def remove(self, name: str, *, force: bool = False, in_use: InUse = _nobody) -> None:
        """Remove a volume and what is in it.

        Raises:
            NotFound: "volume"; not with `force`.
            Conflict: a container uses it; docker's text.
        """
        async with self._lock(name):
            if force and name not in self._volumes:
                return
            self._volume(name)
            if users := in_use(name):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            await self._remove(name)

    async def prune(self, filters: Filters | None = None, *, in_use: InUse) -> dict[str, Any]:
        """Remove the volumes that no container uses: anonymous ones, or with the filter all=true each.

        Returns:
            {"VolumesDeleted": [names], "SpaceReclaimed": bytes}

        Raises:
            InvalidArgument: an unknown or malformed filter.
        """
        filters = filters or {}
        volume_filters.check(filters, PRUNE_FILTERS)
        everything = volume_filters.flag(filters, "all")
        deleted = []
        freed = 0
        for name, volume in sorted(self._volumes.items()):
            if not (everything or volume.anonymous):
                continue
            async with self._lock(name):
                # Asked under the lock: a container may have been created since the last one was removed.
                wanted = volume_filters.matches(volume, filters, used=_nobody)
                if wanted and name in self._volumes and not in_use(name):
                    freed += await self._remove(name)
                    deleted.append(name)
        return {"VolumesDeleted": deleted, "SpaceReclaimed": freed}

    def source_path(self, name: str) -> Path:
        """Return the directory to mount.

        Raises:
            NotFound: "volume".
        """
        self._volume(name)
        return self._store.data(name)

    async def populate(self, name: str, layers: Sequence[Path], path: str) -> bool:
        """Copy what the image has at `path` into the volume, if the volume is empty.

        Args:
            name: of the volume.
            layers: the diff directories, lowest first, as overlayfs has them
                (whiteouts are 0/0 character devices; opaque directories carry
                trusted.overlay.opaque).
            path: absolute, in the image; symbolic links are followed inside the image only.

        Returns:
            Whether anything was copied; False when the volume has content, or
            the image has no directory there.

        Raises:
            NotFound: "volume".
            OutOfSpace: the disk is full; the volume is empty as before.
        """
        async with self._lock(name):
            self._volume(name)
            return await _on_disk(self._populate, name, layers, path)

    def is_empty(self, name: str) -> bool:
        """Tell whether the volume has no entry.

        Raises:
            NotFound: "volume".
        """
        self._volume(name)
        return self._store.is_empty(name)

    def _populate(self, name: str, layers: Sequence[Path], path: str) -> bool:
        return self._store.is_empty(name) and self._store.populate(name, layers, path)

    async def _remove(self, name: str) -> int:
        gone = await _on_disk(self._store.take_away, name)
        del self._volumes[name]
        self._emit("destroy", name)
        return await _on_disk(remove_tree, gone)

    def _volume(self, name: str) -> Volume:
        try:
            return self._volumes[name]
        except KeyError:
            raise NotFound("volume", name) from None

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


async def _on_disk(work: Callable[..., T], *args: object) -> T:
    """Run `work` in a thread to its end, also when cancelled; a full disk is the caller's error."""
    job = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait([job])
        raise
    except OSError as err:
        full = OutOfSpace.of(err, "volumes")
        if full is not None:
            raise full from err
        raise
