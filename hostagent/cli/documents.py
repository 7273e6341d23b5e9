"""Print documents: indented JSON, one line of it, or through a template of the user's."""

import json
from typing import Any

import click


def write_document(document: Any, form: str) -> None:  # noqa: ANN401 (any document)
    """Print one document; `form` is the value of --format.

    Raises:
        TemplateError: a bad template.
    """
    if form == "":
        click.echo(json.dumps(document, indent=4, ensure_ascii=False))
    elif form == "json":
        click.echo(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
    else:
        click.echo(render(document, form))


def render(document: Any, form: str) -> str:  # noqa: ANN401 (any document)
    """Return one document as `form` asks: ``json`` or a template."""
    from hostagent.cli.template import Template  # noqa: PLC0415 (only with --format)

    if form == "json":
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Template(form).render(document)
