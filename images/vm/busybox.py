"""The image `busybox:latest`, as a docker-archive, from Debian's static busybox.

The same bytes for the same busybox: no clock, no host names, no owners.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from engine.base.errors import EngineError

_CREATED = "2025-08-09T00:00:00Z"  # Debian 13's release; an image of known content needs no truer date
_DIRECTORIES = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "lib": 0o755, "proc": 0o555, "root": 0o700,
    "sbin": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755,
    "var": 0o755, "var/spool": 0o755, "var/spool/mail": 0o755, "var/tmp": 0o1777, "var/www": 0o755,
}  # fmt: skip
_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "bin:x:2:2:bin:/bin:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n"
    ),
    "etc/group": "root:x:0:\ndaemon:x:1:\nbin:x:2:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*::0:::::\ndaemon:*::0:::::\nnobody:*::0:::::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_MODES = {"etc/shadow": 0o640}


def applets(busybox: bytes) -> list[str]:
    """Return the names that a busybox answers to; the program may be of another architecture.

    They lie in it one after another, each ended by a zero byte, sorted; `[` and `[[` come first.
    """
    start = busybox.find(b"[\0[[\0")
    if start < 0:
        raise EngineError("busybox: no table of applets found in the program")
    end = busybox.index(b"\0\0", start)
    return [name.decode() for name in busybox[start:end].split(b"\0")]


def write_image(path: Path, *, busybox: bytes, architecture: str) -> None:
    """Write the docker-archive `path`; `architecture` is Go's name, as image configs have it."""
    layer = _layer(busybox)
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {
        "architecture": architecture,
        "config": {
            "Cmd": ["sh"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "created": _CREATED,
        "history": [
            {"created": _CREATED, "created_by": "Debian's busybox-static, with a link for each applet"}
        ],
        "os": "linux",
        "rootfs": {"diff_ids": [diff_id], "type": "layers"},
    }
    encoded = _json(config)
    config_name = f"{hashlib.sha256(encoded).hexdigest()}.json"
    layer_name = f"{diff_id.removeprefix('sha256:')}/layer.tar"
    manifest = [{"Config": config_name, "Layers": [layer_name], "RepoTags": ["busybox:latest"]}]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        _add_file(archive, config_name, encoded, 0o644)
        _add_file(archive, layer_name, layer, 0o644)
        _add_file(archive, "manifest.json", _json(manifest), 0o644)


def _layer(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as layer:
        for name, mode in sorted(_DIRECTORIES.items()):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE
            member.mode = mode
            layer.addfile(member)
        for name, text in sorted(_FILES.items()):
            _add_file(layer, name, text.encode(), _MODES.get(name, 0o644))
        _add_file(layer, "bin/busybox", busybox, 0o755)
        _add_links(layer, applets(busybox))
    return buffer.getvalue()


def _add_links(layer: tarfile.TarFile, names: Sequence[str]) -> None:
    for name in sorted(set(names) - {"busybox"}):
        _add_link(layer, f"bin/{name}", "busybox")
    _add_link(layer, "usr/bin/env", "../../bin/busybox")


def _add_link(layer: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type = tarfile.SYMTYPE
    member.mode = 0o777
    member.linkname = target
    layer.addfile(member)


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = mode
    archive.addfile(member, io.BytesIO(content))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
