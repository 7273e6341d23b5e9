"""pyengine env."""

import shlex

import click

from hostagent.cli.app import current
from hostagent.cli.command import command, switch


@command("env", switch("-u", "--unset", help="Print the command that undoes it"))
def env(unset: bool) -> int:
    """Print the shell command that points docker at this engine: eval "$(pyengine env)"."""
    if unset:
        click.echo("unset DOCKER_HOST")
        return 0
    app = current()
    engine = app.engine  # started if need be: what is printed is meant to be used
    click.echo(f"export DOCKER_HOST={shlex.quote(engine.endpoint)}")
    click.echo('# run: eval "$(pyengine env)"')
    return 0
