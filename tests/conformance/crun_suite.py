"""crun's own Python tests, against any runtime.

They are written to a directory of our own from the tag 1.8.1 of the check-out (from what is
checked out where the tag is missing) and run one by one: one that hangs spoils no other. What
they run in containers is `init.c`, built without seccomp.h. libmount_stand_in.py is put in the
place of Python's libmount.

They give crun's own flags `--cgroup-manager` and `--config` with each call. Other runtimes are
reached through a script that leaves out those two where they ask for what is the default.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conformance import children, tap
from tests.conformance.runtimes import Runtime
from tests.conformance.verdicts import Verdict

NAME = "crun"
_ADAPTER = """#!/bin/sh
left=$#
while [ $left -gt 0 ]; do
    case "$1 $2" in
        "--cgroup-manager cgroupfs" | "--config config.json") shift 2; left=$((left - 2)) ;;
        *) set -- "$@" "$1"; shift; left=$((left - 1)) ;;
    esac
done
exec %s "$@"
"""
_TAG = "1.8.1"
_BUILD_TIMEOUT_S = 120.0
_TEST_TIMEOUT_S = 30.0
_BY_CHANCE = frozenset({"exec_write_pid_file"})  # wants a pid of five digits
_LOAD = "import importlib, json, sys; tests = importlib.import_module(sys.argv[1]).all_tests"
_LIST = f"{_LOAD}; print(json.dumps(list(tests)))"
_RUN = f"{_LOAD}; import tests_utils; tests_utils.tests_main({{sys.argv[2]: tests[sys.argv[2]]}})"


class Suite:
    """The tests, made ready in a directory."""

    def __init__(self, checkout: Path, directory: Path) -> None:
        known = _git(checkout, "tag", "--list", _TAG).decode().strip()
        self.revision = known or _git(checkout, "describe", "--always", "--tags").decode().strip()
        archive = _git(checkout, "archive", "--format=tar", known or "HEAD", "tests")
        subprocess.run(["tar", "-x", "-C", directory], input=archive, check=True)
        self._directory = directory  # tests name their helper tests/init
        self._tests = directory / "tests"
        shutil.copy(Path(__file__).with_name("libmount_stand_in.py"), self._tests / "libmount.py")
        (directory / "config.h").touch()
        self._init = self._tests / "init"
        source = self._tests / "init.c"
        self._adapter = directory / "adapter"
        self._environment = {**os.environ, "PYTHONPATH": str(self._tests)}
        argv = ["gcc", "-static", "-w", f"-I{directory}", "-o", str(self._init), str(source)]
        subprocess.run(argv, check=True, timeout=_BUILD_TIMEOUT_S)

    def run(self, runtime: Runtime) -> Iterator[tuple[str, Verdict]]:
        """Yield the verdict of each test, named by file and test."""
        program = runtime.path if runtime.name == NAME else self._adapted(runtime.path)
        env = {
            **self._environment,
            "INIT": str(self._init),
            "OCI_RUNTIME": program,
            "LANG": "C",
        }
        for path in sorted(self._tests.glob("test_*.py")):
            for name in sorted(self._names(path.stem) - _BY_CHANCE):
                argv = [sys.executable, "-B", "-c", _RUN, path.stem, name]
                code, out, _ = children.run(
                    argv,
                    cwd=self._directory,
                    env=env,
                    timeout_s=_TEST_TIMEOUT_S,
                    without_unified=runtime.without_unified,
                )
                verdicts = [verdict for _, verdict in tap.read(out)]
                ended = len(verdicts) == 1 and code == 0
                yield f"{path.stem}: {name}", verdicts[0] if ended else Verdict.FAILED

    def _adapted(self, program: str) -> str:
        self._adapter.write_text(_ADAPTER % shlex.quote(program), encoding="utf-8")
        self._adapter.chmod(0o755)
        return str(self._adapter)

    def _names(self, module: str) -> set[str]:
        argv = [sys.executable, "-B", "-c", _LIST, module]
        listing = subprocess.run(
            argv, cwd=self._directory, env=self._environment, check=True, capture_output=True, timeout=30.0
        )
        return set(json.loads(listing.stdout))


def _git(checkout: Path, *words: str) -> bytes:
    argv = ["git", "-C", str(checkout), *words]
    return subprocess.run(argv, check=True, capture_output=True, timeout=_BUILD_TIMEOUT_S).stdout
