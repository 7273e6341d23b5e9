"""Errors that cross a package boundary.

A class says what the *caller* can do about the failure, not which module
failed. Front ends (HTTP, command line) each own one table from these
classes to their own codes; nothing below a front end knows a status code.

    EngineError
     +-- InvalidArgument     the request can never succeed as written
     +-- NotFound            the named object does not exist
     +-- Conflict            the object is in the wrong state for the request
     |    +-- AlreadyExists  the name or id is taken
     +-- Denied              the caller, or the object, may not do this
     +-- OutOfSpace          a disk, a pool or a limit is full
     +-- Unavailable         try again: a dependency is down or starting
     +-- NotSupported        this kernel or build cannot do it
"""

import errno

FREE_SPACE_HINT = "free disk space, for example with: pyengine rm, pyengine rmi"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class EngineError(Exception):
    """Root of every error the engine raises on purpose.

    The message is one lower-case sentence without a full stop, and names the
    object: ``no such container: web``.

    Attributes:
        hint: the next step for a person at a command line; empty for none.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidArgument(EngineError):
    """The request can never succeed as written."""


class NotFound(EngineError):
    """The named object does not exist."""

    def __init__(self, kind: str, name: str, *, hint: str = "") -> None:
        super().__init__(f"no such {kind}: {name}", hint=hint)
        self.kind = kind
        self.name = name


class Conflict(EngineError):
    """The object is in the wrong state for the request."""


class AlreadyExists(Conflict):
    """The name or id is taken."""


class Denied(EngineError):
    """The caller, or the object, may not do this."""


class OutOfSpace(EngineError):
    """A disk, a pool of addresses or a limit is full."""

    @classmethod
    def of(cls, err: BaseException, what: str = "") -> "OutOfSpace | None":
        """Return `err` as an OutOfSpace about `what` when it is a full disk's or a quota's, else None."""
        if not isinstance(err, OSError) or err.errno not in _NO_SPACE:
            return None
        where = f"{what}: " if what else ""
        return cls(f"{where}no space left on device", hint=FREE_SPACE_HINT)


class Unavailable(EngineError):
    """A dependency is down or still starting; the same request may work later."""


class NotSupported(EngineError):
    """This kernel or build cannot do what was asked."""
