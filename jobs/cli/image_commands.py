"""Commands of `darkroom` for images: `run`, `search`, `show`, `reproduce`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jobs.terminal import OUTPUT_DIR, Json, OutputDir, one_line, print_json, print_line, print_lines, print_table

app = typer.Typer()

TABLE_LIMIT = 50


def _run_completions(context: typer.Context, incomplete: str) -> list[str]:
    from jobs.cli.run_py import completions

    return completions(list(context.params.get("arguments") or ()), incomplete)


@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
def run(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[group=option]... [key=value]...", autocompletion=_run_completions),
    ] = None,
) -> None:
    """Make images. `darkroom run --help` shows all groups, options and keys."""
    from jobs.cli.run_py import run_py

    raise typer.Exit(run_py(arguments or []))


class Format(StrEnum):
    """What `search` prints."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PATHS = "paths"


def _list_columns(asked: bool) -> None:
    if not asked:
        return
    from jobs.manifest.schema import arrow_schema, meanings
    from jobs.terminal import aligned

    types = [str(field.type).replace("element: ", "item: ") for field in arrow_schema()]
    rows = [(name, kind, meaning) for (name, meaning), kind in zip(meanings().items(), types, strict=True)]
    for line in aligned([("column", "type", "meaning"), *rows]):
        print_line(line)
    raise typer.Exit


@app.command()
def search(
    text: Annotated[
        list[str] | None,
        typer.Argument(help="Words that must all occur in the prompt, the tags or the model's name."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help='A DuckDB condition over the columns, such as "steps >= 16".')
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to print, separated by commas; `*` for all.")] = None,
    sort: Annotated[str, typer.Option(help="Column to sort by; `-` in front for descending order.")] = "-created_at",
    limit: Annotated[
        int | None, typer.Option(min=0, help="Most rows; 0 for all. A table stops at 50 by default.")
    ] = None,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.TABLE,
    output_dir: OutputDir = OUTPUT_DIR,
    list_columns: Annotated[
        bool,
        typer.Option("--list-columns", is_eager=True, callback=_list_columns, help="Print the list of columns."),
    ] = False,
) -> None:
    """Search for images, also those of running batches.

    Failed attempts are searched if `--where` contains `status`.

    Examples:

        darkroom search sunset boat

        darkroom search --where "model = 'demo' and steps >= 16" --sort -seconds

        darkroom search castle --format paths | xargs -d '\\n' cp -t picked/

        darkroom search --where "status = 'failed'" --columns prompt,error_kind,error_message
    """
    from jobs.archive import found_formats
    from jobs.archive.search import DEFAULT_COLUMNS, search
    from jobs.manifest.query import COLUMNS

    chosen = tuple(columns.replace(" ", "").split(",")) if columns else DEFAULT_COLUMNS
    chosen = COLUMNS if chosen == ("*",) else chosen
    cut = limit is None and format is Format.TABLE
    limit = TABLE_LIMIT if cut else limit
    wanted = ("path",) if format is Format.PATHS else chosen
    rows = search(output_dir, " ".join(text or ()), where, wanted, sort, limit or None)
    match format:
        case Format.JSON:
            for line in found_formats.as_json(rows):
                print_line(line)
        case Format.CSV:
            for line in found_formats.as_csv(chosen, rows):
                print_line(line)
        case Format.PATHS:
            for path in found_formats.as_paths(output_dir, rows):
                print_line(one_line(path))
        case Format.TABLE:
            shown = list(rows)
            if not shown:
                typer.echo("nothing found", err=True)
                return
            print_table(found_formats.as_table(chosen, shown))
            if cut and len(shown) == TABLE_LIMIT:
                typer.echo(f"the first {TABLE_LIMIT}; --limit 0 shows all", err=True)


class ShowFormat(StrEnum):
    """What `show` prints."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


@app.command()
def show(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Images, folders of them, patterns such as `'more/**/*.png'`; made by Darkroom, A1111, ComfyUI, "
            "InvokeAI, Fooocus, NovelAI, SwarmUI, Easy Diffusion, Draw Things.",
        ),
    ],
    as_json: Json = False,
    format: Annotated[
        ShowFormat, typer.Option(help="Output format; JSON for more than one named image is a list.")
    ] = ShowFormat.TEXT,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Print how images were made. A private image is looked up in the manifest of `--output-dir`.

    Images without metadata are named on standard error; the others are printed, and the exit code is 2.

    Examples:

        darkroom show outputs/demo/20250111_143022_a3f2e9d4.png

        darkroom show picture.png --json | jq .prompt

        darkroom show ~/Downloads other/*.webp --format csv > prompts.csv
    """
    from jobs.archive import found_formats
    from jobs.archive import show as showing
    from jobs.config.faults import first_faults
    from pipeline.errors import ConfigError

    format = ShowFormat.JSON if as_json else format
    single = len(images) == 1 and images[0].is_file()
    faults: list[str] = []
    descriptions = showing.describe_all(images, output_dir, faults)
    match format:
        case ShowFormat.JSON if single:
            for _, description in descriptions:
                print_json(showing.as_json(description))
        case ShowFormat.JSON:
            print_json([{"path": str(image)} | showing.as_json(one) for image, one in descriptions])
        case ShowFormat.CSV:
            rows = [showing.as_row(image, one) for image, one in descriptions]
            for line in found_formats.as_csv(showing.CSV_COLUMNS, rows):
                print_line(line)
        case ShowFormat.TEXT:
            for count, (image, description) in enumerate(descriptions):
                head = [] if single else [("file", str(image))]
                if count:
                    print_line("")
                print_lines([*head, *showing.as_lines(description)])
    if faults:
        raise ConfigError(first_faults(faults))


@app.command()
def reproduce(
    image: Annotated[Path, typer.Argument(help="An image with a record, or a private one of `--output-dir`.")],
    engine: Annotated[
        list[str] | None,
        typer.Argument(metavar="[engine.KEY=VALUE]...", help="Replaces the record's: `engine.cpu_threads=4`."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare pixels; exit 0 only if all are equal.")] = False,
    model: Annotated[str | None, typer.Option(help="Where the model's weights are now.")] = None,
    files: Annotated[
        Path | None, typer.Option(help="A folder with its VAE, configuration, adapters, pictures.")
    ] = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Make an image again from its record.

    Examples:

        darkroom reproduce outputs/demo/20250111_143022_a3f2e9d4.png --check

        darkroom reproduce picture.png --model /models/sdxl

        darkroom reproduce picture.png --files /models/loras

        darkroom reproduce picture.png engine.cpu_threads=4
    """
    from jobs.archive.reproduce import reproduce

    raise typer.Exit(
        reproduce(image, check=check, output_dir=output_dir, model=model, files=files, engine=engine or ())
    )
