"""Images as docker's API shows them, and its filters; pure.

Source: Docker Engine API v1.51, ImageSummary, ImageInspect, HistoryResponseItem.
"""

import datetime
import fnmatch
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from engine.base.errors import InvalidArgument
from engine.images.documents import created_seconds
from engine.images.model import Image
from engine.spec import reference
from engine.spec.image import ContainerConfig, History

Filters = Mapping[str, Sequence[str]]
_KNOWN = frozenset({"reference", "dangling", "label", "label!", "before", "since", "until"})
_TRUE = frozenset({"1", "true"})
_FALSE = frozenset({"0", "false"})
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_AGE = re.compile(r"(?:[0-9]{1,9}[hms])+\Z", re.ASCII)  # as Go writes durations, in whole units
_EMPTY_CONFIG: dict[str, Any] = {"Env": None, "Cmd": None, "Entrypoint": None, "Labels": None}


def summary(image: Image) -> dict[str, Any]:
    """Return docker's ImageSummary."""
    return {
        "Containers": -1,
        "Created": created_seconds(image.config),
        "Id": image.id,
        "Labels": image.config.defaults.labels,
        "ParentId": "",
        "RepoDigests": list(image.repo_digests),
        "RepoTags": list(image.repo_tags),
        "SharedSize": -1,
        "Size": image.size_bytes,
    }


def details(image: Image, *, driver: str, tagged_ns: int) -> dict[str, Any]:
    """Return docker's ImageInspect; `tagged_ns` 0: never."""
    config = image.config
    answer: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": "",
        "Comment": config.comment or "",
        "Created": config.created or "0001-01-01T00:00:00Z",
        "DockerVersion": config.docker_version or "",
        "Author": config.author or "",
        "Config": config_document(config.defaults),
        "Architecture": config.architecture,
        "Os": config.os or "linux",
        "Size": image.size_bytes,
        "GraphDriver": {"Name": driver, "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": _moment(tagged_ns)},
    }
    if config.variant:
        answer["Variant"] = config.variant
    return answer


def config_document(config: ContainerConfig) -> dict[str, Any]:
    """Return the defaults for a container in docker's spelling."""
    document: dict[str, Any] = msgspec.to_builtins(config)
    return _EMPTY_CONFIG | document


def history(image: Image, layer_sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return docker's HistoryResponseItem of each step, newest first; `layer_sizes` bottom first.

    A layer that no step claims is a step without a description.
    """
    sizes = iter(layer_sizes)
    items = [
        _history_item(step, 0 if step.empty_layer else next(sizes, 0)) for step in image.config.history or ()
    ]
    items += [_history_item(History(), size) for size in sizes]
    items.reverse()
    if items:
        items[0] |= {"Id": image.id, "Tags": list(image.repo_tags) or None}
    return items


def _history_item(step: History, size_bytes: int) -> dict[str, Any]:
    return {
        "Id": "<missing>",
        "Created": _seconds(step.created),
        "CreatedBy": step.created_by or "",
        "Tags": None,
        "Size": size_bytes,
        "Comment": step.comment or "",
    }


def select(
    images: Iterable[Image], filters: Filters, resolve: Callable[[str], Image]
) -> list[dict[str, Any]]:
    """Return the summaries of the images that pass `filters`, newest first.

    Raises:
        InvalidArgument: an unknown filter, or a bad value.
        NotFound: the image of ``before`` or ``since``.
    """
    tests = _tests(filters, resolve)
    found = [image for image in images if all(test(image) for test in tests)]
    found.sort(key=lambda image: (created_seconds(image.config), image.id), reverse=True)
    patterns = filters.get("reference")
    summaries = []
    for image in found:
        shown = summary(image)
        if patterns:
            shown["RepoTags"] = [name for name in image.repo_tags if _is_like(name, patterns)]
            shown["RepoDigests"] = [name for name in image.repo_digests if _is_like(name, patterns)]
        summaries.append(shown)
    return summaries


def _tests(filters: Filters, resolve: Callable[[str], Image]) -> list[Callable[[Image], bool]]:
    unknown = set(filters) - _KNOWN
    if unknown:
        raise InvalidArgument(f"invalid filter '{min(unknown)}'")
    tests: list[Callable[[Image], bool]] = []
    if patterns := filters.get("reference"):
        tests.append(lambda image: any(_is_like(name, patterns) for name in _names(image)))
    if "dangling" in filters:
        wanted = boolean("dangling", filters["dangling"])
        tests.append(lambda image: (not image.repo_tags) is wanted)
    tests += [_label_test(label, wanted=True) for label in filters.get("label", ())]
    tests += [_label_test(label, wanted=False) for label in filters.get("label!", ())]
    for name in filters.get("before", ()):
        tests.append(_before(created_seconds(resolve(name).config)))
    for name in filters.get("since", ()):
        tests.append(_since(created_seconds(resolve(name).config)))
    for text in filters.get("until", ()):
        tests.append(_before(until_seconds(text)))
    return tests


def _names(image: Image) -> tuple[str, ...]:
    return (*image.repo_tags, *image.repo_digests)


def _is_like(name: str, patterns: Sequence[str]) -> bool:
    """Match as docker does: the whole familiar name, or its repository alone."""
    parsed = reference.parse(name)
    return any(
        fnmatch.fnmatchcase(candidate, pattern)
        for pattern in patterns
        for candidate in (parsed.familiar, parsed.familiar_name)
    )


def _label_test(label: str, *, wanted: bool) -> Callable[[Image], bool]:
    key, equals, value = label.partition("=")

    def test(image: Image) -> bool:
        labels = image.config.defaults.labels or {}
        return (key in labels and (not equals or labels[key] == value)) is wanted

    return test


def _before(seconds: int) -> Callable[[Image], bool]:
    return lambda image: created_seconds(image.config) < seconds


def _since(seconds: int) -> Callable[[Image], bool]:
    return lambda image: created_seconds(image.config) > seconds


def boolean(name: str, values: Sequence[str]) -> bool:
    """Return the one truth value of a filter.

    Raises:
        InvalidArgument: docker's words.
    """
    words = {value.lower() for value in values}
    if words and words <= _TRUE:
        return True
    if words and words <= _FALSE:
        return False
    raise InvalidArgument(f"invalid filter '{name}={list(values)}'")


def until_seconds(text: str) -> int:
    """Return the moment that ``until`` names: seconds since 1970, RFC 3339, or an age such as ``24h``.

    Raises:
        InvalidArgument: it is none of them.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    if _AGE.match(text):
        parts = re.findall(r"([0-9]+)([hms])", text)
        return int(time.time()) - sum(int(count) * _SECONDS[unit] for count, unit in parts)
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp())
    except ValueError:
        raise InvalidArgument(f"invalid filter 'until={text}'") from None


def _seconds(text: str | None) -> int:
    try:
        return int(datetime.datetime.fromisoformat(text or "").timestamp())
    except (ValueError, OverflowError):
        return 0


def _moment(ns: int) -> str:
    if not ns:
        return "0001-01-01T00:00:00Z"
    moment = datetime.datetime.fromtimestamp(ns // 10**9, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
