"""What is different under runc and crun; that the rest is not, `EACH_RUNTIME` proves in the files beside."""

import platform

import msgspec
import pytest

from engine.containers.syscalls import default_profile
from engine.spec.runtime import Spec
from tests.support.attacker import install_attacker
from tests.support.shimlab import EACH_RUNTIME, Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


@EACH_RUNTIME
@pytest.mark.requires("compiler")
def test_characters_are_kept_out_of_terminals(lab: Lab) -> None:
    """Whatever the upper half of the request, at which the kernel does not look."""
    install_attacker(lab.rootfs / "bin/attacker")

    def edit(spec: Spec) -> Spec:
        profile = default_profile((), platform.machine())
        return msgspec.structs.replace(spec, linux=msgspec.structs.replace(spec.linux, seccomp=profile))

    async def story() -> None:
        assert await lab.run_to_end("attacker", "terminal", edit=edit) == (0, "ENOTTY\n" + "EPERM\n" * 4)
        assert await lab.run_to_end("attacker", "terminal") == (0, "ENOTTY\n" * 5)  # the control

    lab.go(story)
