"""Run this interpreter from an image that nobody can write: what `/proc/<pid>/exe` of the runtime leads to.

A process that enters a container is the runtime until its execve. Whatever path that resolves, its last
component may have become a link to /proc/self/exe since it was looked at: then the runtime's own file is
executed inside, the container's processes may open it there, wait until nobody runs it (ETXTBSY is all that
protects it till then) and overwrite it (CVE-2019-5736). `program.refuse_own_executable` answers who asks for
it plainly; against a race only the file itself can be defended. So who enters containers first executes
itself once more,

- from a detached read-only mount of that one file: opened for writing it answers EROFS, and once execve has
  closed the descriptor the mount belongs to no namespace, in which somebody could change it;
- where this process may not mount (an unprivileged user, whose container's root may write what is the
  user's), from a sealed copy in memory.

That is the second start of an interpreter: 6 ms of the 70 of `pyengine-oci run`, once for all containers of
an engine's nursery, and none where the file lies on a read-only file system, as in the machine. Weighed and
not taken: execveat(2) of the descriptor that was checked (scripts need a path, and before Linux 6.14 programs
are called by a number); a small program between, in memory, as runc had (runc-dmz: given up, as other users
lost their capabilities by it, and scanners report what runs from memory); the copy for everybody (Debian's is
7 MB, 3 ms more).
"""

import os

from engine.kernel import executable

_COPY_NAME = "pyengine-oci"


def is_protected() -> bool:
    """Tell whether the file that this process executes cannot be written through its /proc/<pid>/exe."""
    if os.statvfs(executable.SELF).f_flag & os.ST_RDONLY:
        return True
    return os.readlink(executable.SELF).startswith(f"/memfd:{_COPY_NAME} ")


def protect(argv: list[str]) -> None:
    """Return when this process is protected; else execute its interpreter anew, protected, with `argv`.

    Raises:
        OSError: it cannot be.
    """
    if is_protected():
        return
    try:
        image_fd = executable.on_readonly_mount()
    except PermissionError:
        image_fd = executable.sealed_copy(_COPY_NAME)
    try:
        os.execve(image_fd, argv, os.environ)  # noqa: S606 (this very interpreter)
    finally:
        os.close(image_fd)
