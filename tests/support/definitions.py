"""Images, definitions and containers for tests that need no engine."""

from typing import Any

import msgspec

from engine.containers import creation
from engine.containers.live import Container
from engine.containers.model import Definition, MountPoint, State
from engine.images.model import Image
from engine.spec.docker import CreateRequest
from engine.spec.image import ImageConfig

CHAIN = "sha256:" + "1" * 64


def image(**defaults: Any) -> Image:
    """Return an image whose configuration has `defaults`, by docker's names."""
    config = msgspec.convert({"config": {"Cmd": ["sh"], **defaults}}, ImageConfig)
    return Image("sha256:" + "2" * 64, config, (CHAIN,), (CHAIN,), ("busybox:latest",), (), 10, "", "")


def request(**body: Any) -> CreateRequest:
    """Return the request with this body, by docker's names."""
    return msgspec.convert({"Image": "busybox", **body}, CreateRequest)


def no_mounts(_name: str) -> tuple[MountPoint, ...]:
    """Stand for an engine without other containers."""
    return ()


def definition(**body: Any) -> Definition:
    """Return what the request with this body defines."""
    return creation.define(request(**body), "box", image(), no_mounts)


def container(name: str = "box", state: State | None = None, **body: Any) -> Container:
    """Return a container in memory."""
    return Container(definition(**body), name, state or State())
