"""One operation on many objects: what works is printed, what fails is reported, nothing stops the rest."""

from collections.abc import Callable, Iterable

import click

from engine.base.errors import EngineError
from hostagent.client.errors import ApiError

_NOT_FOUND = 404


def for_each(
    names: Iterable[str], act: Callable[[str], object], *, show: bool = True, absent_is_fine: bool = False
) -> int:
    """Call `act` with each name; return 1 when any failed.

    With `absent_is_fine` what is not there is told, but is no failure: for removing by force.
    """
    failed = 0
    for name in names:
        try:
            act(name)
        except EngineError as err:
            click.echo(f"pyengine: {err}", err=True)
            if err.hint:
                click.echo(f"hint: {err.hint}", err=True)
            if not (absent_is_fine and isinstance(err, ApiError) and err.status == _NOT_FOUND):
                failed = 1
            continue
        if show:
            click.echo(name)
    return failed
