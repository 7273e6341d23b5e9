"""Replace a file so that a reader sees the old bytes or the new, never a mix."""

import os
import sys
import tempfile
from pathlib import Path


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replace `path` with `data` and make the change survive a power cut.

    The temporary file is made in the same directory, as rename(2) is atomic
    only within one file system. One writer at a time is the caller's duty:
    of two, the last rename wins.

    Raises:
        OSError: `path` holds the old bytes whole (or the new, when all that
            failed is the sync of the directory); no temporary file is left.
    """
    fd, tmp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            os.chmod(tmp, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp, path)
    except BaseException as err:
        if isinstance(err, OSError) and err.filename is None:
            err.filename = str(path)  # write(2) knows no names
        os.unlink(tmp)
        raise
    fsync_dir(path.parent)


if sys.platform == "win32":

    def fsync_dir(path: Path) -> None:
        """Do nothing: directories cannot be opened here, and NTFS journals names by itself."""
else:

    def fsync_dir(path: Path) -> None:
        """Make the names in the directory `path` durable."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
