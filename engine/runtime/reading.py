"""Documents that the command line names, read with care: anything may lie in their place."""

import os
import stat
from pathlib import Path
from typing import TypeVar

from engine.base import jsonio
from engine.base.errors import InvalidArgument

_MAX_BYTES = 16 << 20

T = TypeVar("T")


def document(path: Path, kind: type[T]) -> T:
    """Return the document in the file or pipe `path` as a `kind`.

    Raises:
        InvalidArgument: it is neither, too large, or no such document.
        OSError: it cannot be opened.
    """
    return decode(contents(path), kind, noun=str(path))


def decode(text: bytes, kind: type[T], *, noun: str) -> T:
    """Return what `contents` gave as a `kind`; raises as `document` does."""
    if len(text) > _MAX_BYTES:
        raise InvalidArgument(f"{noun}: larger than {_MAX_BYTES} bytes")
    return jsonio.decode(text, kind, noun=noun)


def contents(path: Path) -> bytes:
    """Return what is in the file or pipe `path`; of what is too large, just more than that."""
    # A pipe without a writer must not hold us up, and a terminal not become ours.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        os.close(fd)
        raise InvalidArgument(f"{path} is not a file")
    os.set_blocking(fd, True)
    with os.fdopen(fd, "rb") as file:
        return file.read(_MAX_BYTES + 1)
