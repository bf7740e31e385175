"""A grid of images as PNG: labels above and left, one block below the other for each choice of the selectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.archive.grid import MAX_IMAGES, TEXTS, Grid, Place
from jobs.archive.lettering import FAINT, INK, PAPER, Lettering
from jobs.archive.pictures import hides_prompt, is_there, picture
from jobs.archive.search import Found
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE_PX = 65_000
"""Of a page: many programs read no longer sides than 65,535 pixels."""

MAX_PAGE_PIXELS = 150_000_000
"""Of a page in memory, 450 MB; a second one begins where a block would exceed it."""

SMALLEST_CELL_PX = 180
"""Smaller images are enlarged by a whole factor, without smoothing, so that labels fit beside them."""

MARGIN_PX, GAP_PX = 24, 8
_EMPTY = "#f0f2f4"


@dataclass(frozen=True, slots=True)
class _Frame:
    """Sizes that all blocks share. `lefts`: where columns begin, each as wide as an image or a word of its label.
    `row`: the height of a cell, with room for its label.
    """

    image: tuple[int, int]
    row: int
    lefts: list[int]
    labels_x: list[list[str]]
    labels_y: list[list[str]]
    head: int
    width: int


def private_prompts(grid: Grid, output_dir: Path) -> bool:
    """Whether an image of the grid keeps its prompt to itself; then no prompt is told. Files that are gone, as those of
    rejected images, do not count, unless all are.
    """
    paths = [row["path"] for row in grid.rows]
    there = [path for path in paths if is_there(output_dir, path)]
    return any(hides_prompt(output_dir, path) for path in there or paths)


def labels_of(grid: Grid, axis: int, *, private: bool) -> list[str]:
    """The labels of an axis; prompts that are not to be told are numbered."""
    labels = list(grid.values(axis))
    if private and axis < len(grid.axes) and grid.axes[axis].name in TEXTS:
        return [f"{grid.axes[axis].name} {number + 1}" for number in range(len(labels))]
    return labels


def draw_grid(grid: Grid, output_dir: Path, cell_px: int, font: Path | None = None) -> list[Image]:
    """The pages. Cells have the shape of the largest image, `cell_px` at most on the longer side.

    Raises `ConfigError` for a grid that is too big for one page or has too many cells.
    """
    blocks = grid.blocks()
    cells = len(grid.values(0)) * len(grid.values(1)) * len(blocks)
    if cells > 2 * MAX_IMAGES:
        raise ConfigError(
            f"the grid has {cells:,} cells for {grid.count:,} images; --x and --y choose other axes, --html draws it"
        )
    private = private_prompts(grid, output_dir)
    text, title = Lettering(15, font), Lettering(18, font)
    frame = _frame(grid, output_dir, cell_px, text, private=private)
    heads = [_block_head(grid, block, private=private) for block in blocks]
    head_lines = [title.wrapped(head, frame.width - 2 * MARGIN_PX) if head else [] for head in heads]
    top_lines = text.wrapped(grid.constant_text(private=private), frame.width - 2 * MARGIN_PX)
    body = frame.head + len(frame.labels_y) * (frame.row + GAP_PX)
    heights = [title.height(lines) + (12 if lines else 0) + body + 28 for lines in head_lines]
    top = MARGIN_PX + text.height(top_lines) + 16
    most = min(MAX_SIDE_PX, MAX_PAGE_PIXELS // frame.width)
    if frame.width > MAX_SIDE_PX or top + max(heights) + MARGIN_PX > most:
        raise ConfigError(
            f"one page would be {frame.width:,} x {top + max(heights):,} pixels; --cell makes it smaller, --x and --y "
            "choose other axes"
        )
    pages: list[Image] = []
    start = 0
    while start < len(blocks):
        end, height = start, top
        while end < len(blocks) and height + heights[end] + MARGIN_PX <= most:
            height += heights[end]
            end += 1
        pages.append(_page(grid, output_dir, frame, blocks[start:end], head_lines[start:end], top_lines, (text, title)))
        start = end
    return pages


def _page(
    grid: Grid,
    output_dir: Path,
    frame: _Frame,
    blocks: list[Place],
    heads: list[list[str]],
    top_lines: list[str],
    fonts: tuple[Lettering, Lettering],
) -> Image:
    from PIL import Image, ImageDraw

    text, title = fonts
    rows = len(frame.labels_y)
    body = frame.head + rows * (frame.row + GAP_PX)
    heights = [title.height(lines) + (12 if lines else 0) + body + 28 for lines in heads]
    y = MARGIN_PX + text.height(top_lines) + 16
    page = Image.new("RGB", (frame.width, y + sum(heights) + MARGIN_PX - 28), PAPER)
    draw = ImageDraw.Draw(page)
    text.draw(draw, MARGIN_PX, MARGIN_PX, top_lines, FAINT)
    for block, lines, height in zip(blocks, heads, heights, strict=True):
        below = title.draw(draw, MARGIN_PX, y, lines) + (12 if lines else 0)
        for x, label in zip(frame.lefts, frame.labels_x, strict=True):
            text.draw(draw, x, below + frame.head - GAP_PX - text.height(label), label, INK)
        for row, label in enumerate(frame.labels_y):
            at = below + frame.head + row * (frame.row + GAP_PX)
            text.draw(draw, MARGIN_PX, at + max(0, (frame.image[1] - text.height(label)) // 2), label, INK)
            for column, x in enumerate(frame.lefts):
                _cell(page, grid, output_dir, grid.place(column, row, block), (x, at), frame.image, text)
        y += height
    return page


def _cell(
    page: Image,
    grid: Grid,
    output_dir: Path,
    place: Place,
    at: tuple[int, int],
    box: tuple[int, int],
    text: Lettering,
) -> None:
    from PIL import ImageDraw

    found = grid.images.get(place, [])
    if not found:
        _draw_empty(page, at, box, grid.why_empty(place), text)
    elif draw_image(page, output_dir, found[-1]["path"], at, box, text) and len(found) > 1:
        draw, count = ImageDraw.Draw(page), f"1 of {len(found)}"
        draw.rectangle((*at, at[0] + text.width(count) + 10, at[1] + text.line_height + 2), PAPER)
        text.draw(draw, at[0] + 5, at[1] + 1, [count], INK)


def draw_image(
    page: Image, output_dir: Path, path: str, at: tuple[int, int], size: tuple[int, int], text: Lettering
) -> bool:
    """Put an image into a cell, enlarged by a whole factor if that fits; False where its file is gone, which the cell
    says then.
    """
    from PIL import Image

    shown = picture(output_dir, path, size)
    if shown is None:
        _draw_empty(page, at, size, "its file is gone", text)
        return False
    factor = max(1, min(size[0] // shown.width, size[1] // shown.height))
    page.paste(shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST), at)
    return True


def _draw_empty(page: Image, at: tuple[int, int], size: tuple[int, int], why: str, text: Lettering) -> None:
    """A cell without an image, which says why."""
    from PIL import ImageDraw

    draw, lines = ImageDraw.Draw(page), text.wrapped(why, size[0] - 16)
    draw.rectangle((*at, at[0] + size[0] - 1, at[1] + size[1] - 1), _EMPTY)
    text.draw(draw, at[0] + 8, at[1] + max(4, (size[1] - text.height(lines)) // 2), lines, FAINT)


def _frame(grid: Grid, output_dir: Path, cell_px: int, text: Lettering, *, private: bool) -> _Frame:
    cell = cell_size(grid.rows, cell_px)
    labels_y = labels_of(grid, 1, private=private)
    # As wide as the longest word of a label, so that no name is broken, and a third of the longest label.
    words = [text.width(word) for label in labels_y for word in label.split()]
    longest = max((text.width(label) for label in labels_y), default=0)
    left = max(min(longest, 360), min(max(words, default=0), 900))
    wrapped_y = [text.wrapped(label, left) for label in labels_y]
    labels_x = labels_of(grid, 0, private=private)
    widths = [max(cell[0], min(900, max(map(text.width, label.split()), default=0))) for label in labels_x]
    wrapped_x = [text.wrapped(label, width) for label, width in zip(labels_x, widths, strict=True)]
    head = max(map(text.height, wrapped_x), default=0) + GAP_PX
    start = MARGIN_PX + (left + 16 if longest else 0)
    lefts = [start + before for before in accumulate((width + GAP_PX for width in widths[:-1]), initial=0)]
    row = max(cell[1], *map(text.height, wrapped_y))
    return _Frame(cell, row, lefts, wrapped_x, wrapped_y, head, max(lefts[-1] + widths[-1] + MARGIN_PX, 480))


def cell_size(rows: Sequence[Found], cell_px: int) -> tuple[int, int]:
    """Of the widest and the highest image, enlarged or made smaller to the wanted size."""
    width = max((row["width"] for row in rows), default=SMALLEST_CELL_PX)
    height = max((row["height"] for row in rows), default=SMALLEST_CELL_PX)
    longest = max(width, height)
    if longest > cell_px:
        return max(1, round(width * cell_px / longest)), max(1, round(height * cell_px / longest))
    factor = max(1, min(-(-SMALLEST_CELL_PX // longest), cell_px // longest))
    return width * factor, height * factor


def _block_head(grid: Grid, block: Place, *, private: bool) -> str:
    return "   ".join(labels_of(grid, axis, private=private)[value] for axis, value in enumerate(block, start=2))
