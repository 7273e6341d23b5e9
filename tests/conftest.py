"""Skip what this machine cannot run; fail instead when CI says it must."""

import os

import pytest

from tests.support.probes import PROBES


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check `@pytest.mark.requires("kvm", ...)` against the machine."""
    for marker in item.iter_markers("requires"):
        for name in marker.args:
            if PROBES[name]():
                continue
            message = f"this machine lacks: {name}"
            must_have = os.environ.get("PYENGINE_TEST_MUST_HAVE", "").split(",")
            if name in must_have or "all" in must_have:
                pytest.fail(message)
            pytest.skip(message)
