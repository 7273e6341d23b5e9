"""The daemon's configuration file, by dockerd's names; what it does not know is refused by name.

::

    {
      "default-runtime": "crun-debug",
      "runtimes": {"crun-debug": {"path": "/opt/crun", "runtimeArgs": ["--debug"]}}
    }

Source: docker documentation, dockerd, "Daemon configuration file".
"""

from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.base.errors import InvalidArgument
from engine.containers.runtimes import BUILT_IN, RESERVED, Program, Runtimes

DEFAULT_PATH = Path("/etc/pyengine/daemon.json")


class _Runtime(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    path: str
    runtime_args: tuple[str, ...] = ()


class ConfigFile(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What the file may hold."""

    runtimes: dict[str, _Runtime] = {}
    default_runtime: str = ""


def read(path: Path, *, is_needed: bool) -> ConfigFile:
    """Return what the file says; nothing where it is missing and not needed.

    Raises:
        InvalidArgument: it cannot be read, or is not one; the message names file and field.
    """
    try:
        return jsonio.read(path, ConfigFile)
    except FileNotFoundError:
        if is_needed:
            raise InvalidArgument(f"unable to configure the daemon with file {path}: there is none") from None
        return ConfigFile()


def runtimes(file: ConfigFile, added: tuple[str, ...], default: str) -> Runtimes:
    """Return the runtimes that file and flags name together; `added` are words of NAME=PATH.

    Raises:
        InvalidArgument: a name is reserved or given twice, or the default is none of them.
    """
    found = {name: Program(one.path, one.runtime_args) for name, one in file.runtimes.items()}
    for word in added:
        name, separator, path = word.partition("=")
        if not (name and separator and path):
            raise InvalidArgument(f"invalid --add-runtime {word!r}: want NAME=PATH")
        if name in found:
            raise InvalidArgument(f"runtime '{name}' was already registered")
        found[name] = Program(path)
    for name, program in found.items():
        if name in RESERVED:
            raise InvalidArgument(f"runtime name '{name}' is reserved")
        if not program.path:
            raise InvalidArgument(f"runtime '{name}': path is empty")
    if default and file.default_runtime:
        raise InvalidArgument(
            "the following directives are specified both as a flag and in the configuration file: "
            f"default-runtime: (from flag: {default}, from file: {file.default_runtime})"
        )
    made = Runtimes(found, default or file.default_runtime or BUILT_IN)
    if made.default not in made.listed():
        raise InvalidArgument(f"specified default runtime '{made.default}' does not exist")
    return made
