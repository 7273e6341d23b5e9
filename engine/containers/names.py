"""Names of containers: docker's grammar, and made-up ones."""

import re
import secrets

from engine.base.errors import InvalidArgument

_GRAMMAR = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z", re.ASCII)
_NAME_MAX_CHARS = 255
_LEFT = (
    "amber bold brave bright calm clever cosmic daring eager early fair fast gentle glad golden grand "
    "happy "
    "humble jolly keen kind lively lucid lucky merry mighty modest nimble noble polite proud quick "
    "quiet rapid "
    "serene sharp silent smart snug steady stoic sunny swift tender tidy vivid warm wise witty young zealous"
)
_RIGHT = (
    "archimedes babbage bell bohr boole cerf church curie dijkstra einstein engelbart euclid euler faraday "
    "fermat fermi feynman galileo gauss goodall hamilton hawking hertz hopper hypatia kay kepler knuth "
    "lamport "
    "leibniz liskov lovelace mccarthy meitner mendel morse newton noether pascal pasteur planck ritchie "
    "shannon "
    "snyder tesla thompson torvalds turing volta wilkes wirth wozniak"
)


def check(name: str) -> str:
    """Return `name` without docker's optional slash.

    Raises:
        InvalidArgument: it breaks the grammar; docker's words.
    """
    if not _GRAMMAR.match(name) or len(name) > _NAME_MAX_CHARS:
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")


def made_up() -> str:
    """Return a name such as `brave_turing`; the caller checks that it is free."""
    return f"{secrets.choice(_LEFT.split())}_{secrets.choice(_RIGHT.split())}"
