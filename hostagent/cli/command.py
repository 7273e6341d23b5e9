"""Commands and flags on top of click, as docker has them, and cheap to declare.

- `--flag=false` is understood for every flag that is a switch.
- Help is `--help` only (`-h` is a hostname).
- Help texts are attached after construction: click would otherwise import
  `inspect` (9 ms) to tidy them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

_NAME_MAX_CHARS = 40
Handler = Callable[..., "int | None"]


class Switchable(click.Option):
    """A switch that defaults to on: `--name=false` turns it off."""


def switch(*names: str, help: str, default: bool = False) -> click.Option:  # noqa: A002 (click's word)
    """Return a flag without a value."""
    option = click.Option(list(names), is_flag=True, default=default)
    option.help = help
    if default:  # "--sig-proxy=false" becomes the hidden "--no-sig-proxy"
        option.secondary_opts.append("--no-" + names[0].removeprefix("--"))
    return option


def value(
    *names: str,
    help: str,  # noqa: A002 (click's word)
    metavar: str = "STRING",
    default: Any = None,  # noqa: ANN401 (of the type)
    type: Any = str,  # noqa: A002, ANN401 (click's word)
    required: bool = False,
) -> click.Option:
    """Return a flag with one value."""
    option = click.Option(list(names), type=type, default=default, metavar=metavar, required=required)
    option.help = help
    return option


def values(*names: str, help: str, metavar: str = "LIST") -> click.Option:  # noqa: A002 (click's word)
    """Return a flag that may be given many times."""
    option = click.Option(list(names), multiple=True, metavar=metavar)
    option.help = help
    return option


def argument(
    name: str, *, nargs: int = 1, required: bool = True, metavar: str | None = None
) -> click.Argument:
    """Return a positional argument; `nargs` -1 takes the rest, whatever it looks like."""
    kind = click.UNPROCESSED if nargs == -1 else str
    return click.Argument([name], nargs=nargs, required=required, type=kind, metavar=metavar)


def several(name: str, noun: str) -> click.Argument:
    """Return the last argument of a command that takes one or more of `noun`."""
    return argument(name, nargs=-1, metavar=f"{noun} [{noun}...]")


def _print_help(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _help_option() -> click.Option:
    option = click.Option(
        ["--help", "_help"], is_flag=True, is_eager=True, expose_value=False, callback=_print_help
    )
    option.help = "Print usage"
    return option


class Command(click.Command):
    """A command whose switches also take ``=true`` and ``=false``."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:  # noqa: ARG002 (overrides)
        """Return `--help`, made once."""
        if self._help_option is None:
            self._help_option = _help_option()
        return self._help_option

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse after what docker writes with ``=`` has been rewritten."""
        if any(arg.startswith("-") and "=" in arg for arg in args):
            args = list(rewrite_switches(args, self.params, interspersed=ctx.allow_interspersed_args))
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A noun and its verbs, such as `volume`."""

    get_help_option = Command.get_help_option

    def __init__(self, name: str, *commands: click.Command, help: str) -> None:  # noqa: A002 (click's word)
        super().__init__(name, commands=commands)
        self.help = help
        self.options_metavar = ""
        self.subcommand_metavar = "COMMAND"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb, with docker's words when there is none of that name."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown(ctx, args[0])
        return super().resolve_command(ctx, args)


def unknown(ctx: click.Context, name: str) -> click.UsageError:
    """Return the error for a command that does not exist."""
    return click.UsageError(f"unknown command: {ctx.command_path} {name[:_NAME_MAX_CHARS]}", ctx)


def command(
    name: str, *params: click.Parameter, interspersed: bool = True, short: str = ""
) -> Callable[[Handler], Command]:
    """Return a decorator that makes a command of a function; its docstring is the help."""

    def decorate(handler: Handler) -> Command:
        settings = {} if interspersed else {"allow_interspersed_args": False}
        made = Command(
            name, context_settings=settings, callback=handler, params=list(params), short_help=short or None
        )
        made.help = handler.__doc__
        return made

    return decorate


_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def rewrite_switches(
    args: Sequence[str], params: Sequence[click.Parameter], *, interspersed: bool
) -> Iterator[str]:
    """Yield `args` with ``--rm=true`` as ``--rm``, ``--rm=false`` left out, ``-e=A=1`` as ``--env=A=1``.

    Source: pflag v1.0, parseSingleShortArg; Go's strconv.ParseBool.

    Raises:
        click.BadOptionUsage: the value is not a boolean.
    """
    options = {name: p for p in params if isinstance(p, click.Option) for name in p.opts}
    rest = iter(args)
    for arg in rest:
        if arg == "--" or (not interspersed and not _is_flag(arg)):
            yield arg
            yield from rest
            return
        name, equals, text = arg.partition("=")
        if equals and _is_switch(name, options):
            yield from _switched(name, text, options)
            continue
        yield from _without_short_equals(arg, options)
        if _takes_next(arg, options):
            yield from _one(rest)


def _without_short_equals(arg: str, options: dict[str, click.Option]) -> list[str]:
    """Return ``-ite=A=1`` as ``-it --env=A=1``: click would take the equals sign for a part of the value."""
    if arg.startswith("--") or not _is_flag(arg):
        return [arg]
    for at, letter in enumerate(arg[1:], start=1):
        option = options.get(f"-{letter}")
        if option is None:
            break
        if not option.is_flag:
            if arg[at + 1 : at + 2] != "=":
                break
            long = next(name for name in option.opts if name.startswith("--"))
            return [*([arg[:at]] if at > 1 else []), f"{long}={arg[at + 2 :]}"]
    return [arg]


def _is_flag(arg: str) -> bool:
    return arg.startswith("-") and arg != "-"


def _one(rest: Iterator[str]) -> Iterator[str]:
    for arg in rest:
        yield arg
        return


def _is_switch(name: str, options: dict[str, click.Option]) -> bool:
    if name.startswith("--"):
        return name in options and options[name].is_flag
    letters = [f"-{letter}" for letter in name[1:]]
    return (
        name.startswith("-")
        and bool(letters)
        and all(letter in options and options[letter].is_flag for letter in letters)
    )


def _switched(name: str, text: str, options: dict[str, click.Option]) -> Iterator[str]:
    if text in _TRUE:
        yield name
    elif text in _FALSE:
        if not name.startswith("--"):
            if name[1:-1]:
                yield name[:-1]  # -it=false: i is on, t is off
            name = f"-{name[-1]}"
        yield from options[name].secondary_opts
    else:
        raise click.BadOptionUsage(name, f'invalid argument "{text}" for "{name}": want true or false')


def _takes_next(arg: str, options: dict[str, click.Option]) -> bool:
    """Tell whether the value of `arg` is the next word."""
    if arg.startswith("--"):
        return "=" not in arg and arg in options and not options[arg].is_flag
    if not _is_flag(arg):
        return False
    for at, letter in enumerate(arg[1:], start=1):
        option = options.get(f"-{letter}")
        if option is None:
            return False
        if not option.is_flag:
            return at == len(arg) - 1
    return False
