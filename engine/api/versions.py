"""The window of API versions, and how a path names one.

Source: Docker Engine API v1.51, "Versioning".
"""

from engine.base.errors import InvalidArgument

MINIMUM = (1, 24)
MAXIMUM = (1, 51)
_DIGITS_MAX = 4


def text(version: tuple[int, int]) -> str:
    """Return `version` as clients write it."""
    return f"{version[0]}.{version[1]}"


def split(path: str) -> tuple[tuple[int, int], str]:
    """Return the version that `path` asks for (the newest when it names none) and the rest of it.

    Raises:
        InvalidArgument: the version is outside the window; docker's words.
    """
    first, slash, rest = path[1:].partition("/")
    version = _parse(first)
    if version is None or not slash:
        return MAXIMUM, path
    if version < MINIMUM:
        raise InvalidArgument(
            f"client version {text(version)} is too old. Minimum supported API version is {text(MINIMUM)}, "
            "please upgrade your client to a newer version"
        )
    if version > MAXIMUM:
        raise InvalidArgument(
            f"client version {text(version)} is too new. Maximum supported API version is {text(MAXIMUM)}"
        )
    return version, "/" + rest


def _parse(segment: str) -> tuple[int, int] | None:
    if not segment.startswith("v"):
        return None
    major, dot, minor = segment[1:].partition(".")
    if not dot or not _is_number(major) or not _is_number(minor):
        return None
    return int(major), int(minor)


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= _DIGITS_MAX
