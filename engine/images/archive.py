"""Archives of images: docker's (`docker save`) and OCI image layouts.

Two steps. `receive` reads the outer tar once, from a stream, and stages each
file as a blob under its digest: nothing is held in memory and nothing is
written twice. `plan` then says which images the files make. Names inside the
archive are only keys of a dictionary; none becomes a path.

Source: moby, image/spec/v1.2.md ("Combined Image JSON + Filesystem Changeset
Format"); OCI image-spec 1.1, image-layout.md.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.base import jsonio
from engine.base.errors import InvalidArgument
from engine.images.decompress import Decompressed, format_of
from engine.images.documents import parse_config, parse_image_manifest
from engine.images.intake import Intake
from engine.images.limits import Limits
from engine.images.platforms import choose
from engine.images.tarstream import Entry, Kind, Source, TarReader, show
from engine.images.unpack import Components, components
from engine.spec import distribution, reference
from engine.spec.distribution import Descriptor, Index, Manifest, Platform
from engine.spec.image import ImageConfig
from engine.spec.reference import Reference

_LINK_HOPS = 10
_MAGIC_BYTES = 6
_INDEX_DEPTH = 3
_MANIFEST = (b"manifest.json",)
_INDEX = (b"index.json",)
_CONFIG_NAME = re.compile(r"([0-9a-f]{64})\.json\Z", re.ASCII)
_OCI_IMAGE_CONFIGS = frozenset(
    {distribution.OCI_CONFIG, "application/vnd.docker.container.image.v1+json", "application/octet-stream"}
)


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One file of the archive, staged in the intake."""

    path: Path
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of the archive; its blobs are staged."""

    id: str
    config: ImageConfig
    manifest_digest: str
    layer_digests: tuple[str, ...]  # bottom first
    names: tuple[Reference, ...]


class _DockerImage(msgspec.Struct, rename="pascal", frozen=True):
    """One entry of docker's manifest.json."""

    config: str
    layers: tuple[str, ...] | None = None
    repo_tags: tuple[str, ...] | None = None


class Archive:
    """The files of one archive. Synchronous."""

    def __init__(self, intake: Intake, limits: Limits) -> None:
        self._intake = intake
        self._limits = limits
        self._files: dict[Components, StagedFile] = {}
        self._links: dict[Components, Components] = {}

    def receive(self, source: Source, max_bytes: int) -> None:
        """Stage every file of the archive that `source` streams.

        Raises:
            InvalidArgument: it is not a tar archive, or a damaged one.
            OutOfSpace: it is larger than `max_bytes` after decompression.
        """
        plain = Decompressed(source, max_bytes, self._limits)
        reader = TarReader(plain, self._limits)
        for entry in reader:
            path = components(entry.name, self._limits)
            self._files.pop(path, None)
            self._links.pop(path, None)
            self._take(entry, path, reader)
        reader.finish()

    def plan(self, platform: Platform) -> list[ArchivedImage]:
        """Return the images that the archive holds; for a multi-platform one, that of `platform`.

        Raises:
            InvalidArgument: it holds none, or one that is not complete.
        """
        if _MANIFEST in self._files:
            return self._docker_images()
        if _INDEX in self._files:
            return self._oci_images(platform)
        raise InvalidArgument("it has neither manifest.json nor index.json")

    def _take(self, entry: Entry, path: Components, reader: TarReader) -> None:
        if entry.kind is Kind.FILE:
            writer = self._intake.new_blob()
            try:
                while data := reader.read():
                    writer.write(data)
            finally:
                digest = writer.close()
            self._files[path] = StagedFile(writer.path, digest, writer.size_bytes)
        elif entry.kind is Kind.SYMLINK:
            base = b"" if entry.link.startswith(b"/") else b"/".join(path[:-1]) + b"/"
            self._links[path] = components(base + entry.link, self._limits)
        elif entry.kind is Kind.HARDLINK:
            self._links[path] = components(entry.link, self._limits)
        elif entry.kind is not Kind.DIRECTORY:
            raise InvalidArgument(f"{show(entry.name)}: a {entry.kind.value} is no part of an image archive")

    def _file(self, name: str) -> StagedFile:
        """Return the file that `name` leads to, through the links that docker writes for equal layers."""
        path = components(os.fsencode(name), self._limits)
        for _ in range(_LINK_HOPS):
            if path in self._files:
                return self._files[path]
            if path not in self._links:
                break
            path = self._links[path]
        raise InvalidArgument(f"{show(os.fsencode(name))} is missing")

    def _document(self, file: StagedFile, name: str) -> bytes:
        if file.size_bytes > self._limits.document_bytes:
            raise InvalidArgument(f"{name} has {file.size_bytes} bytes")
        return file.path.read_bytes()

    # docker's format

    def _docker_images(self) -> list[ArchivedImage]:
        data = self._document(self._files[_MANIFEST], "manifest.json")
        entries = jsonio.decode(data, tuple[_DockerImage, ...], noun="manifest.json")
        if not entries or len(entries) > self._limits.images:
            raise InvalidArgument(f"manifest.json names {len(entries)} images")
        return [self._docker_image(entry) for entry in entries]

    def _docker_image(self, entry: _DockerImage) -> ArchivedImage:
        file = self._file(entry.config)
        _check_named_digest(entry.config, file)
        config = parse_config(self._document(file, "the configuration"), self._limits)
        layers = [self._file(name) for name in entry.layers or ()]
        for name, layer in zip(entry.layers or (), layers, strict=True):
            _check_named_digest(name, layer)
        _check_count(config, layers)
        for blob in (file, *layers):
            self._intake.add_blob(blob.digest, blob.path)
        manifest = Manifest(
            schema_version=2,
            media_type=distribution.OCI_MANIFEST,
            config=Descriptor(distribution.OCI_CONFIG, file.digest, file.size_bytes),
            layers=tuple(Descriptor(_layer_type(layer), layer.digest, layer.size_bytes) for layer in layers),
        )
        return ArchivedImage(
            id=file.digest,
            config=config,
            manifest_digest=self._intake.add_bytes(jsonio.encode(manifest)),
            layer_digests=tuple(layer.digest for layer in layers),
            names=tuple(_tagged(name) for name in entry.repo_tags or ()),
        )

    # OCI image layout

    def _oci_images(self, platform: Platform) -> list[ArchivedImage]:
        data = self._document(self._files[_INDEX], "index.json")
        index = parse_image_manifest(data, None, self._limits)
        if not isinstance(index, Index):
            raise InvalidArgument("index.json is not an index")
        images: list[ArchivedImage] = []
        for descriptor in index.manifests:
            manifest = self._oci_manifest(descriptor, platform, _INDEX_DEPTH)
            if manifest is not None:
                images.append(self._oci_image(*manifest, names=_annotated_names(descriptor)))
        if not images:
            raise InvalidArgument(f"index.json names no image for {platform}")
        return images

    def _oci_manifest(
        self, descriptor: Descriptor, platform: Platform, depth: int
    ) -> tuple[str, Manifest] | None:
        """Return (digest, manifest) of the one image that `descriptor` leads to; None when it is no image."""
        data = self._document(self._blob(descriptor), "a manifest")
        document = parse_image_manifest(data, descriptor.media_type, self._limits)
        if isinstance(document, Manifest):
            if document.config.media_type not in _OCI_IMAGE_CONFIGS:
                return None  # an attestation, a chart: an artifact, but not an image
            return descriptor.digest, document
        if depth == 0:
            raise InvalidArgument("indexes in indexes in indexes")
        present = [item for item in document.manifests if self._is_present(item)]
        chosen = choose(present, platform) or (present[0] if len(present) == 1 else None)
        return self._oci_manifest(chosen, platform, depth - 1) if chosen else None

    def _oci_image(self, digest: str, manifest: Manifest, names: tuple[Reference, ...]) -> ArchivedImage:
        file = self._blob(manifest.config)
        config = parse_config(self._document(file, "the configuration"), self._limits)
        layers = [self._blob(layer) for layer in manifest.layers]
        _check_count(config, layers)
        for blob in (file, *layers, self._blob_file(digest)):
            self._intake.add_blob(blob.digest, blob.path)
        return ArchivedImage(
            id=file.digest,
            config=config,
            manifest_digest=digest,
            layer_digests=tuple(layer.digest for layer in layers),
            names=names,
        )

    def _blob(self, descriptor: Descriptor) -> StagedFile:
        file = self._blob_file(descriptor.digest)
        if file.digest != descriptor.digest:
            raise InvalidArgument(f"blob {descriptor.digest} has the digest {file.digest}")
        if file.size_bytes != descriptor.size:
            raise InvalidArgument(
                f"blob {descriptor.digest} has {file.size_bytes} bytes, not {descriptor.size}"
            )
        return file

    def _blob_file(self, digest: str) -> StagedFile:
        return self._file("blobs/" + digest.replace(":", "/"))

    def _is_present(self, descriptor: Descriptor) -> bool:
        return tuple(os.fsencode("blobs/" + descriptor.digest.replace(":", "/")).split(b"/")) in self._files


def _check_named_digest(name: str, file: StagedFile) -> None:
    """Refuse a file whose name says another digest: ``<hex>.json``, ``blobs/sha256/<hex>``."""
    match = _CONFIG_NAME.match(name)
    promised = match[1] if match else name.removeprefix("blobs/sha256/") if name.startswith("blobs/") else ""
    if promised and f"sha256:{promised}" != file.digest:
        raise InvalidArgument(f"{show(os.fsencode(name))} has the digest {file.digest}")


def _check_count(config: ImageConfig, layers: Sequence[StagedFile]) -> None:
    if len(config.diff_ids) != len(layers):
        raise InvalidArgument(
            f"the configuration names {len(config.diff_ids)} layers, the manifest {len(layers)}"
        )


def _layer_type(file: StagedFile) -> str:
    with open(file.path, "rb") as opened:
        compression = format_of(opened.read(_MAGIC_BYTES))
    return distribution.OCI_LAYER_TAR + ("" if compression == "tar" else f"+{compression}")


def _tagged(name: str) -> Reference:
    parsed = reference.parse(name)
    if not parsed.tag or parsed.digest:
        raise InvalidArgument(f"invalid tag {name[:100]!r}")
    return parsed


def _annotated_names(descriptor: Descriptor) -> tuple[Reference, ...]:
    """Return the name that an index gives to an image.

    The OCI annotation often holds a tag alone, which names no repository.
    """
    annotations = descriptor.annotations or {}
    name = annotations.get(distribution.CONTAINERD_NAME) or annotations.get(distribution.REFERENCE_NAME) or ""
    if ":" not in name and "/" not in name:
        return ()
    parsed = reference.parse(name).with_default_tag()
    return (parsed.with_tag(parsed.tag),) if parsed.tag else ()
