"""Commands of `darkroom` that make more like images, and lay images out: `more`, `grid`, `sheet`, `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.cli.image_commands import SortedBy, Words
from jobs.terminal import OUTPUT_DIR, OutputDir, aligned, one_line, print_line, print_lines

if TYPE_CHECKING:
    from PIL.Image import Image

app = typer.Typer()

Where = Annotated[str | None, typer.Option(help='A DuckDB condition over the columns, such as "rating = 5".')]

Png = Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Write PNG pages, labelled.")]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a page for a browser; it needs no network.")
]
Cell = Annotated[int, typer.Option(min=32, max=2048, help="Longer side of an image on PNG pages, in pixels.")]
Font = Annotated[Path | None, typer.Option(metavar="FILE", help="A .ttf or .otf for scripts that the own font lacks.")]


Figure = Literal["seconds", "rating", "peak_vram_bytes"]
"""What `grid --by` draws."""


@app.command()
def more(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE]... [seeds=4] [group=option]... [key=value]...",
            help="Images by path, id or the first eight digits of one; and what to change. seeds=4 means four new "
            "seeds, seeds=[7,8] these.",
        ),
    ] = None,
    where: Where = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Make more like images: with other seeds, or with the same seed and other settings.

    Prompts are those that the model got. Nothing is chosen anew, and what is made says from which image it is derived.

    Examples:

        darkroom more outputs/demo/20250111_143022_a3f2e9d4.png

        darkroom more a3f2e9d4 seeds=8 sampling.steps=60

        darkroom more a3f2e9d4 model=demo output.dir=others

        darkroom more --where "rating = 5" seeds=3
    """
    from jobs.archive.more import runs_like
    from jobs.cli.run_py import run_all

    raise typer.Exit(run_all(runs_like(words or (), where, output_dir)))


@app.command()
def grid(
    text: Words = None,
    where: Where = None,
    run: Annotated[str | None, typer.Option(metavar="ID", help="Images of this run; its id's beginning.")] = None,
    x: Annotated[str | None, typer.Option(metavar="AXIS", help="What varies from left to right.")] = None,
    y: Annotated[str | None, typer.Option(metavar="AXIS", help="What varies from top to bottom.")] = None,
    by: Annotated[Figure | None, typer.Option(help="Draw these figures in place of the images.")] = None,
    png: Png = None,
    html: Html = None,
    cell: Cell = 256,
    font: Font = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Lay images out by what varies among them. Empty cells say why.

    Without --png and --html, the axes are printed, or with --by a table of the figures.

    Examples:

        darkroom grid --where "name = 'steps_vs_guidance'" --html grid.html

        darkroom grid --run 20250111T143022Z --x steps --y guidance_scale --png grid.png

        darkroom grid sunset --by seconds
    """
    from jobs.archive import grid as grids

    found = grids.grid_of(output_dir, " ".join(text or ()), where, run, x, y)
    title = " ".join(text or ()) or where or (f"run {run}" if run else output_dir.name)
    if by is not None:
        from jobs.archive.grid_figures import draw_figures, figure_rows, write_figures_page

        if png:
            _saved([draw_figures(found, by, font)], png)
        if html:
            _written([write_figures_page(found, by, html, title)])
        if not (png or html):
            rows = figure_rows(found, by)
            print_lines(aligned(rows, numeric=range(1, len(rows[0]))))
        return
    if png:
        from jobs.archive.grid_png import draw_grid

        _saved(draw_grid(found, output_dir, cell, font), png)
    if html:
        from jobs.archive.grid_html import write_grid_page

        _written([write_grid_page(found, output_dir, html, title)])
    if not (png or html):
        for axis in found.axes:
            print_line(one_line(f"{axis.name}: {', '.join(axis.labels)}"))
        print_line(f"{found.count:,} images; --png FILE and --html FILE lay them out")


@app.command()
def sheet(
    text: Words = None,
    png: Annotated[Path, typer.Option("--png", metavar="FILE", help="The PNG to write.")] = Path("sheet.png"),
    where: Where = None,
    caption: Annotated[str, typer.Option(help="Columns below each image, separated by commas; empty for none.")] = (
        "prompt"
    ),
    columns: Annotated[int, typer.Option(min=1, max=100, help="Images beside each other.")] = 4,
    sort: SortedBy = "created_at",
    limit: Annotated[int | None, typer.Option(min=0, help="Most images; 0 for all.")] = None,
    cell: Cell = 256,
    font: Font = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Make a contact sheet: images beside each other, with captions; pages beyond 65,000 pixels.

    Examples:

        darkroom sheet postcard --sort prompt_index,seed --png postcards.png

        darkroom sheet --where "rating >= 4" --caption prompt,model,seed --columns 6
    """
    from jobs.archive.sheet import draw_sheet, find_for_sheet

    names = tuple(one for one in caption.replace(" ", "").split(",") if one)
    rows = find_for_sheet(output_dir, " ".join(text or ()), where, names, sort, limit)
    _saved(list(draw_sheet(rows, output_dir, names, columns, cell, font)), png)


@app.command()
def compare(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE IMAGE...", help="Two to four images, by path, id or its first eight digits."),
    ],
    png: Png = None,
    html: Html = None,
    cell: Cell = 512,
    font: Font = None,
    output_dir: OutputDir = OUTPUT_DIR,
) -> None:
    """Compare two to four images: print what differs in their records.

    Examples:

        darkroom compare a3f2e9d4 b2c14a8e

        darkroom compare a3f2e9d4 b2c14a8e --html both.html
    """
    from jobs.archive import compare as comparing

    compared = comparing.compare_images(images, output_dir)
    print_lines(aligned(comparing.table(compared)))
    if png:
        _saved([comparing.draw(compared, output_dir, cell, font)], png)
    if html:
        _written([comparing.write_page(compared, output_dir, html)])


def _written(paths: Sequence[Path]) -> None:
    for path in paths:
        print_line(one_line(f"{path}: written"))


def _saved(pages: Sequence[Image], path: Path) -> None:
    from jobs.archive.pictures import save_pages

    _written(save_pages(pages, path))
