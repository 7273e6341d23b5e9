"""Load the libraries of `pyengine-oci` without what they import and this program never calls.

msgspec knows UUIDs, decimals, YAML and TOML; pathlib makes URLs; argparse translates; socket sends files.
Importing what all that takes is a fifth of this program's start, and each verb starts it. So while they load
they find stand-ins, which are gone afterwards: whoever imports one of those modules later gets the real one.
A msgspec that asks a stand-in for more than there is loads once more, with the real ones.
"""

import sys
import types
from collections.abc import Mapping
from typing import cast


class _Unused:
    """A class that no object is of."""

    unknown = None


def _quote(path: bytes) -> str:
    """Be urllib.parse.quote_from_bytes, which `Path.as_uri` calls."""
    from urllib.parse import quote_from_bytes  # noqa: PLC0415 (the point of this module)

    return quote_from_bytes(path)


def _same(text: str) -> str:
    return text


def _one_of(one: str, many: str, count: int) -> str:
    return one if count == 1 else many


_MSGSPEC = "msgspec"
_FOR_MSGSPEC: Mapping[str, Mapping[str, object] | None] = {
    "typing_extensions": None,  # as the import system has it: there is none
    "uuid": {"UUID": _Unused, "SafeUUID": _Unused},
    "decimal": {"Decimal": _Unused},
    "textwrap": {},
    "msgspec.inspect": {},
    "msgspec.msgpack": {},
    "msgspec.toml": {},
    "msgspec.yaml": {},
}
_FOR_OTHERS: Mapping[str, Mapping[str, object] | None] = {
    "urllib": {},
    "urllib.parse": {"quote_from_bytes": _quote},
    "gettext": {"gettext": _same, "ngettext": _one_of},
    "selectors": {},
}


def load() -> None:
    """Import the libraries; what is loaded already stays as it is."""
    put = _put(_FOR_OTHERS)
    import argparse  # noqa: F401, PLC0415
    import pathlib  # noqa: F401, PLC0415
    import socket  # noqa: F401, PLC0415

    _take_away(put)
    put = _put(_FOR_MSGSPEC)
    try:
        import msgspec  # noqa: F401, PLC0415
    except (ImportError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == _MSGSPEC]:
            del sys.modules[name]
    _take_away(put)


def _put(names: Mapping[str, Mapping[str, object] | None]) -> list[str]:
    """Let the modules that are not loaded yet be found in these forms; return their names."""
    put = [name for name in names if name not in sys.modules]
    for name in put:
        attributes = names[name]
        module = None
        if attributes is not None:
            module = types.ModuleType(name)
            vars(module).update(attributes)
        sys.modules[name] = cast("types.ModuleType", module)
    return put


def _take_away(names: list[str]) -> None:
    for name in names:
        sys.modules.pop(name, None)
