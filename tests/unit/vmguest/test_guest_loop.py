"""The loop takes over the signals of its process, so each test runs it in one of its own."""

import subprocess
import sys

PRELUDE = """
import os, signal, socket, sys, time
from vmguest.init.loop import Loop, READ
said = []
loop = Loop(on_signal=said.append)
loop.call_later(20, lambda: os._exit(9))
"""


def _run(body: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + body], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_end_of_a_child_is_told_with_its_status() -> None:
    out = _run("""
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
def ended(status):
    print(os.waitstatus_to_exitcode(status)); loop.stop()
loop.on_exit(pid, ended)
loop.run()
""")

    assert out == "7\n"


def test_children_nobody_asked_about_are_reaped_too() -> None:
    out = _run("""
pids = [os.posix_spawn("/bin/true", ["true"], {}) for _ in range(20)]
last = os.posix_spawn("/bin/sh", ["sh", "-c", "sleep 0.1"], {})
loop.on_exit(last, lambda _: loop.stop())
loop.run()
loop._reap()
for pid in pids:
    try: os.kill(pid, 0)
    except ProcessLookupError: pass
    else: print("left", pid)
""")

    assert out == ""


def test_timers_fire_in_order_and_descriptors_between_them() -> None:
    out = _run("""
a, b = socket.socketpair()
loop.call_later(0.02, lambda: (print("second"), b.send(b"x")))
loop.call_later(0.01, lambda: print("first"))
def readable(_):
    print("third"); loop.remove(a.fileno()); loop.stop()
loop.add(a.fileno(), READ, readable)
loop.run()
""")

    assert out.split() == ["first", "second", "third"]


def test_a_signal_to_end_reaches_the_callback() -> None:
    out = _run("""
loop.call_later(0, lambda: os.kill(os.getpid(), signal.SIGTERM))
while not said: loop.step()
print(said[0] == signal.SIGTERM)
""")

    assert out == "True\n"
