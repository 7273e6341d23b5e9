import os

from hostagent.machine.launch import agent_environment


def test_an_agent_finds_what_the_user_names_from_another_working_directory() -> None:
    given = {
        "PYENGINE_HOME": "here/home",
        "QEMU_SYSTEM_X86_64": "./qemu",
        "QEMU_SYSTEM_AARCH64": "qemu-system-aarch64",
        "PATH": "bin:/usr/bin",
    }

    assert agent_environment(given) == {
        **given,
        "PYENGINE_HOME": f"{os.getcwd()}/here/home",
        "QEMU_SYSTEM_X86_64": f"{os.getcwd()}/qemu",
    }


def test_an_empty_home_stays_none() -> None:
    assert agent_environment({"PYENGINE_HOME": ""}) == {"PYENGINE_HOME": ""}
