"""Manifests and indexes, as registries and image archives hold them.

Both families are read: docker's (schema 2, manifest list) and the OCI's. They
differ only in the names of their media types.

Source: OCI image-spec 1.1, manifest.md, image-index.md, image-layout.md; OCI
distribution-spec 1.1, "Error Codes"; docker image manifest version 2, schema 2.
"""

import msgspec

from engine.base import jsonio
from engine.base.errors import InvalidArgument

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
REFERENCE_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


class Platform(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a manifest of an index runs on."""

    architecture: str = ""
    os: str = ""
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True):
    """A blob by type, digest and size; check the digest before use."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """One image for one platform: its configuration and its layers, bottom first."""

    schema_version: int
    media_type: str | None = None
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(msgspec.Struct, rename="camel", omit_defaults=True, frozen=True, kw_only=True):
    """Manifests of one image for several platforms."""

    schema_version: int
    media_type: str | None = None
    manifests: tuple[Descriptor, ...]


class RegistryError(msgspec.Struct, omit_defaults=True, frozen=True):
    """One entry of a registry's error body."""

    code: str = ""
    message: str = ""
    detail: object = None


class RegistryErrors(msgspec.Struct, omit_defaults=True, frozen=True):
    """Body of an answer that is an error."""

    errors: tuple[RegistryError, ...] | None = None


class _Shape(msgspec.Struct, rename="camel", frozen=True):
    """Just enough to tell a manifest from an index."""

    schema_version: int = 0
    media_type: str | None = None
    config: object = None
    layers: object = None
    manifests: object = None
    fs_layers: object = None


def parse_manifest(data: bytes, media_type: str | None) -> Manifest | Index:
    """Return the document `data`, which was announced as `media_type` (None: by nobody).

    A document that could be read as both kinds, or that calls itself something
    else than it was announced as, is refused: two readers could take it for
    two different images.

    Raises:
        InvalidArgument: it is neither kind, or not clearly one of them.
    """
    shape = jsonio.decode(data, _Shape, noun="manifest")
    if media_type in DOCKER_SCHEMA1 or shape.schema_version == 1 or shape.fs_layers is not None:
        raise InvalidArgument(
            "invalid manifest: docker schema 1 is not supported", hint="push the image again"
        )
    if shape.schema_version != 2:  # noqa: PLR2004 (the number is the format's name)
        raise InvalidArgument(f"invalid manifest: schema version {shape.schema_version} is not supported")
    if media_type and shape.media_type and media_type != shape.media_type:
        raise InvalidArgument(f"invalid manifest: announced as {media_type}, calls itself {shape.media_type}")
    is_index = shape.manifests is not None
    if is_index == (shape.layers is not None or shape.config is not None):
        raise InvalidArgument("invalid manifest: must have either layers or manifests")
    declared = media_type or shape.media_type
    if declared and declared not in (INDEX_TYPES if is_index else MANIFEST_TYPES):
        raise InvalidArgument(f"invalid manifest: unsupported media type {declared[:100]!r}")
    if is_index:
        return jsonio.decode(data, Index, noun="manifest")
    return jsonio.decode(data, Manifest, noun="manifest")
