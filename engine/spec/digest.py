"""Digests: `sha256:` or `sha512:` and lower-case hexadecimal digits, nothing else.

A digest becomes a file name, so whatever comes from outside passes through
`parse` before it touches a path.

Source: OCI image-spec 1.1, descriptor.md, "Digests".
"""

import hashlib
import re
from dataclasses import dataclass

from engine.base.errors import InvalidArgument

_GRAMMAR = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Digest:
    """A checked digest, in two parts that are safe in a path."""

    algorithm: str
    hexadecimal: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hexadecimal}"


def is_digest(text: str) -> bool:
    """Tell whether `text` is a whole digest of an algorithm that is known here."""
    return _GRAMMAR.match(text) is not None


def parse(text: str) -> Digest:
    """Return `text` as a digest.

    Raises:
        InvalidArgument: it is not one, or its algorithm is not known here.
    """
    if not is_digest(text):
        raise InvalidArgument(f"invalid digest: {text[:160]!r}")
    algorithm, _, hexadecimal = text.partition(":")
    return Digest(algorithm, hexadecimal)


def sha256(data: bytes) -> str:
    """Return the digest of `data` as text."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return the chain id of each layer, bottom first.

    The chain id names a layer together with all below it:
    ``chain(n) = sha256(chain(n-1) + " " + diff(n))``.

    Source: OCI image-spec 1.1, config.md, "Layer ChainID".
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(sha256(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
