"""The ledger of threats says of each what tries it: all that it names must be there."""

import ast
import functools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

_REPOSITORY = Path(__file__).parents[2]
_LEDGER: dict[str, Any] = tomllib.loads((_REPOSITORY / "tests/advisories.toml").read_text(encoding="utf-8"))
_ROWS = [f"A{number}" for number in range(1, 17)] + [f"B{number}" for number in range(1, 11)]
_ROWS += [f"K{number}" for number in range(1, 10)]
_ID = re.compile(r"CVE-20[0-9]{2}-[0-9]{4,}|GHSA(-[0-9a-z]{4}){3}")


@functools.cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((_REPOSITORY / file).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def check_tests(entry: dict[str, Any]) -> None:
    assert entry["tests"]
    assert len(set(entry["tests"])) == len(entry["tests"])
    for test in entry["tests"]:
        file, _, name = test.partition("::")
        assert name.startswith("test_"), test
        assert name in names_in(file), test


def test_every_row_is_in_the_ledger() -> None:
    assert list(_LEDGER["rows"]) == _ROWS


@pytest.mark.parametrize("row", _ROWS)
def test_a_row_has_tests_that_exist(row: str) -> None:
    assert _LEDGER["rows"][row].keys() == {"what", "tests"}
    check_tests(_LEDGER["rows"][row])


@pytest.mark.parametrize("entry", _LEDGER["advisories"], ids=lambda entry: entry["id"])
def test_an_advisory_has_tests_that_exist_or_a_reason(entry: dict[str, Any]) -> None:
    assert _ID.fullmatch(entry["id"])
    assert entry["of"]
    assert entry["row"] in _ROWS
    if "not_applicable" in entry:
        assert entry.keys() == {"id", "of", "row", "not_applicable"}
        assert len(entry["not_applicable"]) > len("it does not")
        return
    assert entry.keys() == {"id", "of", "row", "tests"}
    check_tests(entry)


def test_an_advisory_is_there_once() -> None:
    ids = [entry["id"] for entry in _LEDGER["advisories"]]
    assert sorted(set(ids)) == sorted(ids)
