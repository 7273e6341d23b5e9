from collections.abc import Iterator

import pytest

from tests.support.engine import Engine, running


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An engine that the tests of a module share and leave running."""
    yield from running()


@pytest.fixture
def own_engine() -> Iterator[Engine]:
    """An engine that the test may kill."""
    yield from running()
