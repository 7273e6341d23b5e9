"""Which containers `list` and `prune` mean; pure.

Source: Docker Engine API v1.51, ContainerList, ContainerPrune.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from engine.base.errors import InvalidArgument
from engine.containers.live import Container
from engine.containers.model import Status
from engine.images.view import until_seconds

Filters = Mapping[str, Sequence[str]]
Find = Callable[[str], Container]
Test = Callable[[Container], bool]

_LIST = frozenset(
    "ancestor before exited expose health id is-task isolation label name network publish since status volume".split()  # noqa: E501, SIM905 (the names of one document)
)
_PRUNE = frozenset({"until", "label", "label!"})
_STATUSES = frozenset(Status)


def check(filters: Filters, *, prune: bool = False) -> None:
    """Refuse filters that do not exist.

    Raises:
        InvalidArgument: docker's words.
    """
    for name in filters:
        if name not in (_PRUNE if prune else _LIST):
            raise InvalidArgument(f"invalid filter '{name}'")


def tests(filters: Filters, find: Find, image_of: Callable[[str], str]) -> list[Test]:
    """Return what a container must pass; `image_of` maps a name of an image to its id, or "".

    Raises:
        InvalidArgument: a value makes no sense.
        NotFound: the container of `before` or `since`.
    """
    check(filters)
    found = [_one(name, tuple(values), image_of) for name, values in filters.items() if name in _SIMPLE]
    found += [_has_label(label) for label in filters.get("label", ())]
    for name in filters.get("before", ()):
        limit = find(name).definition.created_ns
        found.append(lambda one, limit=limit: one.definition.created_ns < limit)  # type: ignore[misc]
    for name in filters.get("since", ()):
        limit = find(name).definition.created_ns
        found.append(lambda one, limit=limit: one.definition.created_ns > limit)  # type: ignore[misc]
    return found


def prune_tests(filters: Filters) -> list[Test]:
    """Return what a container must pass to be pruned."""
    check(filters, prune=True)
    found = [_has_label(label) for label in filters.get("label", ())]
    for label in filters.get("label!", ()):
        has = _has_label(label)
        found.append(lambda one, has=has: not has(one))  # type: ignore[misc]
    for text in filters.get("until", ()):
        limit = until_seconds(text) * 10**9
        found.append(lambda one, limit=limit: one.definition.created_ns < limit)  # type: ignore[misc]
    return found


def _one(name: str, values: tuple[str, ...], image_of: Callable[[str], str]) -> Test:
    test = _SIMPLE[name](values)
    if name != "ancestor":
        return test
    ids = {image_of(value) for value in values} - {""}
    return lambda one: test(one) or one.definition.image_id in ids


def _by_id(values: tuple[str, ...]) -> Test:
    return lambda one: any(one.id.startswith(value) for value in values)


def _by_name(values: tuple[str, ...]) -> Test:
    try:
        patterns = [re.compile(value) for value in values]
    except re.error as err:
        raise InvalidArgument(f"invalid filter 'name': {err}") from err
    return lambda one: any(p.search(one.name) or p.search(f"/{one.name}") for p in patterns)


def _by_status(values: tuple[str, ...]) -> Test:
    for value in values:
        if value not in _STATUSES:
            raise InvalidArgument(f"invalid filter 'status={value}'")
    return lambda one: one.state.status in values


def _by_exit(values: tuple[str, ...]) -> Test:
    try:
        codes = {int(value) for value in values}
    except ValueError as err:
        raise InvalidArgument(f"invalid filter 'exited={values[0]}'") from err
    return lambda one: (
        one.state.exit_code in codes and not one.state.live and one.state.status is not Status.CREATED
    )


def _by_image(values: tuple[str, ...]) -> Test:
    return lambda one: one.definition.image_name in values


def _by_network(values: tuple[str, ...]) -> Test:
    return lambda one: one.definition.host.network_mode in values


def _by_volume(values: tuple[str, ...]) -> Test:
    return lambda one: any(
        value in {point.name, point.destination, point.source}
        for value in values
        for point in one.definition.mounts
    )


def _by_published(values: tuple[str, ...]) -> Test:
    return lambda one: any(_port(value) in one.definition.host.port_bindings for value in values)


def _by_exposed(values: tuple[str, ...]) -> Test:
    return lambda one: any(_port(value) in (one.definition.config.exposed_ports or {}) for value in values)


def _port(value: str) -> str:
    return value if "/" in value else f"{value}/tcp"


def _by_health(values: tuple[str, ...]) -> Test:
    return lambda _: "none" in values


def _everything(_values: tuple[str, ...]) -> Test:
    return lambda _: True


_SIMPLE: dict[str, Callable[[tuple[str, ...]], Test]] = {
    "id": _by_id,
    "name": _by_name,
    "status": _by_status,
    "exited": _by_exit,
    "ancestor": _by_image,
    "network": _by_network,
    "volume": _by_volume,
    "publish": _by_published,
    "expose": _by_exposed,
    "health": _by_health,
    "is-task": _everything,
    "isolation": _everything,
}


def _has_label(wanted: str) -> Test:
    key, equals, value = wanted.partition("=")

    def test(one: Container) -> bool:
        labels = one.definition.config.labels
        return key in labels and (not equals or labels[key] == value)

    return test
