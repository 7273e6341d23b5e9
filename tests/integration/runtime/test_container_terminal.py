import msgspec
import pytest

from engine.containers.shims import StartFailed
from engine.spec.runtime import Capabilities, Spec
from tests.support.shimlab import Lab

pytestmark = pytest.mark.requires("root", "namespaces", "busybox")


def test_the_console_is_the_terminal(lab: Lab) -> None:
    async def story() -> None:
        code, text = await lab.run_to_end("sh", "-c", "echo to the console > /dev/console", terminal=True)
        assert (code, text) == (0, "to the console\r\n")

    lab.go(story)


def test_an_exec_gets_no_terminal_of_another_directory_than_devpts(lab: Lab) -> None:
    """A container that can mount may put anything at /dev/pts; its files are not taken for terminals."""

    async def story() -> None:
        shim = await lab.spawn(
            "sh",
            "-c",
            "mount -t tmpfs none /dev/pts && ln -s /etc /dev/pts/ptmx && echo done && exec sleep 1000",
            edit=may_mount,
        )
        client = await lab.attach(shim, framed=False)
        await shim.start()
        await client.until(b"done\n")
        await client.close()
        with pytest.raises(StartFailed, match="/dev/pts is not a devpts"):
            await lab.exec(shim, "e", "true", terminal=True)
        await shim.delete()

    lab.go(story)


def may_mount(spec: Spec) -> Spec:
    assert spec.process is not None
    names = ("CAP_SYS_ADMIN",)
    held = Capabilities(bounding=names, effective=names, permitted=names)
    return msgspec.structs.replace(spec, process=msgspec.structs.replace(spec.process, capabilities=held))
