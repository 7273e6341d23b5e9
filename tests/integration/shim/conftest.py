import shutil
from collections.abc import Iterator

import pytest

from tests.support.shimlab import Lab


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A place for shims, with the built-in runtime; `EACH_RUNTIME` makes others of it."""
    made = Lab(shutil.which(getattr(request, "param", "")) or "")
    yield made
    made.close()
