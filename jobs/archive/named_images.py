"""Images as people name them: by a path, an id, or the first eight digits of one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jobs.manifest.layout import Layout, command
from jobs.manifest.query import stream
from jobs.manifest.schema import DONE
from pipeline.errors import ConfigError, ReadError
from pipeline.metadata.reading import read_id

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

_ID = re.compile(r"[0-9a-f]{8}[0-9a-f-]{0,28}")

_PREFIX = 8


class NamedImage(NamedTuple):
    """An image of the manifest; `path` is relative to the output folder."""

    image_id: str
    job_id: str
    path: str


def named_images(named: Sequence[str], output_dir: Path) -> list[NamedImage]:
    """The images of these names, each once, in order. Raises `ConfigError` with a line for each that is not known.

    A path may be that of a file, of ours, or as a row has it, also of an image that is gone.
    """
    Layout(output_dir).check_there()
    faults: list[str] = []
    keys = {name: _key(name, output_dir) for name in named}
    rows = _rows(output_dir, list(keys.values()))
    found: dict[str, NamedImage] = {}
    for name, key in keys.items():
        images = [row for row in rows if key == row.path or (_ID.fullmatch(key) and row.image_id.startswith(key))]
        if len(images) == 1:
            found[images[0].image_id] = images[0]
        elif images:
            paths = ", ".join(image.path for image in images[:3])
            faults.append(f"{name}: {len(images)} images begin so ({paths}); give more digits")
        elif Path(name).is_file():
            way_out = f"{command(output_dir, 'reindex')} adds images that Darkroom made"
            faults.append(f"{name}: not in the manifest of {output_dir}; {way_out}")
        else:
            faults.append(f"{name}: no such image; expected a path, an id, or the first {_PREFIX} digits of one")
    if faults:
        raise ConfigError(faults)
    return list(found.values())


def is_id(word: str) -> bool:
    """Whether a word can only be an id, or the beginning of one."""
    return _ID.fullmatch(word.lower()) is not None


def image_file(named: Path, output_dir: Path) -> Path:
    """The file of an image that is named by a path, or as `named_images` takes it, for who reads files of any program.

    What is neither there nor in the manifest stays as it is. Raises `ConfigError` for digits that begin no id, or
    several, `ReadError` for digits where the manifest cannot be read.
    """
    if os.path.lexists(named) or not Layout(output_dir).root.is_dir():
        return named
    try:
        (image,) = named_images([str(named)], output_dir)
    except (ConfigError, ReadError):
        if is_id(str(named)):
            raise
        return named
    return output_dir / image.path


def _key(name: str, output_dir: Path) -> str:
    """What to look for: an id or its beginning, else a row's path, also where the file says nothing."""
    path = Path(name)
    if path.is_file():
        with contextlib.suppress(ReadError):
            if image_id := read_id(path):
                return image_id
    elif is_id(name):
        return name.lower()
    place, root = path.resolve(), output_dir.resolve()
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else path.as_posix()


def _rows(output_dir: Path, keys: Sequence[str]) -> list[NamedImage]:
    def select(connection: DuckDBPyConnection) -> DuckDBPyRelation:
        from duckdb import ColumnExpression, ConstantExpression, FunctionExpression

        beginning = FunctionExpression("left", ColumnExpression("image_id"), ConstantExpression(_PREFIX))
        begins = beginning.isin(*(ConstantExpression(key[:_PREFIX]) for key in keys))
        wanted = begins | ColumnExpression("path").isin(*map(ConstantExpression, keys))
        images = connection.view("images").filter(ColumnExpression("status") == ConstantExpression(DONE))
        return images.filter(wanted).select(*map(ColumnExpression, NamedImage._fields))

    if not keys:
        return []
    return [NamedImage(*row) for rows in stream(output_dir, select, feedback=False) for row in rows]
