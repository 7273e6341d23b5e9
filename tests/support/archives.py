"""Image archives and layers made in memory, good ones and bad ones; the same bytes each time."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Member:
    """One entry of a tar; `kind` is a type of `tarfile`."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    link: str = ""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    device: tuple[int, int] = (0, 0)
    pax: tuple[tuple[str, str], ...] = ()


def directory(name: str, mode: int = 0o755) -> Member:
    return Member(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Member:
    return Member(name, kind=tarfile.SYMTYPE, link=target)


def hardlink(name: str, target: str) -> Member:
    return Member(name, kind=tarfile.LNKTYPE, link=target)


def tar(members: Iterable[Member], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive of `members`, in order, duplicates and all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mode, info.linkname = member.kind, member.mode, member.link
            info.uid, info.gid, info.mtime = member.uid, member.gid, member.mtime
            info.devmajor, info.devminor = member.device
            info.size = len(member.data)
            info.pax_headers = dict(member.pax)
            archive.addfile(info, io.BytesIO(member.data) if member.data else None)
    return buffer.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encode(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def config(layers: Sequence[bytes], **changes: Any) -> dict[str, Any]:
    """Return an image configuration for the plain `layers`; `changes` replace members of it."""
    document: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2025-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
    }
    return document | changes


def docker_files(
    layers: Sequence[bytes],
    names: Sequence[str] | None = ("img:1",),
    *,
    packed: Mapping[int, bytes] | None = None,
    **changes: Any,
) -> dict[str, bytes]:
    """Return the files of a docker-archive by name; `packed`: other bytes for the layer of that number."""
    document = encode(config(layers, **changes))
    config_name = digest(document).removeprefix("sha256:") + ".json"
    files = {config_name: document}
    layer_names = []
    for number, layer in enumerate(layers):
        layer_names.append(f"{number}/layer.tar")
        files[layer_names[-1]] = (packed or {}).get(number, layer)
    files["manifest.json"] = encode(
        [{"Config": config_name, "RepoTags": list(names) if names else None, "Layers": layer_names}]
    )
    return files


def outer(files: Mapping[str, bytes]) -> bytes:
    return tar([Member(name, data) for name, data in files.items()])


def docker_archive(layers: Sequence[bytes], names: Sequence[str] | None = ("img:1",), **how: Any) -> bytes:
    return outer(docker_files(layers, names, **how))


def image_id(layers: Sequence[bytes], **changes: Any) -> str:
    """Return the id that `docker_archive` of the same gives."""
    return digest(encode(config(layers, **changes)))


def oci_files(layers: Sequence[bytes], name: str = "img:1", **changes: Any) -> dict[str, bytes]:
    """Return the files of an OCI image layout."""
    files: dict[str, bytes] = {"oci-layout": encode({"imageLayoutVersion": "1.0.0"})}

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        files["blobs/" + digest(data).replace(":", "/")] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    prefix = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{prefix}manifest.v1+json",
        "config": blob(encode(config(layers, **changes)), f"{prefix}config.v1+json"),
        "layers": [blob(layer, f"{prefix}layer.v1.tar") for layer in layers],
    }
    entry = blob(encode(manifest), f"{prefix}manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    files["index.json"] = encode({"schemaVersion": 2, "manifests": [entry]})
    return files
