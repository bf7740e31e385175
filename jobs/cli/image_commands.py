"""Commands of `darkroom` for images: `run`, `search`, `show`, `reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.terminal import OUTPUT_DIR, Json, OutputDir, print_facts, print_json, print_line, print_lines, print_table

app = typer.Typer()

TABLE_LIMIT = 50

Format = Literal["table", "json", "csv", "paths"]
"""How commands that search print what they find."""

Words = Annotated[
    list[str] | None, typer.Argument(help="Words that must all occur in the prompt, the tags or the model's name.")
]
SortedBy = Annotated[
    str, typer.Option(help="Columns to sort by, separated by commas; `-` in front of one for descending order.")
]
Limit = Annotated[int | None, typer.Option(min=0, help="Most rows; 0 for all. A table stops at 50 by default.")]
Formatted = Annotated[Format, typer.Option(help="Output format.")]


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


def _list_columns(asked: bool) -> None:
    if not asked:
        return
    from jobs.manifest.schema import meanings, searched_schema
    from jobs.terminal import aligned

    types = [str(field.type).replace("element: ", "item: ") for field in searched_schema()]
    rows = [(name, kind, meaning) for (name, meaning), kind in zip(meanings().items(), types, strict=True)]
    print_lines(aligned([("column", "type", "meaning"), *rows]))
    raise typer.Exit


@app.command()
def search(
    text: Words = None,
    where: Annotated[
        str | None, typer.Option(help='A DuckDB condition over the columns, such as "steps >= 16".')
    ] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to print, separated by commas; `*` for all.")] = None,
    sort: SortedBy = "-created_at",
    limit: Limit = None,
    format: Formatted = "table",
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
    cut = limit is None and format == "table"
    limit = TABLE_LIMIT if cut else limit
    wanted = ("path",) if format == "paths" else chosen
    rows = search(output_dir, " ".join(text or ()), where, wanted, sort, limit or None)
    match format:
        case "json":
            print_lines(found_formats.as_json(rows))
        case "csv":
            print_lines(found_formats.as_csv(chosen, rows))
        case "paths":
            print_lines(found_formats.as_paths(output_dir, rows))
        case "table":
            shown = list(rows)
            if not shown:
                typer.echo("nothing found", err=True)
                return
            print_table(found_formats.as_table(chosen, shown))
            if cut and len(shown) == TABLE_LIMIT:
                typer.echo(f"the first {TABLE_LIMIT}; --limit 0 shows all", err=True)


@app.command()
def show(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Images, ids, folders of images, patterns such as `'more/**/*.png'`; made by Darkroom, A1111, "
            "ComfyUI, InvokeAI, Fooocus, NovelAI, SwarmUI, Easy Diffusion, Draw Things.",
        ),
    ],
    as_json: Json = False,
    format: Annotated[
        Literal["text", "json", "csv"],
        typer.Option(help="Output format; JSON for more than one named image is a list."),
    ] = "text",
    as_constraints: Annotated[
        bool, typer.Option("--constraints", help="Print the versions that made them as a constraints file for pip.")
    ] = False,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Print how images were made. A private image is looked up in the manifest of `--output-dir`.

    Images without metadata are named on standard error; the others are printed, and the exit code is 2.

    Examples:

        darkroom show outputs/demo/20250111_143022_a3f2e9d4.png

        darkroom show a3f2e9d4

        darkroom show picture.png --json | jq .prompt

        darkroom show ~/Downloads other/*.webp --format csv > prompts.csv

        darkroom show picture.png --constraints > constraints.txt
    """
    from jobs.archive import found_formats
    from jobs.archive import show as showing
    from jobs.archive.constraints import constraints
    from jobs.archive.named_images import image_file
    from jobs.config.faults import first_faults
    from jobs.manifest.ratings_view import read_feedback
    from pipeline.errors import ConfigError

    format = "json" if as_json else format
    single = len(images) == 1 and image_file(images[0], output_dir).is_file()
    faults: list[str] = []
    descriptions = showing.describe_all(images, output_dir, faults)
    said = {} if as_constraints else read_feedback(output_dir)
    if as_constraints:
        lines = [*constraints([*descriptions])]
        print_lines([] if faults else lines)
        if faults:
            raise ConfigError(first_faults(faults))
        return
    match format:
        case "json" if single:
            for _, description in descriptions:
                print_json(showing.as_json(description, said))
        case "json":
            print_json([{"path": str(image)} | showing.as_json(one, said) for image, one in descriptions])
        case "csv":
            rows = [showing.as_row(image, one, said) for image, one in descriptions]
            print_lines(found_formats.as_csv(showing.CSV_COLUMNS, rows))
        case "text":
            for count, (image, description) in enumerate(descriptions):
                head = [] if single else [("file", str(image))]
                if count:
                    print_line("")
                print_facts([*head, *showing.as_lines(description, said)])
    if faults:
        raise ConfigError(first_faults(faults))


@app.command()
def reproduce(
    image: Annotated[
        Path, typer.Argument(help="An image with a record; of `--output-dir` also a private one, or an id.")
    ],
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
