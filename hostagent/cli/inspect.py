"""pyengine inspect."""

from typing import TYPE_CHECKING, Any

import click

from engine.base.errors import InvalidArgument
from hostagent.cli.app import current
from hostagent.cli.command import command, several, switch, value
from hostagent.cli.documents import render, write_document
from hostagent.client.docker import Engine, image_segment, segment
from hostagent.client.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

_NOT_FOUND = 404
_KINDS = ("container", "image", "volume", "network")


def _get(engine: Engine, kind: str, name: str, *, size: bool) -> Any:  # noqa: ANN401 (any document)
    paths: dict[str, Callable[[], str]] = {
        "container": lambda: f"/containers/{segment(name)}/json",
        "image": lambda: f"/images/{image_segment(name)}/json",
        "volume": lambda: f"/volumes/{segment(name)}",
        "network": lambda: f"/networks/{segment(name)}",
    }
    return engine.get(paths[kind](), size=size if kind == "container" else None)


def inspect_all(names: tuple[str, ...], kinds: tuple[str, ...], form: str, *, size: bool = False) -> int:
    """Print what is known of each name, looked for among `kinds` in order; 1 when one was not found."""
    engine = current().engine
    found, missing = [], []
    for name in names:
        document = _first(engine, kinds, name, size=size)
        if document is None:
            missing.append(name)
        elif form and form != "json":
            click.echo(render(document, form))
        else:
            found.append(document)
    if not form or form == "json":
        write_document(found, form)
    noun = kinds[0] if len(kinds) == 1 else "object"
    for name in missing:
        click.echo(f"pyengine: no such {noun}: {name}", err=True)
    return 1 if missing else 0


def _first(engine: Engine, kinds: tuple[str, ...], name: str, *, size: bool) -> Any:  # noqa: ANN401 (any document)
    for kind in kinds:
        try:
            return _get(engine, kind, name, size=size)
        except ApiError as err:
            if err.status != _NOT_FOUND:
                raise
    return None


@command(
    "inspect",
    value("-f", "--format", default="", help="Format output: json or TEMPLATE"),
    switch("-s", "--size", help="Display total file sizes if the type is container"),
    value("--type", default="", help="Only inspect objects of the given type", metavar="TYPE"),
    several("names", "NAME|ID"),
)
def inspect(format: str, size: bool, type: str, names: tuple[str, ...]) -> int:  # noqa: A002 (the flags' names)
    """Return low-level information on objects."""
    if type and type not in _KINDS:
        raise InvalidArgument(f"{type!r} is not a valid value for --type: want one of {', '.join(_KINDS)}")
    return inspect_all(names, (type,) if type else _KINDS, format, size=size)
