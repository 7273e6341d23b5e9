"""The OCI runtime as the shim uses it: one name a verb, so that a test can pass others."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.runtime.birth import start
from engine.runtime.create import create
from engine.runtime.delete import delete, kill, pause, resume
from engine.runtime.exec import enter
from engine.runtime.model import Created


@dataclass(frozen=True, slots=True)
class Runtime:
    """The built-in runtime, unless told otherwise."""

    create: Callable[..., Created] = create
    start: Callable[[Created], None] = start
    enter: Callable[..., Created] = enter
    kill: Callable[..., bool] = kill
    pause: Callable[[str], None] = pause
    resume: Callable[[str], None] = resume
    delete: Callable[[str, Path | None], None] = delete
