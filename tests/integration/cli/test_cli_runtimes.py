"""`--runtime`: runc and crun in the place of the built-in runtime, through the whole engine."""

import contextlib
import shutil

import pytest

from tests.support.home import COMMAND_TIMEOUT_S, PYENGINE, Result
from tests.support.pyengined import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox")


def pyengine(engine: Engine, *args: str) -> Result:
    return Result.of([str(PYENGINE), *args], engine.env, b"", COMMAND_TIMEOUT_S)


@pytest.fixture(params=["pyengine", "runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name != "pyengine" and shutil.which(name) is None:
        pytest.skip(f"this machine lacks: {name}")
    return name


def test_a_container_runs_with_network_volume_and_user(engine: Engine, runtime: str) -> None:
    script = (
        "id -u; hostname; ip -o addr show eth0 | wc -l; touch /data/x; cat /etc/hosts | grep -c box; exit 5"
    )
    result = pyengine(engine, "run", "--rm", "--runtime", runtime, "-h", "box", "-u", "0", "-v", "/data",
                      "busybox", "sh", "-c", script)  # fmt: skip

    assert (result.code, result.out.split(), result.err) == (5, ["0", "box", "1", "1"], "")


def test_exec_stop_and_inspect(engine: Engine, runtime: str) -> None:
    name = pyengine(engine, "run", "-d", "--runtime", runtime, "busybox", "sleep", "1000").out.strip()

    assert pyengine(engine, "exec", name, "echo", "hi").out == "hi\n"
    assert pyengine(engine, "exec", name, "no-such-program").code == 127
    with contextlib.closing(engine.api()) as api:
        assert api.get(f"/containers/{name}/json")["HostConfig"]["Runtime"] == runtime
    assert pyengine(engine, "stop", "-t", "0", name).code == 0
    assert pyengine(engine, "start", name).code == 0
    assert pyengine(engine, "rm", "-f", name).code == 0


def test_a_program_that_is_not_there_is_127(engine: Engine, runtime: str) -> None:
    assert pyengine(engine, "run", "--rm", "--runtime", runtime, "busybox", "no-such-program").code == 127


def test_info_lists_what_is_installed_and_another_name_is_refused(engine: Engine, runtime: str) -> None:
    with contextlib.closing(engine.api()) as api:
        info = api.get("/info")
    refused = pyengine(engine, "run", "--runtime", "kata", "busybox", "true")

    assert runtime in info["Runtimes"]
    assert info["DefaultRuntime"] == "pyengine"
    assert refused.code == 125
    assert "unknown or invalid runtime name: kata" in refused.error
