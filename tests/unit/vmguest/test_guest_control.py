"""The guest's end of the control channel, on a socket that behaves as the port of a host that comes and goes.

The loop takes over the signals of its process, so each test runs it in one of its own.
"""

import subprocess
import sys

PRELUDE = """
import json, os, socket, sys
from vmguest.init.control import Control
from vmguest.init.loop import Loop

loop = Loop(on_signal=lambda _: None)
loop.call_later(20, lambda: os._exit(9))
port, host = socket.socketpair()
port.setblocking(False)
host.settimeout(10)

def on_message(message):
    control.send("hello", nonce=message["nonce"])

control = Control(loop, port.fileno(), on_message)
ATTACH = b'\\n{"type":"attach","nonce":"n"}\\n'

def lines(data):
    return [json.loads(line) for line in data.splitlines() if line.startswith(b"{")]
"""


def _run(body: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + body], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_host_that_attaches_is_greeted() -> None:
    _run("""
control.serve()
host.sendall(ATTACH)
loop.step()
assert lines(host.recv(4096)) == [{"type": "hello", "nonce": "n"}]
""")


def test_a_host_whose_words_come_before_its_port_counts_as_open_is_greeted() -> None:
    # What a virtio port does then: the words are read, the next read gives 0 bytes, and no write is taken
    # until the port is open, which makes an edge.
    _run("""
noise = 0
try:
    while True:
        noise += port.send(b"x" * 4096)
except BlockingIOError:
    pass
real_read, closed = os.read, [True]
def read(fd, size):
    try:
        return real_read(fd, size)
    except BlockingIOError:
        if fd == port.fileno() and closed[0]:
            return b""
        raise
os.read = read
control.serve()
host.sendall(ATTACH)
loop.step()
assert control.attached
closed[0] = False
while noise:
    noise -= len(host.recv(min(noise, 1 << 20)))
loop.step()
assert lines(host.recv(4096)) == [{"type": "hello", "nonce": "n"}]
""")


def test_a_host_that_left_with_its_last_words_is_noticed() -> None:
    _run("""
control.serve()
host.sendall(ATTACH)
host.shutdown(socket.SHUT_WR)
while control.attached:
    loop.step()
""")


def test_a_new_host_does_not_get_what_was_said_to_an_older_one() -> None:
    _run("""
filled = 0
try:
    while True:
        filled += port.send(b"\\n" * 4096)
except BlockingIOError:
    pass
control.serve()
for nonce in (b"older", b"n"):
    host.sendall(ATTACH.replace(b'"n"', b'"' + nonce + b'"'))
    loop.step()
while filled:
    filled -= len(host.recv(min(filled, 1 << 20)))
loop.step()
assert lines(host.recv(4096)) == [{"type": "hello", "nonce": "n"}]
""")
