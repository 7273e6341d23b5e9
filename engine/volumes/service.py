"""Named and anonymous local volumes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.base.paths import Root

InUse = Callable[
    [str], Sequence[str]
]  # name of a volume -> ids of the containers (also stopped) that mount it


class VolumeService:
    """The volumes under ROOT/volumes. Object files are the truth; there is no table.

    Answers are docker-shaped dicts.
    """

    def __init__(self, root: Root) -> None:
        """Remember where; `open` does the work."""

    async def open(self) -> None:
        """Read every volume; finish or undo what a crash interrupted. An unreadable `meta.json` is rebuilt."""

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
            NotSupported: `driver_opts` that mount something.
        """
        raise NotImplementedError

    def get(self, name: str) -> dict[str, Any]:
        """Return one volume.

        Raises:
            NotFound: "volume".
        """
        raise NotImplementedError

    def list(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, in_use: InUse = lambda _name: ()
    ) -> list[dict[str, Any]]:
        """Return the volumes that pass docker's filters: name, label, label!, driver, dangling.

        Raises:
            InvalidArgument: an unknown filter or a malformed `dangling`.
        """
        raise NotImplementedError

    async def remove(self, name: str, *, force: bool = False, in_use: InUse = lambda _name: ()) -> None:
        """Remove a volume and what is in it.

        Raises:
            NotFound: "volume"; not with `force`.
            Conflict: a container uses it; docker's text.
        """

    async def prune(
        self, filters: Mapping[str, Sequence[str]] | None = None, *, in_use: InUse
    ) -> dict[str, Any]:
        """Remove the volumes that no container uses: anonymous ones, or with the filter all=true each.

        Returns:
            {"VolumesDeleted": [names], "SpaceReclaimed": bytes}
        """
        raise NotImplementedError

    def source_path(self, name: str) -> Path:
        """Return the directory to mount.

        Raises:
            NotFound: "volume".
        """
        raise NotImplementedError

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
        raise NotImplementedError

    def is_empty(self, name: str) -> bool:
        """Tell whether the volume has no entry."""
        raise NotImplementedError
