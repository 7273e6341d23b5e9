"""Docker's filters on volumes: which of them match. Pure.

Source: Docker Engine API v1.51, VolumeList and VolumePrune.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from engine.base.errors import InvalidArgument
from engine.volumes.model import Volume

Filters = Mapping[str, Sequence[str]]

_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})
LIST_FILTERS = frozenset({"name", "label", "driver", "dangling"})
PRUNE_FILTERS = frozenset({"label", "label!", "all"})


def check(filters: Filters, known: frozenset[str]) -> None:
    """Refuse filters that are not `known`.

    Raises:
        InvalidArgument: one is not.
    """
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")


def matches(volume: Volume, filters: Filters, *, used: Callable[[str], Sequence[str]]) -> bool:
    """Tell whether `volume` passes all `filters`; `used` (who uses a name?) is asked only if it matters."""
    return (
        _any(filters.get("name", ()), lambda value: _name_matches(value, volume.name))
        and _any(filters.get("driver", ()), lambda value: value == "local")
        and all(_has_label(volume, value) for value in filters.get("label", ()))
        and not any(_has_label(volume, value) for value in filters.get("label!", ()))
        and ("dangling" not in filters or flag(filters, "dangling") is not bool(used(volume.name)))
    )


def flag(filters: Filters, name: str) -> bool:
    """Return the value of a filter that is true or false; absent is false.

    Raises:
        InvalidArgument: it is neither.
    """
    values = {value.lower() for value in filters.get(name, ())}
    if values - _TRUE - _FALSE or len(values) > 1:
        raise InvalidArgument(f"invalid filter '{name}={sorted(values)}'")
    return bool(values & _TRUE)


def _any(values: Sequence[str], passes: Callable[[str], bool]) -> bool:
    return not values or any(passes(value) for value in values)


def _name_matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return pattern in name


def _has_label(volume: Volume, wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    if key not in volume.labels:
        return False
    return not separator or volume.labels[key] == value
