"""The key sequence with which a person leaves a terminal while the container runs on; no I/O.

The client, and for clients that do not look themselves the shim, watch for it.

Source: docker documentation, "Override the detach sequence".
"""

from engine.base.errors import InvalidArgument

DEFAULT = b"\x10\x11"  # ctrl-p ctrl-q
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}
_MAX_KEYS = 32


def parse(text: str) -> bytes:
    """Return the bytes of `ctrl-p,ctrl-q` and its like; empty text: the default.

    Raises:
        InvalidArgument: a key is none.
    """
    if not text:
        return DEFAULT
    keys = text.split(",")
    if len(keys) > _MAX_KEYS:
        raise InvalidArgument(f"invalid detach keys: more than {_MAX_KEYS}")
    return bytes(_key(key) for key in keys)


def _key(key: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    letter = key.removeprefix("ctrl-").lower()
    if key.startswith("ctrl-") and letter in _CONTROL:
        return _CONTROL[letter]
    if key.startswith("ctrl-") and len(letter) == 1 and "a" <= letter <= "z":
        return ord(letter) - ord("a") + 1
    raise InvalidArgument(f"invalid detach keys: unknown character {key!r}")


class DetachKeys:
    """Looks for one sequence in a stream of input.

    Keys that may be the beginning of the sequence are held back until it is
    known, as docker does.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return the input to pass on, and whether the sequence is complete.

        What follows a complete sequence is dropped.
        """
        if not self._keys:
            return data, False
        data = self._held + data
        at = data.find(self._keys)
        if at >= 0:
            self._held = b""
            return data[:at], True
        keep = self._beginning_bytes(data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep], False

    def _beginning_bytes(self, data: bytes) -> int:
        for size in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:size]):
                return size
        return 0
