"""One operation on many objects: what works is printed, what fails is reported, nothing stops the rest."""

from collections.abc import Callable, Iterable

import click

from engine.base.errors import EngineError


def for_each(names: Iterable[str], act: Callable[[str], object], *, show: bool = True) -> int:
    """Call `act` with each name; return 1 when any failed."""
    failed = 0
    for name in names:
        try:
            act(name)
        except EngineError as err:
            click.echo(f"pyengine: {err}", err=True)
            if err.hint:
                click.echo(f"hint: {err.hint}", err=True)
            failed = 1
            continue
        if show:
            click.echo(name)
    return failed
