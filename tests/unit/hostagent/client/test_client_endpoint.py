"""Which engine a command talks to."""

import pytest

from engine.base.errors import InvalidArgument
from hostagent.client.endpoint import EXPLICIT, MACHINE, NATIVE, Choice, choose


@pytest.mark.parametrize(
    ("host", "native", "environ", "choice"),
    [
        (None, False, {}, Choice(MACHINE, "default")),
        (None, False, {"PYENGINE_INSTANCE": "dev"}, Choice(MACHINE, "dev")),
        (None, False, {"DOCKER_HOST": "tcp://h:1"}, Choice(EXPLICIT, "tcp://h:1")),
        (None, False, {"DOCKER_HOST": "unix:///d", "PYENGINE_MODE": "machine"}, Choice(MACHINE, "default")),
        (None, True, {"DOCKER_HOST": "unix:///d"}, Choice(NATIVE, "unix:///run/pyengine/pyengine.sock")),
        (
            None,
            False,
            {"PYENGINE_MODE": "native", "PYENGINE_RUN": "/r"},
            Choice(NATIVE, "unix:///r/pyengine.sock"),
        ),
        ("unix:///s", False, {"DOCKER_HOST": "tcp://h:1"}, Choice(EXPLICIT, "unix:///s")),
        ("/s", False, {}, Choice(EXPLICIT, "unix:///s")),
    ],
)
def test_flags_win_over_the_environment(
    host: str | None, native: bool, environ: dict[str, str], choice: Choice
) -> None:
    assert choose(host, native, environ) == choice


@pytest.mark.parametrize(
    ("host", "environ"),
    [
        ("ssh://somewhere", {}),
        ("sock", {}),
        ("tcp://", {}),
        (None, {"DOCKER_HOST": "http://h"}),
        (None, {"PYENGINE_MODE": "fast"}),
    ],
)
def test_another_address_is_refused(host: str | None, environ: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="invalid"):
        choose(host, False, environ)
