"""Containers on a host whose mounts are shared, as with a service manager; here, in a mount namespace."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.ocibundle import Bundles

pytestmark = pytest.mark.requires("root", "namespaces", "busybox", "user_namespaces")

_IDS = [{"containerID": 0, "hostID": 100_000, "size": 1000}]


def run_shared(bundles: Bundles, bundle: Path, *after: str) -> list[str]:
    """Run a bundle where all is shared; return its output and that of a shell line, there, after it."""
    words = bundles.argv("run", "--bundle", str(bundle), "c")
    script = '"$@" && ' + " && ".join(["true", *after])
    done = bundles.command(
        ["unshare", "--mount", "--propagation", "shared", "sh", "-c", script, "sh", *words]
    )
    assert done.returncode == 0, done
    return done.stdout.splitlines()


def with_users(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {"uidMappings": _IDS, "gidMappings": _IDS}


@pytest.fixture(autouse=True)
def _open_to_the_containers_root(bundles: Bundles) -> None:
    bundles.base.chmod(0o711)


def test_the_root_of_a_user_namespace_is_entered(bundles: Bundles) -> None:
    bundle = bundles.bundle("c", "cat", "/proc/self/uid_map", edit=with_users)

    assert run_shared(bundles, bundle)[0].split() == ["0", "100000", "1000"]


@pytest.mark.parametrize("users", [False, True], ids=["root", "users"])
@pytest.mark.parametrize("propagation", ["rslave", "rprivate", "shared"])
def test_what_is_mounted_inside_stays_inside(bundles: Bundles, users: bool, propagation: str) -> None:
    shown = bundles.base / "shown"
    (shown / "inner").mkdir(parents=True)

    def edit(config: dict[str, Any]) -> None:
        config["mounts"].append(
            {"destination": "/tmp", "type": "bind", "source": str(shown), "options": ["rbind"]}
        )
        config["linux"]["rootfsPropagation"] = propagation
        held = config["process"]["capabilities"]
        config["process"]["capabilities"] = {kind: [*names, "CAP_SYS_ADMIN"] for kind, names in held.items()}
        if users:
            with_users(config)

    inside = "mount -t tmpfs inner /tmp/inner && grep -c ' /tmp/inner ' /proc/self/mountinfo"
    bundle = bundles.bundle("c", "sh", "-c", inside, edit=edit)

    found = run_shared(bundles, bundle, f"{{ grep -c {shown} /proc/self/mountinfo || true; }}")

    assert found == ["1", "0"], json.dumps(found)
