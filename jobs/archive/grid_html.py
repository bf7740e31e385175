"""A grid of images as a page for a browser: one file with its thumbnails inside, beyond 4,000 images a folder."""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs.archive.grid import NONE, TEXTS, Grid, row_of
from jobs.archive.grid_png import labels_of, private_prompts
from jobs.archive.made_files import write_made
from jobs.archive.pictures import SMALL_PX, thumbnail
from jobs.archive.search import Found
from jobs.archive.web_page import escaped, page, read_beside, script_json
from pipeline.system.units import size_text

MAX_INSIDE = 4_000
"""Images whose thumbnails are put into the page itself: some 55 MB."""

_THREADS = 4


def write_grid_page(grid: Grid, output_dir: Path, path: Path, title: str) -> Path:
    """Write the page, and return its file: `path`, or `index.html` in a folder of that name without its suffix.

    Raises `ConfigError`, and `OSError` for small pictures that cannot be written.
    """
    is_folder = grid.count > MAX_INSIDE
    target = path.with_suffix("") / "index.html" if is_folder else path
    private = private_prompts(grid, output_dir)
    originals = _originals(output_dir, target.parent)
    data = _data(grid, output_dir, target.parent if is_folder else None, originals, private=private)
    script = read_beside("grid_page.js")
    body = _body(title, grid.constant_text(private=private), grid.count)
    if is_folder:
        write_made(target.parent / "grid.js", f"window.GRID = {script_json(data)};\n".encode())
        body += '\n<script src="grid.js"></script>'
    else:
        body += f'\n<script type="application/json" id="grid">{script_json(data)}</script>'
    has_files = is_folder or originals is not None
    text = page(title, body, read_beside("grid_page.css"), [script], image_files=has_files, script_file=is_folder)
    write_made(target, text.encode())
    return target


def _body(title: str, constant: str, count: int) -> str:
    return f"""<header>
<h1>{escaped(title)}</h1>
<p>{count:,} images{f", all with {escaped(constant)}" if constant else ""}</p>
<div class="tools"><div class="tools" id="axes"></div>
<label>size of cells<input id="size" type="range" min="48" max="512" value="160"></label></div>
</header>
<main><p id="note" role="status"></p><table class="grid" id="table"></table></main>
<dialog id="record" aria-label="Record of an image"></dialog>"""


def _originals(output_dir: Path, folder: Path) -> str | None:
    """The link from a page in `folder` to the output folder, which the paths of images follow.

    None where the page is neither beside the output folder, in it or above it: the link would tell of other folders.
    """
    output_dir, folder = output_dir.resolve(), folder.resolve()
    if not (folder.is_relative_to(output_dir.parent) or output_dir.is_relative_to(folder)):
        return None
    return quote(Path(os.path.relpath(output_dir, folder)).as_posix())


def _data(grid: Grid, output_dir: Path, folder: Path | None, originals: str | None, *, private: bool) -> dict[str, Any]:
    rows = grid.rows
    with ThreadPoolExecutor(_THREADS) as threads:  # Pillow reads and scales without the interpreter's lock
        thumbnails = threads.map(lambda row: thumbnail(output_dir, row["path"]), rows)
        made = zip(rows, thumbnails, strict=True)
        images = [_image(n, row, small, folder, originals, private=private) for n, (row, small) in enumerate(made)]
    labels = [labels_of(grid, number, private=private) for number in range(len(grid.axes))]
    axes = [{"name": axis.name, "labels": one} for axis, one in zip(grid.axes, labels, strict=True)]
    return {"axes": axes, "cells": [*grid.cells()], "images": images, "none": NONE}


def _image(
    number: int, row: Found, small: bytes | None, folder: Path | None, originals: str | None, *, private: bool
) -> dict[str, Any]:
    source = ""
    if small is not None and folder is None:
        source = f"data:image/webp;base64,{base64.b64encode(small).decode()}"
    elif small is not None and folder is not None:
        place = folder / "thumbs" / str(number // 1000) / f"{number}.webp"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(small)
        source = place.relative_to(folder).as_posix()
    told = {name: value for name, value in row_of(row).items() if not private or name not in TEXTS}
    return {
        "src": source,
        "original": f"{originals}/{quote(row['path'])}" if source and originals else "",
        "alt": "" if private else row["prompt"][:200],
        "small": max(row["width"], row["height"]) <= SMALL_PX,
        "record": [[name, said(name, value)] for name, value in told.items()],
    }


def said(name: str, value: Any) -> str:
    """A value of a column as people read it."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if name.endswith("_bytes"):
        return size_text(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
