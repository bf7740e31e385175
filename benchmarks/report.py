"""The rows as a table for the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from benchmarks.machine import machine_line
from benchmarks.measuring import MISSED, NOT_MEASURED, OK, Row

SCHEMA = "darkroom.benchmarks/1"
TITLES = ("what", "measured", "at most", "ratio", "", "note")
_COLOURS = {OK: "green", MISSED: "bold red", NOT_MEASURED: "yellow"}


def quantity(value: float | None, unit: str) -> str:
    """A figure with its unit, to three digits: `0.42 s`, `2.1 x`, `23 MB`."""
    if value is None:
        return "-"
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of `TITLES`."""
    return (
        row.what,
        quantity(row.measured, row.unit),
        "" if row.at_most is None else quantity(row.at_most, row.unit),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        row.verdict,
        row.note,
    )


def print_table(rows: Sequence[Row], facts: dict[str, Any], *, quick: bool) -> None:
    """The table, `ratio` being measured over promised."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Darkroom: the numbers to hold" + (" (quick: a tenth of the sizes)" if quick else ""))
    for index, title in enumerate(TITLES):
        table.add_column(title, justify="right" if 1 <= index <= 3 else "left")
    for row in rows:
        table.add_row(*cells(row), style=_COLOURS.get(row.verdict, ""))
    console = Console()
    # Nothing is cut when the output is a file.
    Console(width=console.width if console.is_terminal else 320).print(table)
    print(machine_line(facts))


def as_markdown(rows: Sequence[Row], facts: dict[str, Any], date: datetime, *, quick: bool) -> str:
    """The table for a page of the documentation."""
    lines = [
        f"| {' | '.join(title or 'verdict' for title in TITLES)} |",
        "| --- | ---: | ---: | ---: | --- | --- |",
        *(f"| {' | '.join(text.replace('|', '/') for text in cells(row))} |" for row in rows),
        "",
        f"{date:%Y-%m-%d}{', quick' if quick else ''}: {machine_line(facts)}.",
    ]
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row], facts: dict[str, Any], date: datetime, *, quick: bool) -> str:
    """Everything, for a script."""
    document = {
        "schema": SCHEMA,
        "date": date.isoformat(timespec="seconds"),
        "quick": quick,
        "machine": facts,
        "rows": [
            {
                "key": row.key,
                "what": row.what,
                "measured": row.measured,
                "unit": row.unit,
                "at_most": row.at_most,
                "ratio": row.ratio,
                "verdict": row.verdict,
                "note": row.note,
            }
            for row in rows
        ],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
