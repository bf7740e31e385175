"""The `darkroom` command: everything that works on images that exist.

Each command imports what it needs, so that `darkroom --help` and `darkroom search` start at once.
"""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError, DarkroomError

EXIT_BAD_INPUT = 2
EXIT_FAULTS_FOUND = 3
TABLE_LIMIT = 50

app = typer.Typer(
    name="darkroom",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

OutputDir = Annotated[Path, typer.Option("--output-dir", help="The folder with the images and their manifest.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Format(StrEnum):
    """What `search` prints."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PATHS = "paths"


@dataclass(slots=True)
class _Options:
    verbose: bool = False


@app.callback()
def options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks of errors.")] = False,
) -> None:
    """Find, explain, remake and check the images that `run.py` has made."""
    context.obj.verbose = verbose


@app.command()
def search(
    text: Annotated[
        list[str] | None,
        typer.Argument(help="Words that must all stand in the prompt, the tags or the model's name."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help='A DuckDB condition over the columns, such as "steps >= 16".')
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to print, separated by commas; `*` for all.")] = None,
    sort: Annotated[str, typer.Option(help="Column to sort by; a `-` in front sorts downwards.")] = "-created_at",
    limit: Annotated[
        int | None, typer.Option(min=0, help="At most so many; 0 for all. A table stops at 50 by default.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.TABLE,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Find images, those of running batches included.

    Failures are searched when `--where` speaks of `status`.

    Examples:

        darkroom search sunset boat

        darkroom search --where "model = 'demo' and steps >= 16" --sort -seconds

        darkroom search castle --format paths | xargs -d '\\n' cp -t picked/

        darkroom search --where "status = 'failed'" --columns prompt,error_kind,error_message
    """
    from jobs import found_formats
    from jobs.manifest.query import COLUMNS
    from jobs.search import DEFAULT_COLUMNS, search

    chosen = tuple(columns.replace(" ", "").split(",")) if columns else DEFAULT_COLUMNS
    chosen = COLUMNS if chosen == ("*",) else chosen
    cut = limit is None and format is Format.TABLE
    limit = TABLE_LIMIT if cut else limit
    wanted = ("path",) if format is Format.PATHS else chosen
    rows = search(output_dir, " ".join(text or ()), where, wanted, sort, limit or None)
    match format:
        case Format.JSON:
            _print(found_formats.as_json(rows))
        case Format.CSV:
            _print(found_formats.as_csv(chosen, rows))
        case Format.PATHS:
            for path in found_formats.as_paths(output_dir, rows):
                _print(path)
        case Format.TABLE if rows:
            _print_table(found_formats.as_table(chosen, rows))
            if cut and len(rows) == TABLE_LIMIT:
                typer.echo(f"the first {TABLE_LIMIT}; --limit 0 shows all", err=True)
        case Format.TABLE:
            typer.echo("nothing found", err=True)


@app.command()
def show(
    image: Annotated[Path, typer.Argument(help="An image of ours, or of A1111, ComfyUI, InvokeAI, Fooocus.")],
    as_json: Json = False,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Print how an image was made. A private image is looked up in the manifest of `--output-dir`.

    Examples:

        darkroom show outputs/demo/20250111_143022_a3f2e9d4.png

        darkroom show picture.png --json | jq .prompt
    """
    from jobs import show as showing
    from jobs.found_formats import printable

    description = showing.describe(image, output_dir)
    if as_json:
        _print(json.dumps(showing.as_json(description), ensure_ascii=False, allow_nan=False, indent=1))
        return
    for name, value in showing.as_lines(description):
        _print(f"{name + ':':<17}{printable(value)}")


@app.command()
def inspect(
    weights: Annotated[str, typer.Argument(metavar="FILE|FOLDER", help="A model, a LoRA, a VAE: any weights.")],
    as_json: Json = False,
    with_hash: Annotated[bool, typer.Option("--hash", help="Read all of it and print its hashes.")] = False,
) -> None:
    """Say what a model or a file of weights is, from its header alone.

    Examples:

        darkroom inspect /models/sdxl

        darkroom inspect style.safetensors --hash
    """
    from jobs import inspect as inspecting
    from jobs.found_formats import printable

    found = inspecting.inspect(weights)
    hashes = inspecting.hashes(found) if with_hash else {}
    if as_json:
        _print(json.dumps(inspecting.as_json(found) | hashes, ensure_ascii=False, allow_nan=False, indent=1))
        return
    lines = inspecting.as_lines(found)
    if hashes:
        lines.append(("sha256", hashes["sha256"]))
    if "tensors_sha256" in hashes:
        lines.append(("AutoV3", hashes["tensors_sha256"][: inspecting.AUTOV3_DIGITS]))
    for name, value in lines:
        _print(f"{name + ':':<17}{printable(value)}")
    for line in inspecting.component_lines(found.components):
        _print(printable(line))


@app.command()
def doctor(
    as_json: Json = False,
    budget_gb: Annotated[
        float | None, typer.Option("--budget-gb", min=0.1, help="Ask what would be done within so many GB.")
    ] = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Show what this machine has, and what each memory level would do with each model profile. Nothing is loaded.

    Examples:

        darkroom doctor

        darkroom doctor --budget-gb 8
    """
    from jobs import doctor as examining

    diagnosis = examining.examine(output_dir, budget_gb)
    if as_json:
        _print(json.dumps(examining.as_json(diagnosis), ensure_ascii=False, allow_nan=False, indent=1))
        return
    for name, value in examining.machine_lines(diagnosis.machine):
        _print(f"{name + ':':<17}{value}")
    if diagnosis.profiles:
        _print("\n" + examining.heading(diagnosis))
        _print_table(examining.table(diagnosis))
    for fault in diagnosis.faults:
        _print(f"profile {fault}")


@app.command()
def reproduce(
    image: Annotated[Path, typer.Argument(help="An image with a record, or a private one of `--output-dir`.")],
    check: Annotated[bool, typer.Option("--check", help="Compare pixels; exit 0 only if all are equal.")] = False,
    model: Annotated[str | None, typer.Option(help="Where the model's weights are now.")] = None,
    files: Annotated[Path | None, typer.Option(help="A folder with its LoRAs, ControlNets and pictures.")] = None,
    output_dir: OutputDir = Path("outputs"),
) -> None:
    """Make an image again from its record.

    Examples:

        darkroom reproduce outputs/demo/20250111_143022_a3f2e9d4.png --check

        darkroom reproduce picture.png --model /models/sdxl

        darkroom reproduce picture.png --files /models/loras
    """
    from jobs.reproduce import reproduce

    raise typer.Exit(reproduce(image, check=check, output_dir=output_dir, model=model, files=files))


@app.command()
def verify(as_json: Json = False, output_dir: OutputDir = Path("outputs")) -> None:
    """Compare the manifest with the files, hash by hash; exit 3 if anything is missing or changed.

    Examples:

        darkroom verify

        darkroom verify --output-dir /data/postcards --json
    """
    from dataclasses import asdict

    from jobs.verify import verify

    result = verify(output_dir)
    if as_json:
        _print(json.dumps({"sound": result.sound, **asdict(result)}, ensure_ascii=False, indent=1))
    else:
        for kind, entries in (
            ("missing", result.missing),
            ("changed", result.changed),
            ("unreadable part", result.unreadable_parts),
            ("note: superseded, its job has another image", result.superseded),
            ("note: no row, darkroom reindex takes it in", result.without_row),
            ("note: left over", result.leftovers),
        ):
            for entry in entries:
                _print(f"{kind}: {entry}")
        _print(f"{result.checked} images: {len(result.missing)} missing, {len(result.changed)} changed")
    raise typer.Exit(0 if result.sound else EXIT_FAULTS_FOUND)


@app.command()
def reindex(as_json: Json = False, output_dir: OutputDir = Path("outputs")) -> None:
    """Rebuild the manifest from the images; rows that stand nowhere else are kept.

    Examples:

        darkroom reindex

        darkroom reindex --output-dir /data/postcards
    """
    from dataclasses import asdict

    from jobs.reindex import reindex

    result = reindex(output_dir)
    if as_json:
        _print(json.dumps(asdict(result), ensure_ascii=False, indent=1))
        return
    for line in result.unreadable:
        _print(f"unreadable: {line}")
    _print(
        f"{result.rebuilt} rows rebuilt from images ({result.added} new), "
        f"{result.kept} kept, {result.dropped} dropped because their image is gone"
    )


@app.command()
def compact(as_json: Json = False, output_dir: OutputDir = Path("outputs")) -> None:
    """Merge small manifest files into big ones; safe while batches run.

    Examples:

        darkroom compact
    """
    from dataclasses import asdict

    from jobs.manifest.compaction import compact

    result = compact(output_dir)
    if as_json:
        _print(json.dumps(asdict(result), indent=1))
        return
    _print(f"{result.parts_before} parts became {result.parts_after}, {result.rows_moved} rows moved")


def _print(text: str) -> None:
    sys.stdout.write(text.encode("utf-8", "replace").decode("utf-8") + "\n")


def _print_table(table: object) -> None:
    from rich.console import Console

    # Into a pipe or a file nothing is cut: there is no edge.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def main() -> int:
    """Run the command line; returns the exit code. Errors meant for users are one line on standard error."""
    options = _Options()
    try:
        app(obj=options)
    except SystemExit as exit:
        return exit.code if isinstance(exit.code, int) else EXIT_BAD_INPUT
    except DarkroomError as error:
        if options.verbose:
            traceback.print_exc()
        else:
            for line in error.faults if isinstance(error, ConfigError) else (str(error),):
                print(f"darkroom: {line}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0
