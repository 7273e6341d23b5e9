"""An image with a trap wherever an engine might look for its own: nothing of it runs in a process of ours.

CVE-2019-14271 (libraries of the name service), CVE-2022-1227 (nsenter), CVE-2026-41567 (decompressors), and
what only an interpreter has: modules and codecs. A trap that is sprung makes /tmp/marker.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import engine as package
from tests.support.attacker import evil_library
from tests.support.engine import Engine, write_image

pytestmark = pytest.mark.requires("root", "namespaces", "net_admin", "nftables", "busybox", "compiler")

_MODULE = b"open('/tmp/marker', 'a').write(__name__)\n"
_MODULES = "warnings uuid stringprep traceback linecache tokenize locale pwd grp subprocess tempfile getpass"
_MODULES += " encodings/idna encodings/cp437 encodings/punycode sitecustomize"
_SCRIPT = b"#!/bin/sh\necho $0 >>/tmp/marker\n"
_PROGRAMS = (
    "nsenter ps tar xz unxz gzip gunzip pigz unpigz zstd unzstd bzip2 lz4 getent mount umount nsswitch"
)
_PROGRAMS += " runc crun tini docker-init newuidmap chroot busybox.static fuse-overlayfs"
_PLACES = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin")
_LIBRARIES = {
    "x86_64": ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "lib", "usr/lib"),
    "aarch64": ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib", "usr/lib"),
}[platform.machine()]


def traps() -> dict[str, bytes]:
    """Return the files of the image, by path without the leading slash."""
    homes = [Path(module.__file__ or "").parents[1] for module in (package, msgspec)]
    files = {
        f"{str(place).lstrip('/')}/{name}.py": _MODULE
        for place in {*sys.path, os.path.dirname(os.__file__), sys.prefix, *map(str, homes)}
        if str(place).startswith("/")
        for name in _MODULES.split()
    }
    files |= {f"{place}/{name}": _SCRIPT for place in _PLACES for name in _PROGRAMS.split()}
    library = evil_library()
    for place in _LIBRARIES:
        files |= {f"{place}/libnss_{name}.so.2": library for name in ("evil", "files", "dns", "compat")}
        files[f"{place}/gconv/gconv-modules"] = b"module UTF-8// INTERNAL evil 1\n"
        files[f"{place}/gconv/evil.so"] = library
    files["evil.so"] = library
    files["etc/ld.so.preload"] = b"/evil.so\n"
    files["etc/nsswitch.conf"] = b"passwd: evil files\ngroup: evil files\nhosts: evil files\n"
    return files


@pytest.fixture(scope="module")
def hostile(engine: Engine) -> str:
    """The name of the image."""
    archive = engine.base / "hostile.tar"
    write_image(
        archive, "hostile:latest", traps(), User="user:user", WorkingDir="/seed", Env=["PATH=/sbin:/bin"]
    )
    engine.load(archive)
    return "hostile:latest"


def root_of(engine: Engine, container: str) -> Path:
    return Path(f"/proc/{engine.state(container)['Pid']}/root")


def test_nothing_of_the_image_runs_but_what_was_asked_for(engine: Engine, hostile: str) -> None:
    container = engine.begin("sleep", "1000", Image=hostile, Tty=True)
    marker = root_of(engine, container) / "tmp/marker"

    assert engine.exec(container, "id", "-u") == (0, "1000\n", "")
    for user in ("user", "root:user", "1000:0"):
        body = {"Cmd": ["true"], "User": user, "AttachStdout": True, "Tty": True}
        exec_id = engine.post(f"/containers/{container}/exec", body).json["Id"]
        engine.post(f"/exec/{exec_id}/start", {"Detach": True})
    assert engine.exec(container, "no-such-\u00fc")[0] == 127
    titles = engine.get(f"/containers/{container}/top?ps_args=-ef").json["Titles"]
    assert "PID" in titles
    engine.get(f"/containers/{container}/logs?stdout=1&stderr=1&timestamps=1")
    engine.get(f"/containers/{container}/json?size=1")
    engine.post(f"/containers/{container}/resize?h=20&w=70")
    engine.post(f"/containers/{container}/pause")
    engine.post(f"/containers/{container}/unpause")
    assert not marker.exists(), marker.read_text()
    engine.post(f"/containers/{container}/restart?t=0")

    assert not (root_of(engine, container) / "tmp/marker").exists()


_ENTER = "import os, pwd, sys; os.chroot(sys.argv[1]); os.chdir('/'); "
NAIVE = {
    "module": "import uuid",
    "codec": "'a'.encode('cp437')",
    "name service": "pwd.getpwnam('nobody')",
    "program": "os.execv('/usr/bin/unpigz', ['unpigz'])",
}


@pytest.mark.parametrize("what", NAIVE)
def test_the_traps_catch_who_is_not_careful(engine: Engine, hostile: str, what: str) -> None:
    """The control."""
    container = engine.begin("sleep", "1000", Image=hostile)
    root = root_of(engine, container)

    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _ENTER + NAIVE[what], str(root)],
        check=False, timeout=60, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip

    assert (root / "tmp/marker").exists()
