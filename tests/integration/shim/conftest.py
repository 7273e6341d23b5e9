import shutil
from collections.abc import Iterator

import pytest

from tests.support.shimlab import Lab


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A place for shims, with the built-in runtime; `EACH_RUNTIME` makes others of it."""
    name = getattr(request, "param", "")
    program = shutil.which(name) if name else ""
    if program is None:
        pytest.skip(f"this machine lacks: {name}")
    made = Lab(program)
    yield made
    made.close()
