from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ocibundle import Bundles
from tests.support.ocibundle import bundles as lend_bundles
from tests.support.ocilab import OciLab
from tests.support.shimlab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


@pytest.fixture
def oci(tmp_path: Path) -> Iterator[OciLab]:
    made = OciLab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def bundles() -> Iterator[Bundles]:
    yield from lend_bundles()
