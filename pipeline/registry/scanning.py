"""Scans folders for models in place: nothing is moved, and nothing is written there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ModelError
from pipeline.registry.database import Registry
from pipeline.registry.model_description import described, header_card
from pipeline.registry.records import ModelCard, StoredFile, StoredModel
from pipeline.registry.store_folders import store_folder
from pipeline.registry.storing import add, forget_at
from pipeline.registry.walking import FoundModel, Walk
from pipeline.storage.foreign_names import plain
from pipeline.version import VERSION

Progress = Callable[[Path], None]
"""Called with each file or folder that is looked at."""

_BY = f"{VERSION}+cards"
"""Who looked: what another version of this program has seen is looked at again, once. The first one kept no cards."""

_AT_ONCE = 100
"""So many models are written in one transaction; what a scan that is broken off has written stays."""


@dataclass(slots=True)
class ScanReport:
    """Counts of models, and refused files with the reason. `found` are all that can be used now.

    `gone`: were known in this folder and are no longer there.
    """

    found: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0
    refused: list[tuple[Path, str]] = field(default_factory=list)


def scan(registry: Registry, folder: Path, progress: Progress | None = None) -> ScanReport:
    """Scan a folder and its subfolders: ComfyUI's and A1111's, a Hugging Face cache, diffusers folders, files.

    Headers and small files are read, never weights; of what has not changed since the last scan, nothing is. Scanning
    the store itself takes in again what was fetched. Raises `ModelError` if there is no such folder.
    """
    root = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100  (links stay: they name what lies in caches)
    if not root.is_dir():
        raise ModelError(f"scan {folder}: no such folder (looked in {Path.cwd()})")
    report, store = ScanReport(), store_folder()
    if root.is_relative_to(store):
        return _restored(registry, report)
    walk = Walk(root, skipped=(store,))
    known = _known(registry, root)
    seen: set[str] = set()
    news: list[_Found] = []
    for item in walk:
        if progress:
            progress(item.path)
        path = str(item.path)
        seen.add(path)
        before = known.get(path)
        if before and (before.signature, before.by) == (item.signature, _BY):
            _count(report, item, before, before.why)
            continue
        found = _looked_at(item)
        _count(report, item, before, found.why)
        if item.signature:
            news.append(found)
        if len(news) == _AT_ONCE:
            _note(registry, news)
            news = []
    _note(registry, news)
    report.refused += walk.unreadable
    report.gone = _forget_gone(registry, known, seen, [path for path, _ in walk.unreadable])
    report.found = report.added + report.changed + report.unchanged
    return report


class _Known(NamedTuple):
    """What an earlier scan saw: by which version of this program, and what it was refused for."""

    signature: str
    by: str
    why: str | None


class _Found(NamedTuple):
    """What this scan sees: a model, or why it is none."""

    item: FoundModel
    model: StoredModel | None
    files: list[StoredFile]
    card: ModelCard
    why: str | None


def _known(registry: Registry, root: Path) -> dict[str, _Known]:
    """What earlier scans saw in a folder and below, by path."""
    below = str(root).rstrip("/") + "/"
    rows = registry.rows(
        "SELECT path, signature, by, why FROM scanned WHERE path = ? OR (path >= ? AND path < ?)",
        (str(root), below, below[:-1] + "0"),  # 0 comes after /
    )
    return {row["path"]: _Known(row["signature"], row["by"], row["why"]) for row in rows}


def _count(report: ScanReport, item: FoundModel, before: _Known | None, why: str | None) -> None:
    if why is not None:
        report.refused.append((item.path, why))
    elif before is None or before.why is not None:
        report.added += 1
    elif before.signature == item.signature:
        report.unchanged += 1
    else:
        report.changed += 1


def _looked_at(item: FoundModel) -> _Found:
    try:
        if item.fault:
            raise ModelError(f"{item.path.name}: {item.fault}")
        return _Found(item, *described(item), None)
    except (ModelError, OSError) as error:
        why = str(error)
    except Exception as error:  # strangers' files: what nobody thought of must not end the scan of all others
        why = f"{item.path.name}: cannot be understood ({type(error).__name__}: {error})"
    return _Found(item, None, [], ModelCard(), plain(why, 500))  # it may quote what strangers wrote


def _note(registry: Registry, news: list[_Found]) -> None:
    if not news:
        return
    with registry.changing() as connection:
        for item, model, files, card, why in news:
            forget_at(registry, item.path, keep=model.reference if model else None)
            if model:
                add(registry, model, files, card)
            connection.execute(
                "INSERT OR REPLACE INTO scanned VALUES (?, ?, ?, ?)", (str(item.path), item.signature, _BY, why)
            )


def _forget_gone(registry: Registry, known: dict[str, _Known], seen: set[str], unreadable: list[Path]) -> int:
    """Drop what is no longer there. What lies below a folder that cannot be read now may still be."""
    lost = [path for path in known if path not in seen and not any(Path(path).is_relative_to(f) for f in unreadable)]
    if not lost:
        return 0
    with registry.changing() as connection:
        for path in lost:
            connection.execute("DELETE FROM scanned WHERE path = ?", (path,))
            forget_at(registry, Path(path))
    return sum(known[path].why is None for path in lost)


def _restored(registry: Registry, report: ScanReport) -> ScanReport:
    """What was fetched, from the notes that lie beside it in the store."""
    from pipeline.registry.notes import notes

    for path, model, files, card, why in notes():
        if model is None:
            report.refused.append((path, why))
            continue
        known = registry.rows(
            "SELECT id FROM models WHERE reference = ? AND path = ?", (model.reference, str(model.path))
        )
        add(registry, model, files, card if card != ModelCard() else header_card(model))
        report.found += 1
        report.added += not known
        report.unchanged += bool(known)
    return report
