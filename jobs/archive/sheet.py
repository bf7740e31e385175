"""Contact sheets: images beside each other in the order of a search, each with a caption of chosen columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.archive.grid import MAX_IMAGES
from jobs.archive.grid_axes import labelled
from jobs.archive.grid_html import said
from jobs.archive.grid_png import GAP_PX, MARGIN_PX, MAX_PAGE_PIXELS, MAX_SIDE_PX, cell_size, draw_image
from jobs.archive.lettering import INK, PAPER, Lettering
from jobs.archive.pictures import hides_prompt
from jobs.archive.search import DEFAULT_SORT, Found, search, unknown_columns
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

CAPTION = ("prompt",)
CAPTION_LINES = 4
"""A longer caption ends in `...`; names of models and adapters are not cut."""

_TEXTS = frozenset({"prompt", "negative_prompt", "prompt_template", "tags", "note"})
"""Columns that need no name before them, and may be cut; those of a private image are not told."""


def find_for_sheet(
    output_dir: Path,
    text: str = "",
    where: str | None = None,
    caption: Sequence[str] = CAPTION,
    sort: str = DEFAULT_SORT,
    limit: int | None = None,
) -> list[Found]:
    """The images of a sheet with what their captions say. Raises `ConfigError` where there are none or too many."""
    if faults := unknown_columns(caption, "--caption"):
        raise ConfigError(faults)
    columns = tuple(dict.fromkeys(("path", "width", "height", *caption)))
    condition = f"({where}\n) AND status = 'done'" if where else None
    rows = list(search(output_dir, text, condition, columns, sort, limit or MAX_IMAGES + 1))
    if not rows:
        raise ConfigError("nothing found for a sheet; darkroom search shows what is there")
    if len(rows) > MAX_IMAGES:
        raise ConfigError(f"more than {MAX_IMAGES:,} images found; narrow them with words, --where or --limit")
    return rows


def draw_sheet(
    rows: Sequence[Found],
    output_dir: Path,
    caption: Sequence[str] = CAPTION,
    columns: int = 4,
    cell_px: int = 256,
    font: Path | None = None,
) -> Iterator[Image]:
    """The pages. All cells have the size of the largest image, `cell_px` at most on the longer side.

    Raises `ConfigError` for rows that are wider than a page may be.
    """
    text = Lettering(13, font)
    cell = cell_size(rows, cell_px)
    columns = min(columns, len(rows))
    width = 2 * MARGIN_PX + columns * (cell[0] + GAP_PX) - GAP_PX
    if width > MAX_SIDE_PX:
        raise ConfigError(f"the sheet would be {width:,} pixels wide; --columns or --cell makes it narrower")
    lines = [list(rows[start : start + columns]) for start in range(0, len(rows), columns)]
    most = min(MAX_SIDE_PX, MAX_PAGE_PIXELS // width)
    page: list[tuple[list[Found], list[list[str]], int]] = []
    height = 2 * MARGIN_PX
    for line in lines:
        captions = [_caption(row, output_dir, caption, text, cell[0]) for row in line]
        below = cell[1] + 4 + max(map(text.height, captions)) + 12
        if page and height + below > most:
            yield _page(page, output_dir, (width, height), cell, text)
            page, height = [], 2 * MARGIN_PX
        page.append((line, captions, below))
        height += below
    yield _page(page, output_dir, (width, height), cell, text)


def _page(
    lines: Sequence[tuple[list[Found], list[list[str]], int]],
    output_dir: Path,
    size: tuple[int, int],
    cell: tuple[int, int],
    text: Lettering,
) -> Image:
    from PIL import Image, ImageDraw

    page = Image.new("RGB", (size[0], size[1] - 12), PAPER)
    draw, y = ImageDraw.Draw(page), MARGIN_PX
    for rows, captions, below in lines:
        for number, (row, caption) in enumerate(zip(rows, captions, strict=True)):
            at = (MARGIN_PX + number * (cell[0] + GAP_PX), y)
            draw_image(page, output_dir, row["path"], at, cell, text)
            text.draw(draw, at[0], y + cell[1] + 4, caption, INK)
        y += below
    return page


def _caption(row: Found, output_dir: Path, columns: Sequence[str], text: Lettering, width: int) -> list[str]:
    lines: list[str] = []
    hidden = not _TEXTS.isdisjoint(columns) and hides_prompt(output_dir, row["path"])
    for name in columns:
        value = row[name]
        if value in (None, "", []) or (hidden and name in _TEXTS):
            continue
        free = name in _TEXTS
        told = said(name, value) if free else labelled(name, said(name, value))
        lines += text.wrapped(told, width, CAPTION_LINES if free else None)
    return lines
