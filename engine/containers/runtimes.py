"""OCI runtimes by the names that `docker run --runtime` takes.

The built-in one; runc and crun where they are installed; and those that the
daemon's configuration names, as dockerd's does: a program, and arguments that
come before the verb.

Source: docker documentation, "Alternative container runtimes", dockerd's `runtimes` and `default-runtime`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.base.errors import InvalidArgument, NotSupported

BUILT_IN = "pyengine"
ALIAS = "io.containerd.runc.v2"  # what containerd calls its default
RESERVED = (BUILT_IN, ALIAS)
DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_BUILT_IN_PROGRAM = "pyengine-oci"
_KNOWN = ("runc", "crun")


@dataclass(frozen=True, slots=True)
class Program:
    """What is executed; without a path, nothing is: the built-in runtime."""

    path: str = ""  # absolute, or a name to be looked for
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Runtimes:
    """The runtimes of one engine."""

    configured: Mapping[str, Program] = field(default_factory=dict)
    default: str = BUILT_IN
    directories: tuple[str, ...] = DIRECTORIES

    def find(self, name: str) -> Program:
        """Return a runtime, its path absolute; an empty name is the default.

        Raises:
            InvalidArgument: there is no runtime of that name, in docker's words.
            NotSupported: it is not installed.
        """
        name = name or self.default
        if name in RESERVED:
            return Program()
        program = self.configured.get(name) or (Program(name) if name in _KNOWN else None)
        if program is None:
            raise InvalidArgument(f"unknown or invalid runtime name: {name}")
        path = self._path(program.path)
        if not path:
            where = f": {program.path} is no program" if name in self.configured else ""
            raise NotSupported(
                f"runtime {name} is not installed{where}", hint=f"install {name}, or use {BUILT_IN}"
            )
        return Program(path, program.arguments)

    def listed(self) -> dict[str, Program]:
        """Return what `info` shows, by name: what is configured, there or not, and what is found besides."""
        found = {name: Program(_BUILT_IN_PROGRAM) for name in RESERVED}
        for name in _KNOWN:
            path = self._path(name)
            if path:
                found[name] = Program(path)
        return {**found, **self.configured}

    def _path(self, program: str) -> str:
        """Return where the program is; an empty string where it is not, or may not be executed."""
        places = [""] if program.startswith("/") else [f"{place}/" for place in self.directories]
        paths = (place + program for place in places)
        return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


INSTALLED = Runtimes()
