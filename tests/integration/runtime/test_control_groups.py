import asyncio
from pathlib import Path

import pytest

from tests.support.shimlab import Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

_CPUSET = Path("/sys/fs/cgroup/cpuset")


@pytest.mark.skipif(not _CPUSET.is_dir(), reason="only the legacy layout has cpusets that start empty")
def test_a_parent_group_that_another_start_has_only_just_made_takes_processes(lab: Lab) -> None:
    """Between its mkdir and its first write a cpuset is empty, and an empty one takes no process."""
    (_CPUSET / lab.cgroup.lstrip("/")).mkdir()

    async def story() -> None:
        assert await lab.run_to_end("echo", "in") == (0, "in\n")

    lab.go(story)


def test_first_starts_of_all_at_once(lab: Lab) -> None:
    async def story() -> None:
        ends = await asyncio.gather(*(lab.run_to_end("echo", "in") for _ in range(8)))
        assert ends == [(0, "in\n")] * 8

    lab.go(story)
