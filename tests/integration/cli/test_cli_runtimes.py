"""`--runtime`: runc and crun in the place of the built-in runtime, through the whole engine."""

import contextlib
import json
import shutil
from collections.abc import Iterator

import pytest

from tests.support.home import COMMAND_TIMEOUT_S, PYENGINE, Result
from tests.support.pyengined import Engine

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox", "runc", "crun")


def pyengine(engine: Engine, *args: str) -> Result:
    return Result.of([str(PYENGINE), *args], engine.env, b"", COMMAND_TIMEOUT_S)


@pytest.fixture(params=["pyengine", "runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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
    shown = pyengine(engine, "info").out.splitlines()
    assert f"Runtimes: {' '.join(info['Runtimes'])}" in shown
    assert "Default Runtime: pyengine" in shown
    assert refused.code == 125
    assert "unknown or invalid runtime name: kata" in refused.error


@pytest.fixture(scope="module")
def configured() -> Iterator[Engine]:
    """An engine whose configuration file names a runtime: runc, behind a script that notes its arguments."""
    program = shutil.which("runc")
    engine = Engine()
    script = engine.directory / "noting-runc"
    script.write_text(f'#!/bin/sh\necho "$@" >> {engine.directory}/words\nexec {program} "$@"\n')
    script.chmod(0o755)
    runtimes = {
        "noting": {"path": str(script), "runtimeArgs": ["--debug"]},
        "gone": {"path": "/nowhere/runtime"},
    }
    config = engine.directory / "daemon.json"
    config.write_text(json.dumps({"runtimes": runtimes, "default-runtime": "noting"}))
    try:
        engine.start("--config-file", str(config), "--add-runtime", f"flag={script}")
        yield engine
    finally:
        engine.close()


def test_a_configured_runtime_is_the_default_and_gets_its_arguments(configured: Engine) -> None:
    words = configured.directory / "words"

    name = pyengine(configured, "run", "-d", "busybox", "sleep", "1000").out.strip()
    assert pyengine(configured, "exec", name, "echo", "hi").out == "hi\n"
    with contextlib.closing(configured.api()) as api:
        assert api.get(f"/containers/{name}/json")["HostConfig"]["Runtime"] == "noting"
        info = api.get("/info")
    assert pyengine(configured, "rm", "-f", name).code == 0

    lines = words.read_text().splitlines()
    assert all(line.startswith("--debug --root ") for line in lines)
    assert all(any(f" {verb} " in line for line in lines) for verb in ("create", "start", "exec", "delete"))
    assert info["DefaultRuntime"] == "noting"
    assert info["Runtimes"]["noting"]["runtimeArgs"] == ["--debug"]
    assert {"noting", "gone", "flag", "pyengine", "io.containerd.runc.v2"} <= set(info["Runtimes"])


@pytest.mark.parametrize("name", ["pyengine", "io.containerd.runc.v2"])
def test_the_built_in_runtime_keeps_its_names(configured: Engine, name: str) -> None:
    before = pyengine(configured, "run", "--rm", "busybox", "true").code
    noted = (configured.directory / "words").stat().st_size

    assert pyengine(configured, "run", "--rm", "--runtime", name, "busybox", "echo", "hi").out == "hi\n"

    assert before == 0
    assert (configured.directory / "words").stat().st_size == noted


def test_a_configured_runtime_that_is_not_there_is_refused_by_name(configured: Engine) -> None:
    refused = pyengine(configured, "run", "--runtime", "gone", "busybox", "true")

    assert refused.code == 125
    assert "runtime gone is not installed: /nowhere/runtime is no program" in refused.error


def test_an_engine_does_not_start_with_a_configuration_that_it_does_not_know(configured: Engine) -> None:
    config = configured.directory / "other.json"
    config.write_text('{"live-restore": true}')
    elsewhere = configured.directory / "elsewhere"

    for flags, words in (
        (("--config-file", str(config)), "unknown field `live-restore`"),
        (("--default-runtime", "kata"), "default runtime 'kata' does not exist"),
    ):
        refused = configured.refused(*flags, root=elsewhere, run=elsewhere / "run")
        assert refused.code == 1
        assert words in refused.err
        assert refused.err.count("\n") == 1
    assert not elsewhere.exists()
