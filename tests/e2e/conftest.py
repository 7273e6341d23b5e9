"""One machine, booted once, shared by all tests that do not break it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.home import START_TIMEOUT_S, Home


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here boots a machine."""
    for item in items:
        if "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.requires("qemu", "image_tools"))


def _home() -> Iterator[Home]:
    directory = Path(tempfile.mkdtemp(prefix="pe-"))  # short: sockets lie in it
    home = Home(directory)
    try:
        yield home
    finally:
        home.close()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def machine() -> Iterator[Home]:
    """A home whose default machine runs."""
    for home in _home():
        home.output("machine", "start", timeout_s=START_TIMEOUT_S)
        yield home
        home.output("machine", "stop")
        assert home.qemu_pids() == []


@pytest.fixture
def home() -> Iterator[Home]:
    """A home without a machine."""
    yield from _home()


@pytest.fixture
def own_home(machine: Home) -> Iterator[Home]:
    """A home of the test's own with the image that is built already; its machine is stopped at the end."""
    for home in _home():
        images = machine.directory / "cache/images"
        shutil.copytree(images, home.directory / "cache/images", copy_function=_link)
        yield home
        home.run("machine", "stop")


@pytest.fixture
def own_machine(own_home: Home) -> Home:
    """A running machine that the test may break."""
    own_home.output("machine", "start", timeout_s=START_TIMEOUT_S)
    return own_home


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
