"""Logs as a shim opens them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.shim.log import ContainerLog, open_log
from engine.shim.loop import Loop
from engine.shim.protocol import SpawnRequest


def unexpected(text: str) -> None:
    """Fail: nothing was to be dropped."""
    raise AssertionError(text)


def log_of(
    driver: str,
    path: Path,
    *,
    loop: Loop | None = None,
    warn: Callable[[str], None] = unexpected,
    **options: Any,
) -> ContainerLog:
    """Open the log `path` of a container; `options` are those of the request, without `log_`."""
    request = SpawnRequest(
        container_id="c",
        bundle="/b",
        exit_path="/e",
        log_driver=driver,
        log_path=str(path),
        **{f"log_{name}": value for name, value in options.items()},
    )
    made = open_log(request, loop or Loop(), warn=warn)
    assert made is not None
    return made
