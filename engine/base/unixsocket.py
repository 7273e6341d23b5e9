"""Unix sockets whose path may be longer than the address of one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """Yield an address for `path` that is valid inside the context, through a descriptor of its directory.

    An address holds 108 bytes (unix(7)), and a container's directory may lie deeper than that.

    Raises:
        OSError: the directory cannot be opened.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
