"""What `pyengine-oci` says when it fails, and where: others read it."""

import json
import os
import subprocess

import pytest

from tests.support.ocibundle import TIMEOUT_S, Bundles

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


def test_errors_have_the_words_that_containerd_and_podman_look_for(bundles: Bundles) -> None:
    for verb in ("state", "kill", "delete", "start", "ps"):
        assert bundles.call(verb, "c").stderr == "pyengine-oci: container does not exist: c\n"

    bundles.start("c", "true")
    bundles.ended("c")

    done = bundles.call("kill", "c", "KILL")
    assert (done.returncode, done.stderr) == (
        1, "pyengine-oci: cannot kill container c: container not running\n",
    )  # fmt: skip


def test_the_log_has_the_reason_where_standard_error_cannot_be_written(bundles: Bundles) -> None:
    log = bundles.base / "log.json"
    argv = bundles.argv("--log", str(log), "--log-format", "json", "state", "c")
    unwritable = os.open(os.devnull, os.O_RDONLY)  # what containerd gives where nobody wants the streams
    try:
        done = subprocess.run(argv, stderr=unwritable, timeout=TIMEOUT_S, check=False)
    finally:
        os.close(unwritable)

    assert done.returncode == 1
    (line,) = log.read_text().splitlines()
    assert (json.loads(line)["level"], json.loads(line)["msg"]) == ("error", "container does not exist: c")


def test_the_version_is_told_in_the_form_that_dockerd_parses(bundles: Bundles) -> None:
    first, second = bundles.ok("--version").splitlines()

    assert first.startswith("pyengine-oci version ")
    assert second.startswith("spec: ")
