"""Engines for the tests below: one shared by those that leave it as it was, and one of a test's own."""

from collections.abc import Iterator

import pytest

from tests.support.pyengined import Engine, opened


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[Engine]:
    """A running engine for the whole run."""
    yield from opened()


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """The shared engine, without containers before and after."""
    yield shared_engine
    shared_engine.remove_containers()


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    """A running engine that the test may kill."""
    yield from opened()
