"""`--preserve-fds` and sockets of LISTEN_FDS: what else the program of a container gets."""

import subprocess
import sys

import pytest

from tests.support.ocilab import TIMEOUT_S, OciLab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")

_READ_ALL = """
for n in 3 4 5 6 40; do test -e /proc/self/fd/$n && echo $n $(cat <&$n); done
echo $LISTEN_FDS $LISTEN_PID
"""
# Opens files at the numbers that it is told, and executes the rest; 8 and up are never to be passed on.
_OPENER = """
import os, sys
numbers, sockets, directory = [int(n) for n in sys.argv[1].split(",")], sys.argv[2], sys.argv[3]
for number in [*numbers, 8]:
    fd = os.open(f"{directory}/{number}", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, f"file {number}".encode(), 0)
    if fd != number:
        os.dup2(fd, number)
        os.close(fd)
    os.set_inheritable(number, True)
if sockets:
    os.environ.update(LISTEN_FDS=sockets, LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[4], sys.argv[4:])
"""


def _run_with(oci: OciLab, numbers: str, *words: str, sockets: str = "") -> subprocess.CompletedProcess[str]:
    runtime = [sys.executable, "-m", "engine.runtime.entry", "--root", str(oci.root)]
    opener = [sys.executable, "-c", _OPENER, numbers, sockets, str(oci.bundle)]
    argv = [*opener, *runtime, *words]
    with (oci.bundle / "output").open("w+") as out, (oci.bundle / "errors").open("w+") as err:
        # Files: a created container holds them open.
        code = subprocess.run(argv, check=False, stdout=out, stderr=err, timeout=TIMEOUT_S).returncode
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read(), err.read())


def _made(oci: OciLab, *words: str) -> tuple[str, ...]:
    oci.write("sh", "-c", _READ_ALL)
    return ("run", *words, "--bundle", str(oci.bundle), oci.id)


def test_as_many_are_passed_on_as_are_asked_for(oci: OciLab) -> None:
    ran = _run_with(oci, "3,4,5", *_made(oci, "--preserve-fds", "2"))

    assert (ran.stdout.splitlines(), ran.stderr) == (["3 file 3", "4 file 4", ""], "")


def test_without_being_asked_for_none_is(oci: OciLab) -> None:
    assert _run_with(oci, "3,4,5", *_made(oci)).stdout.splitlines() == [""]


def test_those_that_are_open_keep_their_numbers_and_the_others_are_told(oci: OciLab) -> None:
    ran = _run_with(oci, "4,40", *_made(oci, "--preserve-fds", "38"))

    assert ran.stdout.splitlines() == ["4 file 4", "40 file 40", ""]
    # The third is 8, which the opener has too.
    assert ran.stderr == "pyengine-oci: warning: of 38 descriptors to preserve 3 are open: not so 3\n"


def test_sockets_come_first_and_the_program_is_told(oci: OciLab) -> None:
    ran = _run_with(oci, "3,4,5", *_made(oci, "--preserve-fds", "1"), sockets="2")

    assert ran.stdout.splitlines() == ["3 file 3", "4 file 4", "5 file 5", "2 1"]


def test_a_created_container_gets_them_when_it_is_started(oci: OciLab) -> None:
    oci.write("sh", "-c", _READ_ALL)
    done = _run_with(
        oci, "3,4", "create", "--preserve-fds", "1", "--bundle", str(oci.bundle), oci.id, sockets="1"
    )
    assert done.returncode == 0, done.stderr

    assert oci.oci("start", oci.id).returncode == 0
    oci.wait()

    assert oci.output().splitlines() == ["3 file 3", "4 file 4", "1 1"]


def test_a_program_that_is_added_gets_them(oci: OciLab) -> None:
    oci.create("sleep", "1000")

    ran = _run_with(oci, "3,4,5", "exec", "--preserve-fds", "1", oci.id, "sh", "-c", _READ_ALL, sockets="2")

    assert ran.stdout.splitlines() == ["3 file 3", ""]


def test_a_hook_of_the_container_gets_none(oci: OciLab) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "test ! -e /proc/self/fd/3 || exit 9"]}
    words = _made(oci, "--preserve-fds", "1")
    oci.write("sh", "-c", _READ_ALL, hooks={"startContainer": [hook]})

    assert _run_with(oci, "3", *words).stdout.splitlines() == ["3 file 3", ""]


def test_a_low_limit_of_descriptors_is_for_new_ones(oci: OciLab) -> None:
    words = _made(oci, "--preserve-fds", "38")
    limits = [{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 20}]
    oci.write("sh", "-c", "test -e /proc/self/fd/40 && ulimit -n", process={"rlimits": limits})

    assert _run_with(oci, "40", *words).stdout.splitlines() == ["20"]


def test_a_negative_number_is_refused(oci: OciLab) -> None:
    oci.write("true")

    ran = oci.oci("run", "--preserve-fds=-1", "--bundle", str(oci.bundle), oci.id)

    assert (ran.returncode, ran.stderr) == (1, "pyengine-oci: --preserve-fds: negative: -1\n")
