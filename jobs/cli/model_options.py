"""Arguments and options that several commands of `darkroom models` share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.cli.image_commands import TABLE_LIMIT, Format
from jobs.terminal import complain, one_line, print_lines
from pipeline.registry.records import StoredKind

Named = Annotated[str, typer.Argument(metavar="NAME", help="A name, `sha256:...`, `hf:...`, `civitai:...` or a path.")]
OfKind = Annotated[StoredKind | None, typer.Option("--kind", help="Only models of this kind.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[hub.KEY=VALUE]...",
        help="Settings for this call, as for a run: `hub.proxy=socks5h://127.0.0.1:9050`.",
    ),
]

_SETTING = re.compile(r"hub\.\w+=.*", re.DOTALL)


def most_of(limit: int | None, format: Format) -> int | None:
    """The maximum number of rows; None for all."""
    return TABLE_LIMIT if limit is None and format == "table" else limit or None


def print_found(
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    table: Sequence[str],
    paths: Iterable[Path | None],
    format: Format,
    limit: int | None,
) -> None:
    """Print models in the requested format; below a table, say if there may be more and no limit was given."""
    from jobs.archive import found_formats

    match format:
        case "json":
            print_lines(found_formats.as_json(rows))
        case "csv":
            print_lines(found_formats.as_csv(columns, rows))
        case "paths":
            print_lines(one_line(str(path)) for path in paths)
        case "table" if rows:
            print_lines(table)
            if limit is None and len(rows) == TABLE_LIMIT:
                complain(f"the first {TABLE_LIMIT}; --limit 0 shows all")
    if not rows and format in ("table", "paths"):
        complain("nothing found; scan a folder for models with: darkroom models scan FOLDER")


def words_and_settings(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The words to search for, and the `hub.key=value` arguments among them."""
    settings = [argument for argument in arguments if _SETTING.fullmatch(argument)]
    return " ".join(argument for argument in arguments if argument not in settings), settings
