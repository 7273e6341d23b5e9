import pytest

from engine.runtime.sources import of_another


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("/proc/7/root/dev/shm", ("/proc/7", "dev/shm")),
        ("/proc/9/fd/4/root/dev/shm", ("/proc/9/fd/4", "dev/shm")),
        ("/proc/7/root", None),
        ("/srv/root/data", None),
        ("/proc/7/cwd/data", None),
    ],
)
def test_the_mount_of_another_process_is_known_by_its_path(
    source: str, found: tuple[str, str] | None
) -> None:
    assert of_another(source) == found
