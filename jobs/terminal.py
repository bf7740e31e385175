"""Printing of the `darkroom` commands, and the options and exit codes that they share."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.storage.user_folders import DEFAULT_OUTPUT_DIR

EXIT_OK, EXIT_INPUT, EXIT_FAILURES, EXIT_STOPPED = 0, 2, 3, 4

OUTPUT_DIR = Path(DEFAULT_OUTPUT_DIR)
OutputDir = Annotated[Path, typer.Option("--output-dir", help="The folder with the images and their manifest.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


_DRIVING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff]"
)
"""What moves a cursor, ends or reverses a line, or is no character: controls, directions of writing, surrogates."""


def printable(text: str) -> str:
    """Text that is safe on a terminal: control characters, except tabs and line breaks, become U+FFFD."""
    if text.isprintable():  # nearly always so, and much faster
        return text
    return _DRIVING.sub("\ufffd", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same on one line, where a line break would look like another entry."""
    return printable(text).replace("\n", "\ufffd")


def json_text(value: Any) -> str:
    """Any JSON value over several lines, never NaN or Infinity; control characters are escaped, not lost."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
    return text if text.isprintable() else _DRIVING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_line(text: str) -> None:
    """Print one or more lines, made `printable`, as everything on standard output."""
    sys.stdout.write(printable(text) + "\n")


def complain(text: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(printable(text) + "\n")


def print_lines(lines: Iterable[str]) -> None:
    """Print each text on its own line."""
    for line in lines:
        print_line(line)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one below the other."""
    print_lines(f"{name + ':':<17}{value}" for name, value in facts)


def print_json(value: Any) -> None:
    """Print any JSON value, over several lines."""
    print_line(json_text(value))


def print_table(table: object) -> None:
    """Print a table with rich."""
    from rich.console import Console

    # Into a pipe or a file nothing is cut: there is no edge.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def aligned(rows: Sequence[Sequence[str]], numeric: Container[int] = ()) -> list[str]:
    """Rows of cells, with the heading, as lines with aligned columns; those in `numeric` are right-aligned.

    Unlike a table of rich's it is never cut, and thousands of rows take milliseconds.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if place in numeric else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(one_line("  ".join(cells).rstrip()))
    return lines
