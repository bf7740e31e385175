"""Lay images out in a grid on one PNG, in the order given, each with its prompt below.

    darkroom search --limit 12 --format paths | python examples/contact_sheet.py sheet.png
    python examples/contact_sheet.py sheet.png outputs/demo/*.png --columns 6 --scale 2 --no-captions

All cells have the size of the largest image. A caption is the prompt of the image's record, as `read_record` gives it.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pipeline import ReadError, read_record

MARGIN_PX = 12
CAPTION_LINES = 3
CAPTION_PX = 13
PAPER, INK = "white", "#333333"


def contact_sheet(paths: Sequence[Path], columns: int, scale: int, captions: bool) -> Image.Image:
    """The sheet; `scale` enlarges every image by a whole factor, without smoothing."""
    pictures = [_enlarged(path, scale) for path in paths]
    width, height = max(picture.width for picture in pictures), max(picture.height for picture in pictures)
    below = CAPTION_LINES * (CAPTION_PX + 4) if captions else 0
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step_x, step_y = width + MARGIN_PX, height + below + MARGIN_PX
    sheet = Image.new("RGB", (columns * step_x + MARGIN_PX, rows * step_y + MARGIN_PX), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(CAPTION_PX)
    letters = int(width / font.getlength("n"))
    for place, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
        x, y = MARGIN_PX + place % columns * step_x, MARGIN_PX + place // columns * step_y
        sheet.paste(picture, (x, y))
        if captions:
            lines = textwrap.wrap(_prompt(path), letters, max_lines=CAPTION_LINES, placeholder=" ...")
            draw.multiline_text((x, y + height + 3), "\n".join(lines), INK, font, spacing=3)
    return sheet


def _enlarged(path: Path, scale: int) -> Image.Image:
    with Image.open(path) as picture:
        size = (picture.width * scale, picture.height * scale)
        return picture.convert("RGB").resize(size, Image.Resampling.NEAREST)


def _prompt(path: Path) -> str:
    try:
        return read_record(path).prompt
    except ReadError:  # a private image, or one of another program
        return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 when there is nothing to lay out or an image cannot be read."""
    parser = argparse.ArgumentParser(description="Lay images out in a grid on one PNG.")
    parser.add_argument("sheet", type=Path, help="the PNG to write")
    parser.add_argument("images", type=Path, nargs="*", help="image files; without any, one path per line is read")
    parser.add_argument("--columns", type=int, default=4, help="images beside each other (4)")
    parser.add_argument("--scale", type=int, default=3, help="enlarge by this whole factor (3)")
    parser.add_argument("--captions", action=argparse.BooleanOptionalAction, default=True, help="write the prompts")
    options = parser.parse_args(arguments)
    if options.columns < 1 or options.scale < 1:
        parser.error("--columns and --scale must be at least 1")
    paths = options.images or [Path(line) for line in sys.stdin.read().splitlines() if line]
    if not paths:
        print("no images given", file=sys.stderr)
        return 2
    try:
        sheet = contact_sheet(paths, options.columns, options.scale, options.captions)
    except OSError as error:
        print(f"an image cannot be read: {error}", file=sys.stderr)
        return 2
    sheet.save(options.sheet, optimize=True)
    print(f"{len(paths)} images on {options.sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
