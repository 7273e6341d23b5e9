"""The sequence that detaches a client, from docker's words to bytes.

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
