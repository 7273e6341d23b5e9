"""Raw mode under a real terminal: undone by whatever ends or stops the command."""

import os
import signal
import sys

import pytest

from tests.support.home import Terminal

RAW = """
import signal, sys
from hostagent.cli import tty
from hostagent.cli.exits import ExitWith
signal.signal(signal.SIGWINCH, lambda *_: print("resized", flush=True))
try:
    with tty.raw_mode(0):
        print("ready", __import__("os").getpid(), flush=True)
        while True:
            signal.pause()
except ExitWith as err:
    sys.exit(err.code)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_a_signal_that_ends_the_command_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    with Terminal([sys.executable, "-c", RAW], dict(os.environ)) as terminal:
        assert not terminal.is_raw()
        pid = _ready(terminal)
        assert terminal.is_raw()

        os.kill(pid, number)

        assert terminal.end() == 128 + number
        assert not terminal.is_raw()


def test_a_stopped_command_is_raw_again_when_it_goes_on() -> None:
    with Terminal(["bash", "--norc", "--noprofile", "-i"], {**os.environ, "RAW": RAW, "PS1": "$ "}) as shell:
        shell.type(f'{sys.executable} -c "$RAW"\n')
        pid = _ready(shell)

        os.kill(pid, signal.SIGTSTP)
        shell.expect("Stopped")
        shell.type("fg\n")
        shell.expect("resized")

        assert shell.is_raw()
        os.kill(pid, signal.SIGTERM)
        shell.type("exit $?\n")
        assert shell.end() == 128 + signal.SIGTERM


def _ready(terminal: Terminal) -> int:
    terminal.expect("ready ")
    return int(terminal.expect("\r\n"))
