"""pyengine container, image, system: docker's long names of the commands of the root."""

from collections.abc import Mapping

import click

from hostagent.cli.command import Group, command, several, switch, value
from hostagent.cli.inspect import inspect_all
from hostagent.cli.main import COMMANDS, load

_CONTAINER = {
    name: name
    for name in (
        "run", "create", "start", "attach", "exec", "logs", "stop", "restart", "kill", "rm", "wait",
        "pause", "unpause", "rename", "top",
    )
} | {"ls": "ps"}  # fmt: skip
_IMAGE = {"ls": "images", "load": "load", "pull": "pull", "rm": "rmi", "tag": "tag"}
_SYSTEM = {"info": "info", "events": "events"}
_ALIASES = {"list": "ls", "ps": "ls", "remove": "rm"}


@command(
    "inspect",
    value("-f", "--format", default="", help="Format output: json or TEMPLATE"),
    switch("-s", "--size", help="Display total file sizes"),
    several("names", "CONTAINER"),
)
def inspect_container(format: str, size: bool, names: tuple[str, ...]) -> int:  # noqa: A002 (the flag's name)
    """Display detailed information on one or more containers."""
    return inspect_all(names, ("container",), format, size=size)


@command(
    "inspect",
    value("-f", "--format", default="", help="Format output: json or TEMPLATE"),
    several("names", "IMAGE"),
)
def inspect_image(format: str, names: tuple[str, ...]) -> int:  # noqa: A002 (the flag's name)
    """Display detailed information on one or more images."""
    return inspect_all(names, ("image",), format)


class _Noun(Group):
    """A noun whose verbs are commands of the root, by their names here."""

    def __init__(self, name: str, verbs: Mapping[str, str], *own: click.Command, help: str) -> None:  # noqa: A002
        super().__init__(name, *own, help=help)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs without their aliases."""
        return sorted([*self._verbs, *super().list_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one verb, imported now."""
        verb = _ALIASES.get(cmd_name, cmd_name)
        return load(self._verbs[verb]) if verb in self._verbs else super().get_command(ctx, verb)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the root's table, without importing any command."""
        own = {name: found.get_short_help_str(100) for name, found in self.commands.items()}
        texts = {verb: COMMANDS[name][2] for verb, name in self._verbs.items()} | own
        with formatter.section("Commands"):
            formatter.write_dl([(name, texts[name]) for name in self.list_commands(ctx)])


container = _Noun("container", _CONTAINER, inspect_container, help="Manage containers.")
image = _Noun("image", _IMAGE, inspect_image, help="Manage images.")
system = _Noun("system", _SYSTEM, help="Manage the engine.")
