import pytest

from engine.shim.foreign import explain

RUNC = b"""{"level":"warning","msg":"exec: permission denied","time":"t"}
{"level":"error","msg":"%s","time":"t"}
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (b'exec: \\"nope\\": executable file not found in $PATH', 127),
        (b'exec: \\"/bin/nope\\": stat /bin/nope: no such file or directory', 127),
        (b"executable file `nope` not found in $PATH: No such file or directory", 127),
        (b'exec: \\"/etc\\": permission denied', 126),
        (b"open executable: Permission denied", 126),
        (b"open executable: Operation not permitted", 126),  # crun, of a directory
        (b"exec /bin/x: exec format error", 126),
        (b'error mounting \\"/x\\" to rootfs: no such file or directory', 125),
        (b"container id is taken", 125),
    ],
)
def test_the_exit_code_tells_whether_the_program_is_to_blame(words: bytes, code: int) -> None:
    assert explain("/usr/bin/runc", "create", RUNC % words).exit_code == code


def test_a_failure_has_the_runtimes_last_words_on_one_line() -> None:
    assert (
        str(explain("/usr/bin/runc", "create", RUNC % b"no such bundle"))
        == "runc create failed: no such bundle"
    )
    assert str(explain("/usr/bin/crun", "start", b"")) == "crun start failed: it does not say why"
    assert str(explain("/usr/bin/crun", "start", b"torn {\n")) == "crun start failed: it does not say why"
