"""Lists as docker prints them: a table, JSON lines, or a template of the user's.

Source: Go's text/tabwriter as docker/cli v28 sets it up (minimum width 10, padding 3).
"""

import functools
import itertools
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import click

_MIN_WIDTH, _PADDING = 10, 3

Row = Mapping[str, str]


def write_table(rows: Sequence[Sequence[str]], *, min_width: int = _MIN_WIDTH) -> None:
    """Print `rows`, the first of which is the header, in aligned columns."""
    click.echo("".join(f"{line}\n" for line in table_lines(rows, min_width=min_width)), nl=False)


def table_lines(rows: Sequence[Sequence[str]], *, min_width: int = _MIN_WIDTH) -> list[str]:
    """Return the lines of a table; the last cell of a row is not padded."""
    widths: list[int] = []
    for row in rows:
        for number, cell in enumerate(row[:-1]):
            if number == len(widths):
                widths.append(min_width)
            widths[number] = max(widths[number], _width(cell) + _PADDING)
    lines = []
    for row in rows:
        cells = [cell + " " * (widths[number] - _width(cell)) for number, cell in enumerate(row[:-1])]
        lines.append("".join([*cells, *row[-1:]]))
    return lines


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def write_listing(
    rows: Sequence[Row],
    *,
    form: str,
    columns: Sequence[str],
    headers: Mapping[str, str],
    quiet: str | None = None,
    labels: Sequence[Mapping[str, str]] = (),
) -> None:
    """Print `rows` (field -> text) in the user's format.

    Args:
        rows: one a line; each has every field of `headers`.
        form: the value of --format: empty or ``table``, ``json``, ``table TEMPLATE`` or ``TEMPLATE``.
        columns: the fields of the plain table.
        headers: the heading of every field.
        quiet: print this field alone (for -q) unless `form` says otherwise.
        labels: those of each row, for ``{{.Label "name"}}``.
    """
    if quiet is not None and form in ("", "table"):
        lines = [row[quiet] for row in rows]
    elif form in ("", "table"):
        lines = table_lines(
            [[headers[name] for name in columns], *([row[name] for name in columns] for row in rows)]
        )
    elif form == "json":
        lines = [json.dumps(dict(row), ensure_ascii=False, separators=(",", ":")) for row in rows]
    else:
        lines = _templated(rows, form, headers, labels)
    click.echo("".join(f"{line}\n" for line in lines), nl=False)


def _templated(
    rows: Sequence[Row], form: str, headers: Mapping[str, str], labels: Sequence[Mapping[str, str]]
) -> list[str]:
    from hostagent.cli.template import Template  # noqa: PLC0415 (only with --format TEMPLATE)

    is_table = form.startswith("table")
    text = form[len("table") :].lstrip() if is_table else form
    template = Template(text.replace("\\t", "\t").replace("\\n", "\n"))
    lines = [
        template.render({**row, "Label": functools.partial(_label, own)} if labels else row)
        for row, own in itertools.zip_longest(rows, labels)
    ]
    if not is_table:
        return lines
    heading = template.heading({**headers, "Label": _label_title} if labels or not rows else headers)
    return table_lines([line.split("\t") for line in [heading, *lines]])


def _label(labels: Mapping[str, str], name: str) -> str:
    return labels.get(name, "")


def _label_title(name: str) -> str:
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def ellipsis(text: str, width: int) -> str:
    """Return `text` cut to `width` characters, the last of them a sign that something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def labels_text(labels: Mapping[str, Any] | None) -> str:
    """Return labels as ``a=b,c=d``, sorted by nothing, as docker has them."""
    return ",".join(f"{key}={item}" for key, item in (labels or {}).items())
