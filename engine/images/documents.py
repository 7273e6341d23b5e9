"""Configurations and manifests from outside: decoded, and held to bounds, in one place.

No string of an image reaches a file of ours other than as JSON; what could
still do harm on its way into a process or a path is refused here.
"""

import datetime

from engine.base import jsonio
from engine.base.errors import InvalidArgument, NotSupported
from engine.images.limits import DEFAULT, Limits
from engine.spec import digest as digests
from engine.spec.distribution import Index, Manifest, Platform, parse_manifest
from engine.spec.image import ContainerConfig, ImageConfig

_STRING_MAX_CHARS = 64 * 1024
_STRINGS_MAX = 10_000
_CONTROL = frozenset("\0\n\r")


def parse_config(data: bytes, limits: Limits = DEFAULT) -> ImageConfig:
    """Return the configuration in `data`.

    Raises:
        InvalidArgument: it is not one, or a value in it is out of bounds.
        NotSupported: it is for another operating system.
    """
    _check_size(data, "image configuration", limits)
    config = jsonio.decode(data, ImageConfig, noun="image configuration")
    if config.os not in ("", "linux"):
        raise NotSupported(f"image is for {config.os[:40]!r}, not for linux")
    if config.rootfs and config.rootfs.type != "layers":
        raise InvalidArgument(f"invalid image configuration: rootfs type {config.rootfs.type[:40]!r}")
    if len(config.diff_ids) > limits.layers:
        raise InvalidArgument(
            f"invalid image configuration: {len(config.diff_ids)} layers, more than {limits.layers}"
        )
    for diff_id in config.diff_ids:
        if digests.parse(diff_id).algorithm != "sha256":
            raise NotSupported(f"layer digest {diff_id[:20]}... is not sha256")
    _check_defaults(config.defaults)
    return config


def parse_image_manifest(data: bytes, media_type: str | None, limits: Limits = DEFAULT) -> Manifest | Index:
    """Return the manifest or index in `data`, with every digest in it checked.

    Raises:
        InvalidArgument: it is neither, or holds too much or a bad digest.
    """
    _check_size(data, "manifest", limits)
    document = parse_manifest(data, media_type)
    if isinstance(document, Index):
        descriptors = document.manifests
        most = limits.descriptors
    else:
        descriptors = (document.config, *document.layers)
        most = limits.layers + 1
    if len(descriptors) > most:
        raise InvalidArgument(f"invalid manifest: {len(descriptors)} entries, more than {most}")
    for descriptor in descriptors:
        digests.parse(descriptor.digest)
        if descriptor.size < 0:
            raise InvalidArgument(f"invalid manifest: size {descriptor.size}")
    return document


def parse_platform(text: str) -> Platform:
    """Return ``os/arch[/variant]`` as a platform; raises InvalidArgument."""
    parts = text.lower().split("/")
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isalnum() for part in parts):
        raise InvalidArgument(f"invalid platform {text[:60]!r}: write os/architecture, such as linux/amd64")
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else None)  # noqa: PLR2004


def created_seconds(config: ImageConfig) -> int:
    """Return when the image says it was made, in seconds since 1970; 0 when it does not say."""
    try:
        moment = datetime.datetime.fromisoformat(config.created or "")
        return int(moment.timestamp())
    except (ValueError, OverflowError):
        return 0


def _check_size(data: bytes, noun: str, limits: Limits) -> None:
    if len(data) > limits.document_bytes:
        raise InvalidArgument(f"invalid {noun}: {len(data)} bytes, more than {limits.document_bytes}")


def _check_defaults(config: ContainerConfig) -> None:
    for entry in config.env or ():
        name = entry.partition("=")[0]
        if not name or _CONTROL & set(name) or "\0" in entry:
            raise InvalidArgument(f"invalid image configuration: environment variable {entry[:60]!r}")
    for what, text in (("user", config.user), ("working directory", config.working_dir)):
        if text and _CONTROL & set(text):
            raise InvalidArgument(f"invalid image configuration: {what} {text[:60]!r}")
    strings = [
        *(config.env or ()),
        *(config.entrypoint or ()),
        *(config.cmd or ()),
        *(config.volumes or ()),
        *(config.exposed_ports or ()),
        *(config.labels or {}),
        *(config.labels or {}).values(),
        config.user or "",
        config.working_dir or "",
        config.stop_signal or "",
    ]
    if len(strings) > _STRINGS_MAX or any(len(text) > _STRING_MAX_CHARS for text in strings):
        raise InvalidArgument("invalid image configuration: more or longer strings than any image needs")
    for text in (*(config.entrypoint or ()), *(config.cmd or ()), *(config.volumes or ())):
        if "\0" in text:
            raise InvalidArgument(f"invalid image configuration: null byte in {text[:60]!r}")
