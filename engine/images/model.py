"""What the image service gives and takes."""

from dataclasses import dataclass

from engine.spec.image import ImageConfig


@dataclass(frozen=True, slots=True)
class Image:
    """One image, whole and unpacked."""

    id: str  # "sha256:...", the digest of the configuration's bytes
    config: ImageConfig
    diff_ids: tuple[str, ...]  # layers, bottom first
    chain_ids: tuple[str, ...]  # one a layer, bottom first; what a snapshotter is given
    repo_tags: tuple[str, ...]  # familiar: "busybox:latest"; sorted
    repo_digests: tuple[str, ...]  # familiar: "busybox@sha256:..."; sorted
    size_bytes: int  # of the files in all layers
    created: str  # RFC 3339, as the image says; empty when it does not
    manifest_digest: str  # of a manifest in the content store that names its blobs


@dataclass(frozen=True, slots=True)
class ImageUse:
    """A container that an image cannot be removed under."""

    container_id: str
    running: bool


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """Credentials for one pull; never stored."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
