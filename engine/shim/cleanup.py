"""What is left when a shim has gone, and how its container ended."""

import os
from pathlib import Path

import msgspec

from engine.base.errors import InvalidArgument
from engine.shim.protocol import Exit

_exit_decoder = msgspec.json.Decoder(Exit)


def read_exit(path: Path) -> Exit | None:
    """Return what exit.json says, or None when the container has not ended under a shim.

    Raises:
        InvalidArgument: the file is damaged.
    """
    try:
        return _exit_decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as err:
        raise InvalidArgument(f"invalid {path}: {err}") from err


def remove_leftovers(bundle: Path) -> None:
    """Kill what still runs of a container whose shim has gone, and remove its cgroup and bundle.

    Idempotent. Nothing of a container is mounted in the host's namespace, so
    the bundle holds plain files and empty directories only.
    """
    for name in ("shim.sock", "state.json", "config.json", "shim.log"):
        (bundle / name).unlink(missing_ok=True)
    for directory in (bundle / "rootfs", bundle):
        if directory.exists():
            os.rmdir(directory)
