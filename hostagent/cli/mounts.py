"""-v, --mount and --tmpfs to the API's Binds, Volumes and Mounts; no I/O except the current directory.

Source: docker/cli v28, opts/mount.go and cli/compose/loader/volume.go; RFC 4180 for the commas.
"""

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from engine.base.errors import InvalidArgument
from engine.base.units import parse_size

_DRIVE = re.compile(r"[A-Za-z]:[\\/]", re.ASCII)
_BOOLEANS = {"": True, "1": True, "true": True, "0": False, "false": False}


def split_volumes(specs: Iterable[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return (Binds, anonymous Volumes) of ``-v`` words.

    A source that starts with ``.`` is made absolute here: the engine does not
    know the caller's directory.

    Raises:
        InvalidArgument: a word is empty.
    """
    binds: list[str] = []
    anonymous: dict[str, dict[str, str]] = {}
    for spec in specs:
        if not spec or spec.startswith(":"):
            raise InvalidArgument(f"invalid volume {spec!r}: want [SOURCE:]TARGET[:OPTIONS]")
        drive = 2 if _DRIVE.match(spec) else 0
        source, colon, rest = spec[drive:].partition(":")
        source = spec[:drive] + source
        if not colon:
            anonymous[source] = {}
        else:
            if source.startswith("."):
                source = os.path.abspath(source)
            binds.append(f"{source}:{rest}")
    return binds, anonymous


def parse_tmpfs(specs: Iterable[str]) -> dict[str, str]:
    """Return Tmpfs of ``--tmpfs PATH[:OPTIONS]`` words."""
    return dict(spec.partition(":")[::2] for spec in specs)


def parse_mount(spec: str) -> dict[str, Any]:
    """Return one entry of Mounts for a ``--mount`` word.

    Raises:
        InvalidArgument: an unknown or malformed key, or no target.
    """
    mount: dict[str, Any] = {"Type": "volume"}
    for field in split_fields(spec):
        key, equals, text = field.partition("=")
        key = key.strip().lower()
        setter = _KEYS.get(key)
        if setter is None:
            raise InvalidArgument(f"invalid mount {spec!r}: unexpected key {key!r}")
        if not equals and key not in _SWITCHES:
            raise InvalidArgument(f"invalid mount {spec!r}: {key!r} needs a value")
        setter(mount, text)
    if not mount.get("Target"):
        raise InvalidArgument(f"invalid mount {spec!r}: target is required")
    _check(mount, spec)
    return mount


def _check(mount: dict[str, Any], spec: str) -> None:
    kind = mount["Type"]
    for name, key in (("bind", "BindOptions"), ("volume", "VolumeOptions"), ("tmpfs", "TmpfsOptions")):
        if key in mount and kind != name:
            raise InvalidArgument(f"invalid mount {spec!r}: cannot mix {name} options with type {kind!r}")
    if kind == "tmpfs" and mount.get("Source"):
        raise InvalidArgument(f"invalid mount {spec!r}: a tmpfs has no source")


def split_fields(text: str) -> list[str]:
    """Return the fields of one CSV record: commas, and double quotes around what holds one."""
    if '"' not in text:
        return text.split(",")
    import csv  # noqa: PLC0415 (rare)

    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as err:
        raise InvalidArgument(f"invalid list {text!r}: {err}") from err


def _boolean(text: str, key: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise InvalidArgument(f"invalid value for {key}: {text}") from None


Setter = Callable[[dict[str, Any], str], None]


def _plain(key: str) -> Setter:
    def setter(mount: dict[str, Any], text: str) -> None:
        mount[key] = text

    return setter


def _source(mount: dict[str, Any], text: str) -> None:
    mount["Source"] = os.path.abspath(text) if text.startswith(".") else text


def _read_only(mount: dict[str, Any], text: str) -> None:
    mount["ReadOnly"] = _boolean(text, "readonly")


def _option(section: str, key: str, convert: Callable[[str], Any] = str) -> Setter:
    def setter(mount: dict[str, Any], text: str) -> None:
        mount.setdefault(section, {})[key] = convert(text)

    return setter


def _pair(section: str, *path: str) -> Setter:
    def setter(mount: dict[str, Any], text: str) -> None:
        table = mount.setdefault(section, {})
        for step in path:
            table = table.setdefault(step, {})
        key, _, item = text.partition("=")
        table[key] = item

    return setter


def _bind_recursive(mount: dict[str, Any], text: str) -> None:
    options = mount.setdefault("BindOptions", {})
    if text == "disabled":
        options["NonRecursive"] = True
    elif text == "writable":
        options["ReadOnlyNonRecursive"] = True
    elif text == "readonly":
        options["ReadOnlyForceRecursive"] = True
    elif text != "enabled":
        raise InvalidArgument(f"invalid value for bind-recursive: {text}")


def _mode(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise InvalidArgument(f"invalid value for tmpfs-mode: {text}") from None


_SWITCHES = frozenset({"readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"})
_KEYS: dict[str, Setter] = {
    "type": lambda mount, text: mount.update(Type=text.lower()),
    "source": _source,
    "src": _source,
    "target": _plain("Target"),
    "dst": _plain("Target"),
    "destination": _plain("Target"),
    "readonly": _read_only,
    "ro": _read_only,
    "consistency": _plain("Consistency"),
    "bind-propagation": _option("BindOptions", "Propagation", str.lower),
    "bind-nonrecursive": _option(
        "BindOptions", "NonRecursive", lambda text: _boolean(text, "bind-nonrecursive")
    ),
    "bind-recursive": _bind_recursive,
    "bind-create-src": _option(
        "BindOptions", "CreateMountpoint", lambda text: _boolean(text, "bind-create-src")
    ),
    "volume-nocopy": _option("VolumeOptions", "NoCopy", lambda text: _boolean(text, "volume-nocopy")),
    "volume-subpath": _option("VolumeOptions", "Subpath"),
    "volume-label": _pair("VolumeOptions", "Labels"),
    "volume-driver": lambda mount, text: (
        mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {}).update(Name=text)
    ),
    "volume-opt": _pair("VolumeOptions", "DriverConfig", "Options"),
    "tmpfs-size": _option("TmpfsOptions", "SizeBytes", parse_size),
    "tmpfs-mode": _option("TmpfsOptions", "Mode", _mode),
    "image-subpath": _option("ImageOptions", "Subpath"),
}
