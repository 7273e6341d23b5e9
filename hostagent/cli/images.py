"""pyengine images, load, rmi, tag, pull."""

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Any

import click

from engine.base.units import human_duration, human_size
from hostagent.cli.app import current
from hostagent.cli.command import argument, command, several, switch, value, values
from hostagent.cli.each import for_each
from hostagent.cli.exits import ExitWith
from hostagent.cli.table import write_listing
from hostagent.cli.tty import is_terminal
from hostagent.client.docker import encode_filters, image_segment

HEADERS = {
    "Containers": "CONTAINERS",
    "CreatedAt": "CREATED AT",
    "CreatedSince": "CREATED",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "SharedSize": "SHARED SIZE",
    "Size": "SIZE",
    "Tag": "TAG",
    "UniqueSize": "UNIQUE SIZE",
}
_NONE = "<none>"
_SHORT_ID = 12
_CHUNK_BYTES = 1 << 17


@command(
    "images",
    switch("-a", "--all", help="Show all images (default hides intermediate images)"),
    switch("--digests", help="Show digests"),
    values("-f", "--filter", help="Filter output based on conditions provided", metavar="FILTER"),
    value("--format", default="", help="Format output: table, json, 'table TEMPLATE' or TEMPLATE"),
    switch("--no-trunc", help="Don't truncate output"),
    switch("-q", "--quiet", help="Only show image IDs"),
    argument("repository", required=False, metavar="[REPOSITORY[:TAG]]"),
)
def images(repository: str | None, **flags: Any) -> int:  # noqa: ANN401 (one value a flag)
    """List images."""
    filters = [*flags["filter"], *([f"reference={repository}"] if repository else [])]
    found = current().engine.get("/images/json", all=flags["all"], filters=encode_filters(filters))
    now = time.time()
    rows = [
        row
        for item in found
        for row in rows_of(item, now=now, truncate=not flags["no_trunc"], digests=flags["digests"])
    ]
    columns = ["Repository", "Tag", *(["Digest"] if flags["digests"] else []), "ID", "CreatedSince", "Size"]
    write_listing(
        rows, form=flags["format"], columns=columns, headers=HEADERS, quiet="ID" if flags["quiet"] else None
    )
    return 0


def rows_of(item: dict[str, Any], *, now: float, truncate: bool, digests: bool) -> Iterator[dict[str, str]]:
    """Yield a row for each tag of one entry of GET /images/json."""
    tags = [tag for tag in item.get("RepoTags") or [] if tag != "<none>:<none>"]
    by_repository = dict(text.split("@", 1) for text in item.get("RepoDigests") or [] if "@" in text)
    by_repository.pop(_NONE, None)
    names = [tag.rpartition(":")[::2] for tag in tags] or [(name, _NONE) for name in by_repository]
    created = datetime.fromtimestamp(item["Created"], tz=UTC).astimezone()
    identifier = item["Id"].removeprefix("sha256:")[:_SHORT_ID] if truncate else item["Id"]
    for repository, tag in names or [(_NONE, _NONE)]:
        yield {
            "Containers": _count(item.get("Containers", -1)),
            "CreatedAt": created.strftime("%Y-%m-%d %H:%M:%S %z %Z"),
            "CreatedSince": f"{human_duration(now - item['Created'])} ago" if item["Created"] > 0 else "N/A",
            "Digest": by_repository.get(repository, _NONE) if digests else _NONE,
            "ID": identifier,
            "Repository": repository,
            "SharedSize": "N/A",
            "Size": human_size(item["Size"]),
            "Tag": tag,
            "UniqueSize": "N/A",
        }


def _count(number: int) -> str:
    return "N/A" if number < 0 else str(number)


@command(
    "load",
    value(
        "-i",
        "--input",
        "source",
        default="",
        metavar="PATH",
        help="Read from tar archive file, instead of STDIN",
    ),
    value("--platform", default="", help="Load only the given platform variant"),
    switch("-q", "--quiet", help="Suppress the load output"),
)
def load(source: str, platform: str, quiet: bool) -> int:
    """Load an image from a tar archive or STDIN."""
    from hostagent.cli.progress import show_progress  # noqa: PLC0415 (with the commands that need it)

    if not source and is_terminal(0):
        raise ExitWith(1, "requested load from stdin, but stdin is empty")
    archive: IO[bytes] = open(source, "rb") if source else sys.stdin.buffer  # noqa: SIM115 (closed below)
    with (
        archive,  # there, before a machine is started for it
        current().engine.stream(
            "POST",
            "/images/load",
            {"quiet": quiet, "platform": platform or None},
            body_stream=iter(lambda: archive.read(_CHUNK_BYTES), b""),
            headers=[("Content-Type", "application/x-tar")],
        ) as response,
    ):
        show_progress(response.json_lines(), out=sys.stdout)
    return 0


@command(
    "rmi",
    switch("-f", "--force", help="Force removal of the image"),
    switch("--no-prune", help="Do not delete untagged parents"),
    several("names", "IMAGE"),
)
def rmi(force: bool, no_prune: bool, names: tuple[str, ...]) -> int:
    """Remove one or more images."""
    engine = current().engine

    def one(name: str) -> None:
        for item in engine.delete(f"/images/{image_segment(name)}", force=force, noprune=no_prune):
            for verb, what in item.items():
                click.echo(f"{verb}: {what}")

    return for_each(names, one, show=False, absent_is_fine=force)


@command(
    "tag",
    argument("source_image", metavar="SOURCE_IMAGE[:TAG]"),
    argument("target_image", metavar="TARGET_IMAGE[:TAG]"),
)
def tag(source_image: str, target_image: str) -> int:
    """Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE."""
    repository, label = target_image, ""
    if ":" in target_image.rsplit("/", 1)[-1]:
        repository, _, label = target_image.rpartition(":")
    current().engine.post(
        f"/images/{image_segment(source_image)}/tag", repo=repository, tag=label or "latest"
    )
    return 0


@command(
    "pull",
    switch("-a", "--all-tags", help="Download all tagged images in the repository"),
    value("--platform", default="", help="Set platform if server is multi-platform capable"),
    switch("-q", "--quiet", help="Suppress verbose output"),
    argument("image", metavar="NAME[:TAG|@DIGEST]"),
)
def pull(all_tags: bool, platform: str, quiet: bool, image: str) -> int:
    """Download an image from a registry."""
    from hostagent.cli.pull import pull_image, split_reference  # noqa: PLC0415 (shared with run, which loads it late)

    if not quiet and not all_tags and image == split_reference(image)[0]:
        click.echo("Using default tag: latest")
    name = pull_image(
        current().engine, image, platform=platform, quiet=quiet, all_tags=all_tags, out=sys.stdout
    )
    click.echo(name)
    return 0
