"""Every field of config.json with every kind of value, decided where it is decided for real: in the plan."""

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.base import jsonio
from engine.base.errors import EngineError
from engine.runtime.cgroups.limits_v1 import writes_v1
from engine.runtime.cgroups.limits_v2 import writes_v2
from engine.runtime.cgroups.plan import components, device_rules
from engine.runtime.plan import plan_container
from engine.spec.runtime import Resources, Spec
from tests.support.ociconfig import FIELDS, MISSING, WHOLE, document

_LAST_CAPABILITY = 40
_SHOWN_MAX = 500


def judge(text: bytes) -> None:
    """Decide what `create` does before it makes anything, for either layout of control groups."""
    spec = jsonio.decode(text, Spec, noun="config.json")
    plan_container(
        spec,
        Path("/bundle"),
        "id",
        layers=(),
        last_capability=_LAST_CAPABILITY,
        held_capabilities=(1 << _LAST_CAPABILITY + 1) - 1,
    )
    components(spec.linux.cgroups_path or "/pyengine/id")
    resources = spec.linux.resources or Resources()
    device_rules(resources)
    writes_v1(msgspec.structs.replace(resources, unified={}))
    cpu = resources.cpu and msgspec.structs.replace(
        resources.cpu, realtime_period=None, realtime_runtime=None
    )
    writes_v2(msgspec.structs.replace(resources, network=None, cpu=cpu))


def refusal(path: str, value: Any) -> str:
    """Return what is said of the document with `value` at `path`; "": it is taken."""
    try:
        judge(document(path, value))
    except EngineError as err:
        said = str(err)
        assert said.isprintable(), (path, value, said)
        assert len(said) < _SHOWN_MAX, (path, said)
        return said
    return ""


def paths(kind: Any, path: str = "") -> Iterator[str]:
    """Yield the fields of the model, named as the table names them."""
    if isinstance(kind, types.UnionType):
        (kind,) = (option for option in kind.__args__ if option is not types.NoneType)
    if path:
        yield path
    origin = typing.get_origin(kind)
    if origin in (tuple, dict) and kind.__args__[-1] is not object:
        item = kind.__args__[0] if origin is tuple else kind.__args__[1]
        yield from paths(item, f"{path}{'[]' if origin is tuple else '{}'}")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield from paths(field.type, f"{path}.{field.encode_name}" if path else field.encode_name)


def test_every_field_of_the_model_is_in_the_table() -> None:
    assert set(paths(Spec)) == set(FIELDS)


def test_the_whole_document_is_taken_and_has_every_field() -> None:
    judge(document("ociVersion", WHOLE["ociVersion"]))

    missing = [path for path in FIELDS if not _is_there(WHOLE, path)]
    assert missing == ["linux.intelRdt", "linux.personality.flags[]"]  # both are refused whatever they hold


def _is_there(inside: Any, path: str) -> bool:
    for step in path.replace("[]", ".0").replace("{}", ".*").split("."):
        try:
            key = 0 if step == "0" else next(iter(inside)) if step == "*" else step
            inside = inside[key]
        except (KeyError, IndexError):
            return False
    return True


@pytest.mark.parametrize("path", FIELDS)
def test_a_wrong_value_is_refused_by_its_fields_name(path: str) -> None:
    field = FIELDS[path]
    for value in field.wrong():
        said = refusal(path, value)
        assert field.name.lower() in said.lower(), (path, _short(value), said)


@pytest.mark.parametrize("path", FIELDS)
def test_a_right_value_is_refused_only_for_another_field(path: str) -> None:
    names = [name.strip("[]{}").lower() for name in path.split(".")]
    for value in FIELDS[path].right():
        said = refusal(path, value)
        assert not said or any(name in said.lower() for name in names), (path, _short(value), said)


def _short(value: Any) -> str:
    return "missing" if value is MISSING else repr(value)[:80]


@pytest.mark.parametrize("text", [b'"\xff"', b'"\\ud800"', b'"a\nb"', b"[" * 100_000, b"9" * 5000])
@pytest.mark.parametrize("path", ["hostname", "process.args[]", "linux.sysctl{}", "linux.devices[].uid"])
def test_what_is_no_json_is_refused_at_any_field(path: str, text: bytes) -> None:
    assert refusal(path, text)
