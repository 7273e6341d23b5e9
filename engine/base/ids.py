"""Random identifiers, and the shape that docker gives them."""

import re
import secrets

_ID = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
SHORT_CHARS = 12


def new_id() -> str:
    """Return 64 random hexadecimal digits."""
    return secrets.token_hex(32)


def is_id(text: str) -> bool:
    """Tell whether `text` is a whole id; short ids and names are not."""
    return _ID.match(text) is not None


def short(identifier: str) -> str:
    """Return the twelve digits that people see."""
    return identifier.removeprefix("sha256:")[:SHORT_CHARS]
