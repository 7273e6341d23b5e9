"""The entry point: one table of commands, each imported only when it is asked for."""

import gc
import os
import sys
import types
from collections.abc import Sequence


class _Later(types.ModuleType):
    """Stands in for a module until one of its attributes is asked for."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        import importlib  # noqa: PLC0415 (off the fast path)

        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = importlib.import_module(self.__name__)
        self.__dict__.update(real.__dict__)
        return getattr(real, name)


if "inspect" not in sys.modules:  # click imports it (9 ms) for texts of --help alone
    sys.modules["inspect"] = _Later("inspect")

import click  # noqa: E402 (after its import was made cheap)

from engine.base.version import VERSION  # noqa: E402
from hostagent.cli.app import App  # noqa: E402
from hostagent.cli.command import Command, switch, unknown, value  # noqa: E402
from hostagent.cli.exits import describe  # noqa: E402
from hostagent.client.errors import ConnectionLost  # noqa: E402

# name -> (module, attribute, what --help says). `benchmarks` is above this package, hence the names.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": ("hostagent.cli.run", "run", "Create and run a new container from an image"),
    "create": ("hostagent.cli.run", "create", "Create a new container"),
    "start": ("hostagent.cli.start", "start", "Start one or more stopped containers"),
    "attach": ("hostagent.cli.start", "attach", "Attach to a running container"),
    "exec": ("hostagent.cli.exec", "exec_", "Execute a command in a running container"),
    "ps": ("hostagent.cli.ps", "ps", "List containers"),
    "logs": ("hostagent.cli.logs", "logs", "Fetch the logs of a container"),
    "stop": ("hostagent.cli.lifecycle", "stop", "Stop one or more running containers"),
    "restart": ("hostagent.cli.lifecycle", "restart", "Restart one or more containers"),
    "kill": ("hostagent.cli.lifecycle", "kill", "Kill one or more running containers"),
    "rm": ("hostagent.cli.lifecycle", "rm", "Remove one or more containers"),
    "wait": ("hostagent.cli.lifecycle", "wait", "Block until containers stop, then print their exit codes"),
    "pause": ("hostagent.cli.lifecycle", "pause", "Pause all processes within one or more containers"),
    "unpause": ("hostagent.cli.lifecycle", "unpause", "Unpause all processes within one or more containers"),
    "rename": ("hostagent.cli.lifecycle", "rename", "Rename a container"),
    "top": ("hostagent.cli.lifecycle", "top", "Display the running processes of a container"),
    "inspect": ("hostagent.cli.inspect", "inspect", "Return low-level information on objects"),
    "images": ("hostagent.cli.images", "images", "List images"),
    "load": ("hostagent.cli.images", "load", "Load an image from a tar archive or STDIN"),
    "rmi": ("hostagent.cli.images", "rmi", "Remove one or more images"),
    "tag": ("hostagent.cli.images", "tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "pull": ("hostagent.cli.images", "pull", "Download an image from a registry"),
    "volume": ("hostagent.cli.volume", "volume", "Manage volumes"),
    "network": ("hostagent.cli.network", "network", "Manage networks"),
    "container": ("hostagent.cli.nouns", "container", "Manage containers"),
    "image": ("hostagent.cli.nouns", "image", "Manage images"),
    "system": ("hostagent.cli.nouns", "system", "Manage the engine"),
    "version": ("hostagent.cli.system", "version", "Show the version information"),
    "info": ("hostagent.cli.system", "info", "Display system-wide information"),
    "events": ("hostagent.cli.events", "events", "Get real time events from the engine"),
    "env": ("hostagent.cli.env", "env", "Print the shell commands that point docker at this engine"),
    "machine": ("hostagent.cli.machine", "machine", "Manage the virtual machine"),
    "bench": ("benchmarks.cli", "bench", "Measure containers against virtual machines"),
    "demo": ("benchmarks.demo", "demo", "Show a container in a machine, and what each layer costs"),
}


def load(name: str) -> click.Command:
    """Import and return the command `name` of the table."""
    from importlib import import_module  # noqa: PLC0415 (a builtin of the interpreter, already loaded)

    module, attribute, _ = COMMANDS[name]
    found = getattr(import_module(module), attribute)
    if not isinstance(found, click.Command):
        raise TypeError(f"{module}.{attribute} is not a command")
    return found


class LazyGroup(click.Group):
    """The root command: knows every command by name, and imports the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (overrides)
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        return load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list from the table, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, with docker's words when there is none of that name."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise unknown(ctx, args[0])
        return super().resolve_command(ctx, args)

    get_help_option = Command.get_help_option


def _group() -> LazyGroup:
    group = LazyGroup(
        "pyengine",
        context_settings={"max_content_width": 100},
        params=[
            value(
                "-H", "--host", metavar="ADDRESS", help="Engine to talk to: unix:///path or tcp://host:port"
            ),
            switch("--native", help="Run on this Linux kernel instead of in a machine"),
            switch("--trace", help="Print where the time went, and write a Chrome trace"),
            value("--trace-file", metavar="PATH", default="pyengine-trace.json", help="Where --trace writes"),
            _version_option(),
        ],
        callback=_root,
    )
    group.subcommand_metavar = "COMMAND [ARG...]"
    group.help = "Containers on any laptop: natively on Linux, or in a small virtual machine."
    return group


def _version_option() -> click.Option:
    option = click.Option(
        ["-v", "--version"], is_flag=True, is_eager=True, expose_value=False, callback=_print_version
    )
    option.help = "Print version information and quit"
    return option


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"pyengine version {VERSION}")
        ctx.exit()


def _root(host: str | None, native: bool, trace: bool, trace_file: str) -> None:
    context = click.get_current_context()
    app = App(host=host, native=native)
    context.obj = app
    context.call_on_close(app.close)
    if trace:
        from hostagent.cli.trace import begin, finish  # noqa: PLC0415 (only with --trace)

        spans = begin()
        app.trace = spans
        context.call_on_close(lambda: finish(spans, trace_file))


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors have been printed."""
    app: App | None = None
    group = _group()
    if args[:1] == ["help"]:
        args = [*args[1:2], "--help"]
    try:
        with group.make_context("pyengine", list(args)) as context:
            try:
                code = group.invoke(context)
            finally:
                app = context.obj
    except click.exceptions.Exit as err:
        return err.exit_code
    except BrokenPipeError:
        _close_stdout()
        return 141  # as if SIGPIPE had ended it
    except ConnectionLost as err:
        if app is not None:
            app.explain(err)
        return _report(err, app)
    except BaseException as err:  # noqa: BLE001 (the one top of the process; `describe` raises what it does not know)
        return _report(err, app)
    return code if isinstance(code, int) else 0


def _report(err: BaseException, app: App | None) -> int:
    code, lines = describe(err, error_exit=app.error_exit if app else 1)
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    return code


def _close_stdout() -> None:
    null_fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_fd, 1)
    os.close(null_fd)


def main() -> int:
    """Run the command line of this process and end the process.

    The interpreter's own clean-up is skipped: it takes 5 ms and has nothing to do.
    """
    gc.disable()  # a command is short; collecting costs more than it gives back
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = 141
    except OSError as err:
        code = _report(err, None)
    os._exit(code)
