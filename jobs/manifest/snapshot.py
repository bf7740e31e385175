"""The files that make up the manifest at one moment, while others seal and compact it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from jobs.manifest.layout import Layout, journal_order
from jobs.manifest.parts import part_version
from jobs.manifest.replacement import Replacement, read_replacement
from pipeline.errors import ReadError

T = TypeVar("T")

_log = logging.getLogger("darkroom.manifest")
_warned: set[str] = set()

_PATIENCE_S = 10.0
"""So long is a manifest looked at again whose files come and go; a busy machine may see none of its states twice."""

_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The valid parts and journals; every row is in exactly one of them. `refused` are files that are ignored, with the
    reason, `ratings` those of ratings, None where nobody rated.

    Files can vanish later, when their rows move on: read through `reading_retried`.
    """

    parts: tuple[Path, ...]
    journals: tuple[Path, ...]
    refused: tuple[tuple[Path, ReadError], ...] = ()
    ratings: Snapshot | None = None


def warn_once(line: str) -> None:
    """Warn of a fault of a file, once, although the file is read repeatedly."""
    if line not in _warned:
        _warned.add(line)
        _log.warning("%s", line)


def reading_retried(
    output_dir: Path, read: Callable[[Snapshot], T], version: Callable[[Path], int] = part_version
) -> T:
    """Call `read` with a snapshot, and again with a new one if a file vanished during it.

    `read` lets FileNotFoundError through; `version` is as in `take_snapshot`. Raises ReadError when the manifest does
    not hold still.
    """
    for _ in _while_patient():
        try:
            return read(take_snapshot(output_dir, version))
        except FileNotFoundError:
            time.sleep(_PAUSE_S)
    raise ReadError(f"{Layout(output_dir).root}: files vanish faster than they can be read; try again")


def _while_patient() -> Iterator[None]:
    give_up_at = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up_at:
        yield


def take_snapshot(output_dir: Path, version: Callable[[Path], int] = part_version) -> Snapshot:
    """The valid files now; unreadable and foreign files in `parts/` are ignored, with one warning each.

    `version` reads a part's footer, raising what `part_version` does.
    """
    layout = Layout(output_dir)
    rows = _snapshot(layout, version)
    return replace(rows, ratings=_snapshot(layout.ratings, version)) if layout.ratings.root.is_dir() else rows


def _snapshot(layout: Layout, version: Callable[[Path], int]) -> Snapshot:
    journal_stems, parts = _stable_listing(layout)
    part_stems = {Path(name).stem for name in parts}
    journals = tuple(layout.journal(stem) for stem in journal_stems if stem not in part_stems)
    readable, refused = [], []
    for name in sorted(parts):
        try:
            version(layout.parts / name)
        except ReadError as error:
            refused.append((layout.parts / name, error))
            warn_once(str(error))
        else:
            readable.append(layout.parts / name)
    return Snapshot(tuple(readable), journals, tuple(refused))


def _replacement(path: Path) -> Replacement | None:
    try:
        return read_replacement(path)
    except ReadError as error:
        warn_once(str(error))
        return None


def _stable_listing(layout: Layout) -> tuple[tuple[str, ...], frozenset[str]]:
    """Stems of journals and names of parts that count, seen twice alike.

    A single listing is not enough: while a folder is read, a new part can be missed and the ones it replaces
    be gone already. Journals are listed before parts (a sealed journal is then in the parts), records after
    them (a finished replacement's inputs are then gone).
    """
    previous = None
    for _ in _while_patient():
        journals = sorted(
            path.stem for path in layout.journals.glob("*.jsonl") if journal_order(path) and path.is_file()
        )
        parts = {path.name for path in layout.parts.glob("*.parquet") if not path.name.startswith(".")}
        try:
            records = [record for path in layout.log.glob("*.json") if (record := _replacement(path))]
        except FileNotFoundError:
            continue
        for record in records:
            parts -= record.uncounted(parts)
        listing = (tuple(journals), frozenset(parts))
        if listing == previous:
            return listing
        previous = listing
    raise ReadError(f"{layout.root}: files come and go faster than they can be listed; try again")
