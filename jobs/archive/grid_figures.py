"""Figures of a sweep, such as seconds or ratings: a heat map that is a table, and lines, as a page or as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jobs.archive.grid import Grid, mean_figures
from jobs.archive.lettering import FAINT, INK, PAPER, Lettering
from jobs.archive.made_files import write_made
from jobs.archive.web_page import escaped, page
from pipeline.errors import ConfigError
from pipeline.system.units import size_text

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 200
"""Values of one axis that are drawn as figures."""

LOW, HIGH = (0xEA, 0xF3, 0xFB), (0x0B, 0x5C, 0x9E)
"""The colours of the least and the greatest figure."""

LINES = ("#0b5c9e", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0f766e", "#a16207", "#475569")
"""The colours of lines, told apart by their ends' labels as well where they begin anew."""

_WIDTH, _HEIGHT, _PAD = 720, 360, 48

Figures = dict[tuple[int, int], float]
Point = tuple[float, float]


def figure_text(column: str, value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "-"
    if column.endswith("_bytes"):
        return size_text(value)
    return f"{value:.2f}" if column == "rating" else f"{value:.3g}"


def figure_rows(grid: Grid, column: str) -> list[list[str]]:
    """A table of the figures: a row for each y, a column for each x, with labels."""
    figures = _figures(grid, column)
    across, down = grid.values(0), grid.values(1)
    rows = [[f"mean {column}", *across]]
    for y, label in enumerate(down):
        rows.append([label, *(figure_text(column, figures.get((x, y))) for x in range(len(across)))])
    return rows


def write_figures_page(grid: Grid, column: str, path: Path, title: str) -> Path:
    """Write heat map, lines and table as one HTML file; returns it. Raises `ConfigError`."""
    figures = _figures(grid, column)
    classes = [f".heat{step} {{ background: {_hex(step / 10)}; color: {_ink(step / 10)}; }}" for step in range(11)]
    body = (
        f"<h1>{escaped(title)}</h1>\n<p>mean {escaped(column)} of {grid.count:,} images</p>\n"
        f"{_heat_table(grid, column, figures)}\n{_svg(grid, column, figures)}"
    )
    write_made(path, page(f"{title}: {column}", body, _STYLE + "\n".join(classes)).encode())
    return path


def draw_figures(grid: Grid, column: str, font: Path | None = None) -> Image:
    """Heat map, its figures written in it, and below it the lines. Raises `ConfigError`."""
    from PIL import Image, ImageDraw

    figures = _figures(grid, column)
    text, title = Lettering(14, font), Lettering(18, font)
    across, down = grid.values(0), grid.values(1)
    left = 24 + max(map(text.width, down)) + 12
    step = max(88, *(min(text.width(label), 320) + 12 for label in across))
    heads = [text.wrapped(label, step - 12) for label in across]
    top = 24 + title.line_height + 12
    body = top + max(map(text.height, heads)) + 6
    ends = max(map(text.width, down)) + 16
    width = max(left + step * len(across), _WIDTH + ends) + 24
    image = Image.new("RGB", (width, body + 34 * len(down) + 24 + _HEIGHT + 24), PAPER)
    draw = ImageDraw.Draw(image)
    title.draw(draw, 24, 24, [f"mean {column} of {grid.count:,} images"])
    for x, lines in enumerate(heads):
        text.draw(draw, left + x * step + 6, body - 6 - text.height(lines), lines)
    for y, label in enumerate(down):
        at = body + y * 34
        text.draw(draw, 24, at + 7, [label])
        for x in range(len(across)):
            share = share_of(figures, figures.get((x, y)))
            box = (left + x * step, at, left + (x + 1) * step - 3, at + 31)
            draw.rectangle(box, PAPER if share is None else _hex(share))
            fill = FAINT if share is None else _ink(share)
            text.draw(draw, box[0] + 6, at + 7, [figure_text(column, figures.get((x, y)))], fill)
    base = body + 34 * len(down) + 24
    for level, said in _scale(column, figures):
        draw.line((_PAD, base + level, _WIDTH - 12, base + level), "#d8dee4")
        text.draw(draw, 4, round(base + level) - 20, [said], FAINT)
    for y, label in enumerate(down):
        points = [(px, base + py) for px, py in _points(grid, figures, y)]
        colour = LINES[y % len(LINES)]
        if len(points) > 1:
            draw.line(points, colour, 2)
        for px, py in points:
            draw.ellipse((px - 3, py - 3, px + 3, py + 3), colour)
        if points:
            text.draw(draw, round(points[-1][0]) + 8, round(points[-1][1]) - 9, [label], colour)
    for x, label in enumerate(across):
        fits = text.wrapped(label, max(40, (_WIDTH - 60) // len(across) - 6), 2)
        text.draw(draw, round(_x(x, len(across))) - text.width(fits[0]) // 2, base + _HEIGHT - _PAD + 8, fits, INK)
    return image


def _figures(grid: Grid, column: str) -> Figures:
    if max(len(grid.values(0)), len(grid.values(1))) > MAX_SIDE:
        raise ConfigError(f"--by {column}: an axis has more than {MAX_SIDE} values; --x and --y choose other axes")
    figures = mean_figures(grid, column)
    if not figures:
        raise ConfigError(f"--by {column}: none of these images has it")
    return figures


def share_of(figures: Figures, value: float | None) -> float | None:
    """Where a figure lies between the least and the greatest, 0 to 1."""
    if value is None:
        return None
    low, high = min(figures.values()), max(figures.values())
    return (value - low) / (high - low) if high > low else 0.0


def _hex(share: float) -> str:
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(LOW, HIGH, strict=True))


def _ink(share: float) -> str:
    return "#ffffff" if share > 0.5 else INK


def _x(number: int, count: int) -> float:
    return _PAD + 24 + number * (_WIDTH - _PAD - 60) / max(1, count - 1)


def _y(share: float) -> float:
    return 16 + (1 - share) * (_HEIGHT - _PAD - 24)


def _points(grid: Grid, figures: Figures, y: int) -> list[Point]:
    """The points of one line, in a frame of `_WIDTH` x `_HEIGHT`."""
    count = len(grid.values(0))
    shares = ((x, share_of(figures, figures.get((x, y)))) for x in range(count))
    return [(_x(x, count), _y(share)) for x, share in shares if share is not None]


def _scale(column: str, figures: Figures) -> list[tuple[float, str]]:
    """The lowest and the highest figure: height and text."""
    low, high = min(figures.values()), max(figures.values())
    ends = [(_y(0), figure_text(column, low))]
    return ends if low == high else [*ends, (_y(1), figure_text(column, high))]


def _heat_table(grid: Grid, column: str, figures: Figures) -> str:
    head = "".join(f'<th scope="col">{escaped(label)}</th>' for label in grid.values(0))
    lines = [f"<table><thead><tr><td></td>{head}</tr></thead><tbody>"]
    for y, label in enumerate(grid.values(1)):
        cells = []
        for x in range(len(grid.values(0))):
            share = share_of(figures, figures.get((x, y)))
            kind = "" if share is None else f' class="heat{round(share * 10)}"'
            cells.append(f"<td{kind}>{escaped(figure_text(column, figures.get((x, y))))}</td>")
        lines.append(f'<tr><th scope="row">{escaped(label)}</th>{"".join(cells)}</tr>')
    return "\n".join([*lines, "</tbody></table>"])


def _svg(grid: Grid, column: str, figures: Figures) -> str:
    across, down = grid.values(0), grid.values(1)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH + 240} {_HEIGHT}" role="img" aria-label="mean {escaped(column)} as lines">',
    ]
    for at, said in _scale(column, figures):
        parts.append(f'<line class="rule" x1="{_PAD}" x2="{_WIDTH - 12}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="faint" x="0" y="{at - 4:.1f}">{escaped(said)}</text>')
    for x, label in enumerate(across):
        place = f'x="{_x(x, len(across)):.1f}" y="{_HEIGHT - _PAD + 24}" text-anchor="middle"'
        parts.append(f"<text {place}>{escaped(label)}</text>")
    for y, label in enumerate(down):
        points = _points(grid, figures, y)
        colour = LINES[y % len(LINES)]
        told = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{told}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, (px, py) in enumerate(points):
            title = f"{label}, {across[x]}" if len(points) == len(across) else label
            parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"><title>{escaped(title)}</title>')
            parts.append("</circle>")
        if points:
            place = f'x="{points[-1][0] + 10:.1f}" y="{points[-1][1] + 4:.1f}"'
            parts.append(f'<text {place} fill="{colour}">{escaped(label)}</text>')
    return "\n".join([*parts, "</svg>"])


_STYLE = """
:root { color-scheme: light; }
body { margin: 24px; background: #fff; color: #1f2328; font: 15px/1.4 system-ui, sans-serif; }
h1 { margin: 0 0 4px; font-size: 18px; }
p { margin: 0 0 16px; color: #656d76; }
table { border-collapse: separate; border-spacing: 3px; margin-bottom: 24px; }
th { padding: 4px 10px 4px 0; font-weight: 500; text-align: left; overflow-wrap: break-word; max-width: 320px; }
td { padding: 6px 12px; text-align: right; font-variant-numeric: tabular-nums; }
svg { width: min(100%, 960px); font-size: 13px; }
.rule { stroke: #d8dee4; }
.faint { fill: #656d76; }
"""
