from collections.abc import Iterator

import pytest

from tests.support.shimlab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()
