import pytest

from engine.base.errors import InvalidArgument
from engine.containers import limits
from engine.spec.docker import HostConfig


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (HostConfig(nano_cpus=2_010_000_000), "range of CPUs is from 0.01 to 2.00"),
        (HostConfig(nano_cpus=-1), "range of CPUs"),
        (HostConfig(cpuset_cpus="0-2"), "requested 0-2, available: 0,1"),
        (HostConfig(cpuset_cpus="1-0"), "Invalid value 1-0 for cpuset cpus"),
        (HostConfig(cpuset_cpus="all"), "Invalid value all for cpuset cpus"),
        (HostConfig(cpuset_cpus="0-99999"), "Invalid value"),
    ],
)
def test_processors_that_are_not_there_are_refused(host: HostConfig, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        limits.check_processors(host, frozenset({0, 1}))


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(),
        HostConfig(nano_cpus=2_000_000_000),
        HostConfig(cpuset_cpus="0-1"),
        HostConfig(cpuset_cpus="1,0"),
    ],
)
def test_processors_that_are_there_are_granted(host: HostConfig) -> None:
    limits.check_processors(host, frozenset({0, 1}))
