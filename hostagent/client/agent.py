r"""The client of a host agent's own socket: JSON lines, one request a connection.

::

    {"op":"status"}                 -> {"ok":true,"state":"running",...}
    {"op":"start"}                  -> {"progress":"one line"} ...  {"ok":true,"docker_socket":...}
    {"op":"stop","force":false}     -> {"ok":true}; the agent ends after it
    anything that fails             -> {"ok":false,"kind":"Unavailable","error":"one line","hint":"..."}
"""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.base import errors
from engine.base.errors import EngineError, NotSupported, Unavailable

_CONNECT_TIMEOUT_S = 5.0
_STATUS_TIMEOUT_S = 10.0
_LONG_TIMEOUT_S = 3600.0  # a first start may build the image
_LINE_MAX_BYTES = 1 << 20
_KINDS: dict[str, Callable[[str], EngineError]] = {
    "InvalidArgument": errors.InvalidArgument,
    "Conflict": errors.Conflict,
    "Denied": errors.Denied,
    "OutOfSpace": errors.OutOfSpace,
    "Unavailable": errors.Unavailable,
    "NotSupported": errors.NotSupported,
}


class AgentClient:
    """Asks the agent that listens on one socket; every call is a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def status(self) -> dict[str, Any]:
        """Return the machine's status; `state` is a `hostagent.machine.model.Status`.

        Raises:
            Unavailable: no agent listens.
        """
        return self._call({"op": "status"}, timeout_s=_STATUS_TIMEOUT_S)

    def start(self, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
        """Return when the engine in the machine answers; `progress` hears what takes long.

        Raises:
            Unavailable: no agent listens, or the machine cannot be started.
            EngineError: as the agent says.
        """
        return self._call({"op": "start"}, timeout_s=_LONG_TIMEOUT_S, progress=progress)

    def stop(self, *, force: bool = False) -> None:
        """Return when the machine is off; raises as `start` does."""
        self._call({"op": "stop", "force": force}, timeout_s=_LONG_TIMEOUT_S)

    def _call(
        self, request: dict[str, Any], *, timeout_s: float, progress: Callable[[str], None] = lambda _: None
    ) -> dict[str, Any]:
        try:
            with _connect(self._path) as sock:
                sock.settimeout(timeout_s)
                sock.sendall(json.dumps(request).encode() + b"\n")
                for line in _lines(sock):
                    reply: dict[str, Any] = json.loads(line)
                    if "progress" in reply:
                        progress(str(reply["progress"]))
                        continue
                    return _checked(reply)
        except TimeoutError as err:
            raise Unavailable(
                f"{self._path}: no answer from the host agent within {timeout_s:.0f} s"
            ) from err
        except (OSError, ValueError) as err:
            raise Unavailable(f"{self._path}: no host agent answers: {err}") from err
        raise Unavailable(f"{self._path}: the host agent ended while it was asked")


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    if reply.get("ok") is True:
        return reply
    make = _KINDS.get(str(reply.get("kind")), EngineError)
    error = make(str(reply.get("error", "the host agent gave no reason")))
    error.hint = str(reply.get("hint", ""))
    raise error


def _lines(sock: socket.socket) -> Iterator[bytes]:
    buffer = b""
    while data := sock.recv(65536):
        buffer += data
        if len(buffer) > _LINE_MAX_BYTES:
            raise ValueError("an answer without an end")
        *whole, buffer = buffer.split(b"\n")
        yield from whole


if sys.platform == "win32":

    def _connect(path: Path) -> socket.socket:
        raise NotSupported(
            f"{path}: the host agent's socket needs unix sockets, which Python lacks on Windows"
        )
else:

    def _connect(path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_CONNECT_TIMEOUT_S)
            sock.connect(str(path))
        except BaseException:
            sock.close()
            raise
        return sock
