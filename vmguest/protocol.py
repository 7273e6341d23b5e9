r"""The words that the host agent and the guest's PID 1 exchange over virtio-serial.

One JSON object a line, each with a `type`; no I/O here, and nothing but the
standard library, so that both ends and every host can import it. The host
speaks first, because only it knows when a connection is new::

    host                                    guest
      | attach {nonce}                    ->  |    first bytes of every connection; again until `hello` comes
      | <- hello {nonce, version, booted}     |    what came before it is noise of an older connection
      | configure {identity, time, dns}   ->  |    only when not `booted`
      | <- phase {name, at_ms}                |    progress while it boots
      | <- ready {kernel, engine, phases}     |    the engine answers; or
      | <- failed {step, message}             |    one line; the guest powers off
      | ping {time_ns}                    ->  |    heartbeat; the guest steps its clock when it is off
      | <- pong {time_ns, stepped}            |
      | <- ports {id, request}                |    engine.base.portlease, relayed untouched
      | ports {id, reply}                 ->  |
      | shutdown {timeout_s}              ->  |    stop containers, sync, power off

A line is at most `MAX_LINE_BYTES`; longer or malformed ones raise
`ProtocolError`, and who listens to an untrusted peer drops the connection.
"""

import json
from collections.abc import Iterator

VERSION = 1
PORT_NAME = "io.pyengine.control"
MAX_LINE_BYTES = 64 * 1024

Message = dict[str, object]


class ProtocolError(Exception):
    """The peer sent something that is not a line of this protocol."""


def encode(kind: str, **fields: object) -> bytes:
    """Return the line for a message of type `kind`.

    Raises:
        ProtocolError: it would be longer than the other side accepts.
    """
    line = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"message too long: {kind}: {len(line)} bytes")
    return line


class Decoder:
    """Turn bytes, cut anywhere, back into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield each message that `data` completes; empty lines are skipped.

        Raises:
            ProtocolError: a line is too long, is not a JSON object or lacks
                `type`. The rest of `data` can be had by feeding b"".
        """
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if len(line) >= MAX_LINE_BYTES:
                raise ProtocolError(f"line too long: {len(line)} bytes")
            if line.strip():
                yield _parse(line)
        if len(self._buffer) >= MAX_LINE_BYTES:
            size = len(self._buffer)
            self._buffer.clear()
            raise ProtocolError(f"line too long: more than {size} bytes")


def _parse(line: bytes) -> Message:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise ProtocolError(f"not JSON: {line[:80]!r}") from err
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ProtocolError(f"not a message: {line[:80]!r}")
    return value


def text(message: Message, key: str) -> str:
    """Return the string field `key`, or raise ProtocolError."""
    value = message.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"{message['type']}: {key} is not a string")
    return value


def integer(message: Message, key: str) -> int:
    """Return the integer field `key`, or raise ProtocolError."""
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError(f"{message['type']}: {key} is not an integer")
    return value
