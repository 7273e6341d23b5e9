"""ed25519 key pairs, made here and never by the guest: who made a key can pin it."""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.base.atomicfile import write_atomic


def ensure_key(path: Path) -> str:
    """Return the public line of the private key in `path`, which is made (0600) when it is missing.

    The line is ``ssh-ed25519 AAAA...``, as authorized_keys has it.
    """
    try:
        private = path.read_bytes()
    except FileNotFoundError:
        private = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        write_atomic(path, private, mode=0o600)
    return public_line(private)


def public_line(private: bytes) -> str:
    """Return the public half of an OpenSSH private key, in one line."""
    key = serialization.load_ssh_private_key(private, password=None)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode("ascii")


def is_private(path: Path) -> bool:
    """Tell whether nobody but the owner may read `path`; always true where modes mean nothing."""
    return os.name == "nt" or not path.stat().st_mode & 0o077
