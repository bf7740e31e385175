"""Images side by side, with what differs in their records."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.archive.grid_png import GAP_PX, MARGIN_PX, cell_size, draw_image
from jobs.archive.lettering import FAINT, INK, PAPER, Lettering
from jobs.archive.made_files import write_made
from jobs.archive.named_images import named_images
from jobs.archive.pictures import hides_prompt, thumbnail
from jobs.archive.search import search
from jobs.archive.web_page import escaped, page
from pipeline.errors import ConfigError, ReadError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST = 4
_OF_EACH = ("id", "created", "pixels_sha256", "noise", "batch", "job", "measured", "selection", "prompt_tokens")
"""Parts of a record that differ by nature, or follow from others."""
_OF_THE_MOMENT = ("memory.budget_bytes",)
"""What the device had free."""
_PAGE_PX = 1024
_TEXTS = ("prompt", "negative_prompt")


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the images: `path` is relative to the output folder, `facts` are its record, flat, by dotted names."""

    path: str
    size: tuple[int, int]
    facts: Mapping[str, str]


def compare_images(named: Sequence[str], output_dir: Path) -> list[Compared]:
    """The images of these names. Raises `ConfigError` for less than two or more than four, or unknown ones."""
    images = named_images(named, output_dir)
    if not 2 <= len(images) <= MOST:
        raise ConfigError(f"compare: got {len(images)} different images; give two to {MOST}")
    return [_compared(image.image_id, output_dir) for image in images]


def differences(images: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """What differs: each name with the value of every image, in the order of a record."""
    names = dict.fromkeys(name for image in images for name in image.facts)
    found = [(name, [image.facts.get(name, "-") for image in images]) for name in names]
    return [(name, values) for name, values in found if len({*values}) > 1]


def table(images: Sequence[Compared]) -> list[list[str]]:
    """The differences as rows of cells with a heading."""
    found = differences(images) or [("nothing that decides a picture differs", [""] * len(images))]
    return [["", *(image.path for image in images)], *([name, *values] for name, values in found)]


def write_page(images: Sequence[Compared], output_dir: Path, path: Path) -> Path:
    """Write the images and what differs as one HTML file; returns it. Raises `ConfigError`."""
    shown = []
    for image in images:
        small = thumbnail(output_dir, image.path, _PAGE_PX)
        source = f"data:image/webp;base64,{base64.b64encode(small).decode()}" if small else ""
        pixels = ' class="small"' if max(image.size) <= 128 else ""
        told = f'<img{pixels} src="{source}" alt="{escaped(image.path)}">' if small else "its file is gone"
        shown.append(f"<td>{told}</td>")
    head = "".join(f'<th scope="col">{escaped(image.path)}</th>' for image in images)
    rows = [
        f'<tr><th scope="row">{escaped(name)}</th>{"".join(f"<td>{escaped(value)}</td>" for value in values)}</tr>'
        for name, *values in table(images)[1:]
    ]
    body = f"<table><thead><tr><td></td>{head}</tr></thead><tbody><tr><td></td>{''.join(shown)}</tr>"
    body += "\n".join(rows) + "</tbody></table>"
    write_made(path, page("Images compared", body, _STYLE).encode())
    return path


def draw(images: Sequence[Compared], output_dir: Path, cell_px: int, font: Path | None = None) -> Image:
    """The images beside each other, with what differs below, as one picture."""
    from PIL import Image, ImageDraw

    text = Lettering(14, font)
    cell = cell_size([{"width": one.size[0], "height": one.size[1]} for one in images], cell_px)
    cell = (max(cell[0], 240), cell[1])
    rows = table(images)
    left = MARGIN_PX + min(320, max(text.width(row[0]) for row in rows)) + 16
    lines = [
        (text.wrapped(name, left - MARGIN_PX - 16), [text.wrapped(value, cell[0]) for value in values])
        for name, *values in rows
    ]
    heights = [max(map(text.height, (name, *values))) + 8 for name, values in lines]
    width = left + len(images) * (cell[0] + GAP_PX) - GAP_PX + MARGIN_PX
    sheet = Image.new("RGB", (width, 2 * MARGIN_PX + cell[1] + 8 + sum(heights)), PAPER)
    drawn = ImageDraw.Draw(sheet)
    for number, image in enumerate(images):
        at = (left + number * (cell[0] + GAP_PX), MARGIN_PX)
        draw_image(sheet, output_dir, image.path, at, cell, text)
    y = MARGIN_PX + cell[1] + 8
    for (name, values), height in zip(lines, heights, strict=True):
        text.draw(drawn, MARGIN_PX, y, name, FAINT)
        for number, value in enumerate(values):
            text.draw(drawn, left + number * (cell[0] + GAP_PX), y, value, INK)
        y += height
    return sheet


def _compared(image_id: str, output_dir: Path) -> Compared:
    columns = ("path", "width", "height", "record_json", "rating", "seconds")
    row = next(search(output_dir, "", f"image_id = '{image_id}'", columns, limit=1))
    if row["record_json"] is None:
        raise ReadError(f"{row['path']}: its row has no record")
    from pipeline.metadata.reading import parse_record

    record = parse_record(row["record_json"]).model_dump(mode="json", by_alias=True)
    hidden = hides_prompt(output_dir, row["path"])
    kept = {name: value for name, value in record.items() if name not in _OF_EACH and not (hidden and name in _TEXTS)}
    facts = {name: value for name, value in _flat(kept) if name not in _OF_THE_MOMENT}
    facts |= {name: f"{row[name]:.4g}" for name in ("rating", "seconds") if row[name] is not None}
    return Compared(row["path"], (row["width"], row["height"]), facts)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{name}.{number}")
    elif value not in (None, "", []):
        yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_STYLE = """
:root { color-scheme: light dark; }
body { margin: 24px; font: 15px/1.4 system-ui, sans-serif; }
table { width: 100%; border-spacing: 12px 6px; table-layout: fixed; }
th { text-align: left; font-weight: 500; overflow-wrap: anywhere; vertical-align: top; }
td { vertical-align: top; overflow-wrap: anywhere; }
thead td, tbody th { width: 200px; }
img { width: 100%; border-radius: 6px; }
img.small { image-rendering: pixelated; }
"""
