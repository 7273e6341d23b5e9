"""A container whose system calls an agent answers, under the shim."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from engine.containers.shims import StartFailed
from engine.spec.runtime import Seccomp, SeccompRule, Spec
from tests.support.agents import TIMEOUT_S, Agent
from tests.support.shimlab import Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


def test_an_agent_answers_for_the_container_and_for_what_is_executed_in_it(lab: Lab, tmp_path: Path) -> None:
    first, second = Agent(tmp_path / "agent.sock"), Agent(tmp_path / "second.sock")

    def ask(spec: Spec) -> Spec:
        profile = Seccomp(
            default_action="SCMP_ACT_ALLOW",
            listener_path=str(tmp_path / "agent.sock"),
            syscalls=(SeccompRule(names=("link", "linkat"), action="SCMP_ACT_NOTIFY"),),
        )
        return msgspec.structs.replace(spec, linux=msgspec.structs.replace(spec.linux, seccomp=profile))

    async def story() -> None:
        with ThreadPoolExecutor(2) as pool:
            served = pool.submit(first.serve, 107)
            shim = await lab.spawn("sh", "-c", "ln /bin/busybox /made; exec sleep 1000", edit=ask)
            await shim.start()
            first.path.rename(tmp_path / "first.sock")
            second.path.rename(first.path)
            also = pool.submit(second.serve, 107)
            client = await lab.exec(shim, "e", "ln", "/bin/busybox", "/made")
            _, errors = await client.streams()
            await client.close()
            assert b"Transport endpoint is not connected" in errors
            assert also.result(TIMEOUT_S) == 1
            first.path.unlink()
            with pytest.raises(StartFailed, match="hand over the seccomp listener"):
                await lab.exec(shim, "f", "true")
            await shim.delete()
            assert served.result(TIMEOUT_S) == 1

    lab.go(story)
    first.close()
    second.close()
    assert (
        first.told["state"]["pid"] == first.told["pid"] == second.told["state"]["pid"] != second.told["pid"]
    )
    assert not (lab.rootfs / "made").exists()
