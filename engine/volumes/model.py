"""A volume: a directory of its own, with a name and a `meta.json` beside it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.base.errors import InvalidArgument

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z", re.ASCII)
_NAME_MIN = 2
_NAME_MAX = 255  # of a file name


@dataclass(frozen=True, slots=True)
class Volume:
    """One local volume, as `meta.json` holds it."""

    name: str
    created_at: str  # RFC 3339, UTC
    labels: Mapping[str, str]

    @property
    def anonymous(self) -> bool:
        """Tell whether the engine made the name up."""
        return ANONYMOUS_LABEL in self.labels

    def document(self, mountpoint: Path) -> dict[str, object]:
        """Return what GET /volumes/{name} shows."""
        return {
            "CreatedAt": self.created_at,
            "Driver": "local",
            "Labels": dict(self.labels) or None,
            "Mountpoint": str(mountpoint),
            "Name": self.name,
            "Options": None,
            "Scope": "local",
        }


def check_name(name: str) -> str:
    """Return `name` if it may be a volume's.

    Raises:
        InvalidArgument: it may not; the text is docker's.
    """
    if len(name) < _NAME_MIN:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if len(name) > _NAME_MAX or not _NAME.match(name):
        shown = name[:_NAME_MAX]
        raise InvalidArgument(
            f"create {shown!r}: includes invalid characters for a local volume name, "
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )
    return name
