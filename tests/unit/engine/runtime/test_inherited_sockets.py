import pytest

from engine.runtime.inherited import Given, sockets_of, told
from engine.spec.runtime import Process, Spec


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({"LISTEN_FDS": "2", "LISTEN_PID": "7"}, 2),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "8"}, 0),
        ({"LISTEN_FDS": "2"}, 0),
        ({"LISTEN_FDS": "-2", "LISTEN_PID": "7"}, 0),
        ({"LISTEN_FDS": "two", "LISTEN_PID": "7"}, 0),
        ({"LISTEN_FDS": "9999999", "LISTEN_PID": "7"}, 0),
        ({}, 0),
    ],
)
def test_sockets_are_for_the_process_that_is_named(environment: dict[str, str], count: int) -> None:
    assert sockets_of(environment, 7) == count


def test_the_first_process_is_told_of_its_sockets() -> None:
    spec = Spec(oci_version="1.2.0", process=Process(cwd="/", args=("x",), env=("A=b",)))

    found = told(spec, Given((3, 4, 5), sockets=2)).process

    assert found is not None
    assert found.env == ("A=b", "LISTEN_FDS=2", "LISTEN_PID=1")
    assert told(spec, Given((3,), sockets=0)) is spec
