"""The host's part imports where Linux's modules and names are missing, not only for a type checker."""

import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, os, pkgutil, signal, socket, sys, types
import engine.base, engine.spec, hostagent

def ours(name):
    return name.partition(".")[0] in {"engine", "hostagent", "vmguest"}

def names():
    for package in (engine.base, engine.spec, hostagent):
        yield from (found.name for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."))
    yield "vmguest.protocol"

wanted = list(names())
for name in wanted:
    importlib.import_module(name)  # so that what others make of the platform is settled
for name in [name for name in sys.modules if ours(name)]:
    del sys.modules[name]

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in missing:
            raise ModuleNotFoundError(f"no module named {name!r} on {sys.platform}")

sys.platform = sys.argv[1]
missing = {"pyroute2"}
if sys.platform == "win32":
    missing |= {"fcntl", "termios", "pwd", "grp", "resource"}
    sys.modules["msvcrt"] = types.ModuleType("msvcrt")
sys.meta_path.insert(0, Missing())
for name in missing:
    sys.modules.pop(name, None)
linux = {os: ["pidfd_open", "memfd_create", "O_PATH", "sched_getaffinity"],
         socket: ["AF_VSOCK", "AF_NETLINK"]}
windows = {os: ["fork", "geteuid", "getuid", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW"],
           signal: ["SIGHUP", "SIGQUIT", "SIGKILL", "SIGWINCH", "SIGTSTP", "SIGUSR1"], socket: ["AF_UNIX"]}
for table in (linux, windows)[: 2 if sys.platform == "win32" else 1]:
    for module, gone in table.items():
        for name in gone:
            if hasattr(module, name):
                delattr(module, name)
for name in wanted:
    importlib.import_module(name)
print(len(wanted), "modules")
"""


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_every_module_of_the_host_imports_on(platform: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, platform], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 60
