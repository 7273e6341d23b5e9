from pathlib import Path

import pytest

from engine.shim.oom import was_oom_killed

V2 = "low 0\nhigh 0\nmax 12\noom 1\noom_kill {}\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(("name", "text"), [("a/c/memory.events", V2), ("memory/a/c/memory.oom_control", V1)])
@pytest.mark.parametrize("count", [0, 1, 10])
def test_the_kernels_counter_is_read_in_both_versions(
    tmp_path: Path, name: str, text: str, count: int
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text.format(count))

    assert was_oom_killed("/a/c", root=tmp_path) is (count > 0)


def test_a_kill_in_a_group_that_the_container_made_counts_with_v1_too(tmp_path: Path) -> None:
    own = tmp_path / "memory/a/c"
    for group, count in ((own, 0), (own / "made", 1), (own / "made/quiet", 0)):
        group.mkdir(parents=True)
        (group / "memory.oom_control").write_text(V1.format(count))

    assert was_oom_killed("/a/c", root=tmp_path)
    assert not was_oom_killed("/a/c/made/quiet", root=tmp_path)


def test_without_a_control_group_nothing_is_known(tmp_path: Path) -> None:
    assert not was_oom_killed("", root=tmp_path)
    assert not was_oom_killed("/gone", root=tmp_path)
