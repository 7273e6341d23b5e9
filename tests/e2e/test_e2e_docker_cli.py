"""The unmodified docker command line, pointed at the machine as the README says."""

import json
import shlex
import shutil

import pytest

from tests.support.home import COMMAND_TIMEOUT_S, Home, Result

pytestmark = pytest.mark.requires("docker_cli")


class Docker:
    """docker with the variables that `pyengine env` prints."""

    def __init__(self, home: Home) -> None:
        self.program = shutil.which("docker") or "docker"
        words = [shlex.split(line) for line in home.output("env").splitlines() if line.startswith("export ")]
        variables = dict(word.split("=", 1) for line in words for word in line[1:])
        assert "DOCKER_HOST" in variables
        home.env.update(variables)
        self.home = home

    def run(self, *args: str, stdin: bytes = b"") -> Result:
        return Result.of([self.program, *args], self.home.env, stdin, COMMAND_TIMEOUT_S)

    def output(self, *args: str, stdin: bytes = b"") -> str:
        result = self.run(*args, stdin=stdin)
        assert result.code == 0, f"docker {' '.join(args)}: {result}"
        return result.out.removesuffix("\n")


@pytest.fixture
def docker(machine: Home) -> Docker:
    view = Home(machine.directory)  # the shared one keeps its environment
    return Docker(view)


def test_version_and_info_answer(docker: Docker) -> None:
    version = json.loads(docker.output("version", "--format", "{{json .Server}}"))

    assert version["Os"] == "linux"
    assert (
        docker.output("info", "--format", "{{.OperatingSystem}}") == "pyengine machine (Debian GNU/Linux 13)"
    )


def test_run_prints_and_keeps_the_exit_code(docker: Docker) -> None:
    assert docker.output("run", "--rm", "busybox", "echo", "hello") == "hello"
    assert docker.output("run", "--rm", "-i", "busybox", "cat", stdin=b"piped") == "piped"
    assert docker.run("run", "--rm", "busybox", "sh", "-c", "exit 7").code == 7
    assert docker.run("run", "--rm", "busybox", "/nothing").code == 127
    assert docker.run("run", "--rm", "busybox", "/etc/passwd").code == 126
    assert docker.run("run", "--rm", "no-such-image.invalid/x").code == 125


def test_a_terminal_works(docker: Docker) -> None:
    with docker.home.terminal("run", "-it", "--rm", "busybox", "sh", program=docker.program) as terminal:
        terminal.expect("/ #")
        terminal.type("tty\n")
        terminal.expect("/dev/pts/")
        terminal.type("exit 3\n")
        assert terminal.end() == 3


def test_the_life_of_a_container(docker: Docker) -> None:
    identity = docker.output(
        "create", "--name", "life", "--label", "a=b", "busybox", "sh", "-c", "echo up; sleep 1000"
    )
    try:
        docker.output("start", "life")
        assert (
            docker.output("ps", "--filter", "label=a=b", "--format", "{{.Names}} {{.State}}")
            == "life running"
        )
        assert docker.output("exec", "life", "echo", "in") == "in"
        assert docker.output("logs", "life") == "up"
        assert docker.output("inspect", "--format", "{{.Id}}", "life") == identity
        docker.output("kill", "life")
        assert docker.output("wait", "life") == "137"
    finally:
        docker.output("rm", "-f", "life")
    assert docker.output("ps", "-aq", "--filter", "name=life") == ""


def test_images_are_listed_tagged_and_removed(docker: Docker) -> None:
    docker.output("tag", "busybox:latest", "other:2")
    assert "other:2" in docker.output("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    docker.output("rmi", "other:2")
    assert "other:2" not in docker.output("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
