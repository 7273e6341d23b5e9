"""Results as text; pure."""

from collections.abc import Sequence

from benchmarks.results import Results, Row

_MS = 1e-3
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def amount(value: float, unit: str) -> str:
    """Return one value as people read it: `51.2 ms`, `6.31 s`, `42.0 MiB`."""
    if unit == "s":
        return f"{value / _MS:.1f} ms" if value < 1 else f"{value:.2f} s"
    if unit == "bytes":
        for size, name in _UNITS:
            if value >= size:
                return f"{value / size:.1f} {name}"
        return f"{value:.0f} B"
    return f"{value:.3g} {unit}"


def lines(results: Results) -> list[str]:
    """Return the report: the host, a table, how goals were met, and what was left out."""
    goals = ["", *results.goals] if results.goals else []
    return [*_heading(results), "", *table(_cells(results.rows)), *goals, *_notes(results)]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned rows, the first of which is the header; columns after the second are numbers."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)  # noqa: PLR2004 (two columns of words)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _heading(results: Results) -> list[str]:
    host = results.environment
    text = (
        f"{host.processor}, {host.cpus} cpus, {amount(host.memory_bytes, 'bytes')}; "
        f"{host.system} {host.kernel}; Python {host.python}; load {host.load}"
    )
    found = [text]
    if host.emulator:
        reason = f" ({host.accelerator_reason})" if host.accelerator_reason else ""
        found.append(f"{host.emulator}, accelerator {host.accelerator}{reason}")
    return found


def _cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = [("WHAT", "WHERE", "MEDIAN", "MAD", "LEAST", "MOST", "RUNS")]
    for row in rows:
        values = (amount(value, row.unit) for value in (row.median, row.mad, row.least, row.most))
        cells.append((row.scenario, row.target, *values, str(len(row.values))))
    return cells


def _notes(results: Results) -> list[str]:
    return ["", *(f"left out: {text}" for text in results.left_out)] if results.left_out else []
