"""What `--log-driver` and `--log-opt` ask for; pure.

json-file and `local` rotate by default, as docker's `local` does. Both take
docker's options: max-size, max-file, compress, and what goes into each record
as attributes: labels, labels-regex, env, env-regex, tag.

Source: moby, daemon/logger/{loginfo,jsonfilelog/jsonfilelog,local/config,loggerutils/log_tag}.go;
docker documentation, "Customize log driver output".
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.base.errors import InvalidArgument, NotSupported
from engine.containers.model import Definition
from engine.spec.docker import LogConfig

DRIVERS = ("json-file", "local", "none")
DEFAULT_DRIVER = "json-file"
DEFAULT_MAX_BYTES = 20 * 1024 * 1024
DEFAULT_MAX_FILES = 5
_OPTIONS = frozenset(
    ("max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag")
)
_UNITS = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9}  # go-units' FromHumanSize
_DIGITS_MAX = 18
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))  # Go's strconv.ParseBool
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_SHORT_ID_CHARS = 12
_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FIELDS: dict[str, Callable[[Definition], str]] = {
    ".ID": lambda made: made.id[:_SHORT_ID_CHARS],
    ".FullID": lambda made: made.id,
    ".Name": lambda made: made.name,
    ".ImageID": lambda made: made.image_id[:_SHORT_ID_CHARS],
    ".ImageFullID": lambda made: made.image_id,
    ".ImageName": lambda made: made.image_name,
    ".Command": lambda made: " ".join(made.argv),
    ".DaemonName": lambda _made: "docker",
}


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How the log of a container is kept."""

    driver: str
    max_bytes: int  # of one file; 0: never rotated
    max_files: int
    compress: bool  # rotated files


def settings(config: LogConfig) -> LogSettings:
    """Return driver and rotation.

    Raises:
        NotSupported: a driver that this engine does not have, by name.
        InvalidArgument: an option that the driver does not have, or a value out of range; docker's words.
    """
    driver = config.type or DEFAULT_DRIVER
    if driver not in DRIVERS:
        raise NotSupported(f"logging driver {driver!r} is not supported", hint="use json-file, local or none")
    options = config.config
    if driver == "none" and options:
        raise InvalidArgument("invalid logging opts for driver none")
    for name in options:
        if name not in _OPTIONS:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver")
    for name in ("labels-regex", "env-regex"):
        _regex(options, name)
    _check_tag(options.get("tag", ""))
    max_bytes = _max_bytes(options.get("max-size", ""))
    max_files = _count(options["max-file"], "max-file") if options.get("max-file") else DEFAULT_MAX_FILES
    return LogSettings(driver, max_bytes, max_files, _compress(driver, options, max_bytes, max_files))


def attributes(made: Definition) -> dict[str, str]:
    """Return what goes into each record of the container's log, by name; `settings` has accepted it."""
    options = made.host.log_config.config
    env = dict(word.split("=", 1) for word in made.config.env or () if "=" in word)
    found = {
        **_chosen(options, "labels", made.config.labels or {}),
        **_chosen(options, "env", env),
    }
    tag = _ACTION.sub(lambda action: _FIELDS[action[1]](made), options.get("tag", ""))
    return found | ({"tag": tag} if tag else {})


def _chosen(options: Mapping[str, str], name: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return those of `values` that the option `name`, or its regular expression, asks for."""
    names = options.get(name, "").split(",")
    pattern = _regex(options, f"{name}-regex")
    return {
        key: value
        for key, value in values.items()
        if key in names or (pattern is not None and pattern.search(key))
    }


def _regex(options: Mapping[str, str], name: str) -> re.Pattern[str] | None:
    if not options.get(name):
        return None
    try:
        return re.compile(options[name])
    except re.error as err:
        raise InvalidArgument(f"invalid value for {name}: {options[name]}: {err}") from err


def _check_tag(text: str) -> None:
    for action in _ACTION.finditer(text):
        if action[1] not in _FIELDS:
            raise InvalidArgument(
                f"invalid value for tag: {text}: {action[0]} is not known",
                hint=f"use {', '.join(sorted(_FIELDS))}",
            )
    if "{{" in _ACTION.sub("", text):
        raise InvalidArgument(f"invalid value for tag: {text}: unclosed action")


def _max_bytes(text: str) -> int:
    if text == "-1":
        return 0
    if not text:
        return DEFAULT_MAX_BYTES
    digits = text.rstrip("bBkKmMgGiI")
    unit = text[len(digits) :].lower().removesuffix("b").removesuffix("i")
    if not digits.isascii() or not digits.isdigit() or len(digits) > _DIGITS_MAX or unit not in _UNITS:
        raise InvalidArgument(f"invalid value for max-size: invalid size: '{text}'")
    if not int(digits):
        raise InvalidArgument("max-size must be a positive number")
    return int(digits) * _UNITS[unit]


def _count(text: str, noun: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS_MAX or int(text) < 1:
        raise InvalidArgument(f"invalid value for {noun}: {text}: want a number of at least 1")
    return int(text)


def _compress(driver: str, options: Mapping[str, str], max_bytes: int, max_files: int) -> bool:
    text = options.get("compress", "")
    if text and text not in _TRUE | _FALSE:
        raise InvalidArgument(f"invalid boolean value for compress: {text}")
    wanted = text in _TRUE if text else driver == "local"
    if wanted and driver == "local" and max_files == 1:
        raise InvalidArgument("compression cannot be enabled when max file count is 1")
    if wanted and driver != "local" and (max_files == 1 or not max_bytes):
        raise InvalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set")
    return wanted
