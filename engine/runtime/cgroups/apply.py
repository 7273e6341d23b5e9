"""Write planned limits: in order, with what the kernel lacks told by name."""

import os
from collections.abc import Callable, Sequence

from engine.base.errors import NotSupported
from engine.runtime.cgroups import files
from engine.runtime.cgroups.plan import Write
from engine.runtime.errors import StartFailed


def apply(writes: Sequence[Write], directory_of: Callable[[str], str | None]) -> list[str]:
    """Write all; return warnings of what the machine lacks and is not essential.

    `directory_of` tells where a controller's files are; None: this machine has it not.

    Raises:
        NotSupported: the machine lacks what is essential.
        StartFailed: the kernel refuses a value; the files written before keep theirs.
    """
    warnings: list[str] = []
    again: list[Write] = []
    for write in writes:
        try:
            warnings += _write(write, directory_of)
        except StartFailed:
            if not write.retry:
                raise
            again.append(write)
    for write in again:
        warnings += _write(write, directory_of)
    return warnings


def _write(write: Write, directory_of: Callable[[str], str | None]) -> list[str]:
    directory = directory_of(write.controller)
    if directory is None:
        lack = f"{write.file}: the control group has no {write.controller} controller"
    elif not os.path.exists(f"{directory}/{write.file}"):
        lack = f"{write.file}: this kernel does not have it"
    else:
        try:
            files.write(directory, write.file, write.value)
        except OSError as err:
            raise StartFailed(f"set {write.file} to {write.value!r} in", err.errno or 0, directory) from err
        return []
    if write.instead is not None:
        return _write(write.instead, directory_of)
    if write.required:
        raise NotSupported(lack)
    return [lack]
