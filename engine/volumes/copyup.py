"""Copy a directory of an image into a new directory: content, owners, modes, times, attributes, hard links.

Every name is made with the `*at` calls from the directory's own descriptor,
and files are created exclusively, so nothing in the image decides where
something is written.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.kernel import treecopy
from engine.kernel.treecopy import opened
from engine.volumes import merged
from engine.volumes.merged import Found, Parts


@dataclass(slots=True)
class _Copy:
    """One copy on its way."""

    roots: Sequence[int]
    source: Parts
    target_fd: int
    linked: dict[tuple[int, int], Parts] = field(default_factory=dict)  # (device, inode) -> first name


def copy(roots: Sequence[int], source: Parts, target_fd: int) -> None:
    """Copy the merged directory at `source` into the empty directory `target_fd`.

    Args:
        roots: descriptors of the layers' roots, topmost first.
        source: real path in the merged tree.
        target_fd: gets the owner, mode and times of the source, too.

    Raises:
        OSError: half of it may be copied.
    """
    job = _Copy(roots, source, target_fd)
    directories: list[Parts] = [()]
    for place in directories:  # grows while it is walked
        with merged.opened(roots, source + place) as layers, opened(target_fd, place) as here:
            for name, found in merged.entries(layers):
                if found.is_directory:
                    os.mkdir(name, 0o700, dir_fd=here)
                    directories.append((*place, name))
                else:
                    _copy_entry(job, (*place, name), found, here)
    for place in reversed(directories):  # after what is inside: that changes times
        with merged.opened(roots, source + place) as layers, opened(target_fd, place) as here:
            treecopy.copy_status(layers[0], here)


def _copy_entry(job: _Copy, place: Parts, found: Found, here: int) -> None:
    """Make the name `place[-1]` in the directory `here` as it is in the image."""
    name, layer, status = place[-1], found.layers[0], found.status
    identity = (status.st_dev, status.st_ino)
    if identity in job.linked:
        treecopy.link(job.target_fd, job.linked[identity], name, here)
        return
    treecopy.copy_entry(name, status, layer, here)
    if status.st_nlink > 1 and not stat.S_ISSOCK(status.st_mode):
        job.linked[identity] = place
