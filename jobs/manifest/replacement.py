"""Replaces parts by others so that at every moment each row counts exactly once.

The new parts are written under temporary names and fsynced; a record in `log/` names inputs and outputs; the
outputs get their names, and the last of these renames is the commit; then the inputs and the record are
deleted. A reader that finds a record counts the inputs until every output exists, and only the outputs from
then on.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.manifest.crashpoints import reached
from jobs.manifest.layout import Layout, is_part_file
from pipeline.errors import ReadError
from pipeline.storage.durable import publish, write_whole
from pipeline.storage.platform import sync_folder

_log = logging.getLogger("darkroom.manifest")


@dataclass(frozen=True, slots=True)
class Replacement:
    """The record of a replacement: names in `parts/`. `temporaries` are the outputs' names before the commit."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    temporaries: tuple[str, ...]

    def uncounted(self, parts: set[str]) -> set[str]:
        """The files in `parts` that must not be read."""
        return set(self.inputs if parts.issuperset(self.outputs) else self.outputs)


def read_replacement(path: Path) -> Replacement:
    """Parse a record. Raises FileNotFoundError if it was finished meanwhile, `ReadError` if it is not valid."""
    content = path.read_bytes()
    try:
        lists = [_part_files(json.loads(content)[name]) for name in ("inputs", "outputs", "temporaries")]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ReadError(f"{path}: a damaged record of merged parts ({error}); it is left out") from error
    if len(lists[1]) != len(lists[2]):
        raise ReadError(f"{path}: a damaged record of merged parts (names are missing); it is left out")
    return Replacement(*lists)


def _part_files(names: Any) -> tuple[str, ...]:
    """Names of files in `parts/`, which are replaced and deleted. Raises ValueError for anything else."""
    for name in names:
        if not isinstance(name, str) or not is_part_file(name):
            raise ValueError(f"{name!r:.80} is no part's name")
    return tuple(names)


def replace_parts(layout: Layout, inputs: Sequence[Path], outputs: Sequence[tuple[Path, Path]]) -> None:
    """Replace `inputs` by `outputs`: pairs of synced temporary and final path. Hold the compaction lock.

    Raises OSError: nothing was begun, or `finish_replacements` completes it.
    """
    reached("after_compaction_temporary")
    record = layout.log / f"{uuid.uuid4().hex}.json"
    content = {
        "inputs": [path.name for path in inputs],
        "outputs": [path.name for _, path in outputs],
        "temporaries": [temporary.name for temporary, _ in outputs],
    }
    try:
        write_whole(record, json.dumps(content).encode())
    except OSError:
        for temporary, _ in outputs:
            temporary.unlink()
        raise
    reached("after_compaction_record")
    _finish(layout, record)


def finish_replacements(layout: Layout) -> None:
    """Complete every replacement that a dead process has begun. Hold the compaction lock."""
    for record in layout.log.glob("*.json"):
        try:
            _finish(layout, record)
        except ReadError as error:
            _log.warning("%s; kept as %s.damaged", error, record.stem)
            record.rename(record.with_suffix(".damaged"))


def _finish(layout: Layout, record: Path) -> None:
    replacement = read_replacement(record)
    for temporary, output in zip(replacement.temporaries, replacement.outputs, strict=True):
        if (layout.parts / temporary).exists():
            publish(layout.parts / temporary, layout.parts / output)
            reached("after_compaction_rename")
    # An output can only be missing if somebody deleted its temporary file: then the inputs stay, the outputs
    # go.
    complete = all((layout.parts / name).exists() for name in replacement.outputs)
    for name in replacement.inputs if complete else replacement.outputs:
        (layout.parts / name).unlink(missing_ok=True)
        reached("after_compaction_delete")
    sync_folder(layout.parts)
    record.unlink()
    sync_folder(layout.log)
