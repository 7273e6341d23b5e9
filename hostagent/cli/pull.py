"""Pulling an image, for `pull` and for `run` when the image is not there."""

from typing import TextIO

from hostagent.cli.progress import show_progress
from hostagent.client.docker import Engine

_HUB = ("docker.io/", "index.docker.io/")


def split_reference(image: str) -> tuple[str, str]:
    """Return (repository, tag or digest) of `image`; the tag is `latest` when none is given."""
    if "@" in image:
        repository, _, digest = image.partition("@")
        return repository, digest
    head, slash, last = image.rpartition("/")
    name, colon, tag = last.partition(":")
    return head + slash + name, tag if colon else "latest"


def canonical(image: str) -> str:
    """Return the whole name of `image`, as docker prints it after a pull."""
    repository, label = split_reference(image)
    first, slash, _ = repository.partition("/")
    if not slash:
        repository = f"docker.io/library/{repository}"
    elif "." not in first and ":" not in first and first != "localhost":
        repository = f"docker.io/{repository}"
    return f"{repository}{'@' if label.startswith('sha256:') else ':'}{label}"


def pull_image(
    engine: Engine,
    image: str,
    *,
    platform: str = "",
    quiet: bool = False,
    all_tags: bool = False,
    out: TextIO,
) -> str:
    """Pull `image`, with progress on `out` unless `quiet`; return its whole name.

    Raises:
        ApiError: the registry or the engine refused.
    """
    repository, label = split_reference(image)
    query = {"fromImage": repository, "tag": None if all_tags else label, "platform": platform or None}
    with engine.stream("POST", "/images/create", query, headers=[("X-Registry-Auth", "e30=")]) as response:
        show_progress(response.json_lines(), out=None if quiet else out)
    return canonical(image)
