"""A full disk, told with what it was needed for."""

import contextlib
from collections.abc import Iterator

from engine.base.errors import OutOfSpace


@contextlib.contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Run the block; where it finds the disk full, raise OutOfSpace that names `what`."""
    try:
        yield
    except OSError as err:
        full = OutOfSpace.of(err, what)
        if full is not None:
            raise full from err
        raise
