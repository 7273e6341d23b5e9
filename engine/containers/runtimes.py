"""OCI runtimes by the names that `docker run --runtime` takes: the built-in one, others where installed."""

import os

from engine.base.errors import InvalidArgument, NotSupported

BUILT_IN = "pyengine"
_BUILT_IN_NAMES = ("", BUILT_IN, "io.containerd.runc.v2")  # the last is what containerd calls its default
_OTHERS = ("runc", "crun")
_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def find(name: str, *, directories: tuple[str, ...] = _DIRECTORIES) -> str:
    """Return the program of a runtime; an empty string for the built-in one, which is the default.

    Raises:
        InvalidArgument: there is no runtime of that name, in docker's words.
        NotSupported: it is not installed.
    """
    if name in _BUILT_IN_NAMES:
        return ""
    if name not in _OTHERS:
        raise InvalidArgument(f"unknown or invalid runtime name: {name}")
    for directory in directories:
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise NotSupported(f"runtime {name} is not installed", hint=f"install {name}, or use {BUILT_IN}")


def installed(*, directories: tuple[str, ...] = _DIRECTORIES) -> dict[str, str]:
    """Return the program of each runtime that can be used, by name."""
    found = {BUILT_IN: "pyengine-oci"}
    for name in _OTHERS:
        try:
            found[name] = find(name, directories=directories)
        except NotSupported:
            continue
    return found
