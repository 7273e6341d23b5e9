"""What every command shares: the global flags, and the way to the engine."""

import os

import click

from engine.base.errors import EngineError
from hostagent.cli.trace import NO_TRACE, CommandTrace, NoTrace
from hostagent.client import endpoint
from hostagent.client.docker import Engine
from hostagent.client.errors import Unreachable


class App:
    """The global flags of one invocation; the engine is found on first use and let go by `close`."""

    def __init__(self, *, host: str | None = None, native: bool = False) -> None:
        self.host = host
        self.native = native
        self.trace: CommandTrace | NoTrace = NO_TRACE
        self.error_exit = 1  # what an error of the engine becomes; run and create say 125
        self._engine: Engine | None = None

    def choice(self) -> endpoint.Choice:
        """Return which engine the flags and the environment ask for."""
        return endpoint.choose(self.host, self.native, os.environ)

    @property
    def engine(self) -> Engine:
        """The engine of this command, started if it must be.

        Raises:
            EngineError: it is not there and cannot be started.
        """
        if self._engine is None:
            with self.trace.span("find the engine"):
                self._engine = self._connect()
            self.trace.follow(self._engine)
        return self._engine

    def _connect(self) -> Engine:
        choice = self.choice()
        if choice.kind == endpoint.MACHINE:
            from hostagent.cli.machines import machine_address  # noqa: PLC0415 (not on the native path)

            return Engine(machine_address(choice.where))
        engine = Engine(choice.where)
        if choice.kind == endpoint.NATIVE:
            try:
                engine.open()
            except Unreachable:
                start_native(choice.where)
        return engine

    def explain(self, err: EngineError) -> None:
        """Add to a lost connection where to look: the engine cannot tell any more."""
        choice = self.choice()
        if not err.hint and choice.kind == endpoint.MACHINE:
            err.hint = f"machine {choice.where}: its last words are in: pyengine machine logs {choice.where}"
        elif not err.hint and choice.kind == endpoint.NATIVE:
            err.hint = f"see {endpoint.native_run(os.environ)}/pyengined.log"

    def close(self) -> None:
        """Close the connection to the engine."""
        if self._engine is not None:
            self._engine.close()


def start_native(address: str) -> None:
    """Start the native engine; busybox is loaded into it when an image of the machine is there."""
    from hostagent.cli.machines import preload_directory, progress_line  # noqa: PLC0415 (once a boot)

    endpoint.ensure_native(address, os.environ, preload=preload_directory(), progress=progress_line)


def current() -> App:
    """Return the application object of the running command."""
    app = click.get_current_context().find_object(App)
    if app is None:
        raise LookupError("a command ran outside the pyengine group")
    return app
