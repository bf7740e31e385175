"""Notes in the store about each downloaded model, from which the registry can be rebuilt without asking a hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pipeline.registry.records import KINDS, ModelCard, StoredFile, StoredModel
from pipeline.registry.store_folders import data_folder, store_folder
from pipeline.registry.stored_cards import card_from, card_values
from pipeline.storage.durable import write_whole
from pipeline.storage.user_folders import make_folder


def write_note(model: StoredModel, files: Sequence[StoredFile], card: ModelCard) -> None:
    """Write a note about a downloaded model beside its files, atomically. Raises `OSError`."""
    path = _note_path(model)
    make_folder(path.parent, data_folder())
    values = asdict(model) | {"path": _relative(model.path), "id": 0}
    values["card"] = card_values(card)
    values["files"] = [asdict(file) | {"path": _relative(file.path), "model_id": 0} for file in files]
    write_whole(path, json.dumps(values, indent=1).encode())


def remove_note(model: StoredModel) -> None:
    """Delete the note of a model. Raises `OSError`."""
    _note_path(model).unlink(missing_ok=True)


def notes() -> Iterator[tuple[Path, StoredModel | None, list[StoredFile], ModelCard, str]]:
    """Every note in the store with its model, files and card, or None and why it cannot be used."""
    for path in sorted((store_folder() / "notes").glob("*.json")):
        try:
            model, files, card = _read(path)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            yield path, None, [], ModelCard(), "cannot be read as a note of a fetched model; fetch that again"
            continue
        lost = next((file.path for file in files if not file.path.is_file()), None)
        if lost:
            yield path, None, [], card, f"{model.reference} lacks {lost.name}; fetch it again"
        else:
            yield path, model, files, card, ""


def _note_path(model: StoredModel) -> Path:
    name = hashlib.sha256(f"{model.reference}\n{_relative(model.path)}".encode()).hexdigest()[:32]
    return store_folder() / "notes" / f"{name}.json"


def _relative(path: Path) -> str:
    return path.relative_to(store_folder()).as_posix()


def _read(path: Path) -> tuple[StoredModel, list[StoredFile], ModelCard]:
    values = json.loads(path.read_text(encoding="utf-8"))
    files = [StoredFile(**_arguments(StoredFile, one)) for one in values["files"]]
    model = StoredModel(**_arguments(StoredModel, values))
    if model.kind not in KINDS or not isinstance(model.name, str) or not isinstance(model.reference, str):
        raise ValueError(path.name)
    return model, files, card_from(values.get("card"))


def _arguments(record: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record, with lists as tuples and the path made whole; it never leaves the store."""
    known = {one.name for one in fields(record)}
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if name in known
    }
    place = store_folder() / values["path"]
    if not place.resolve().is_relative_to(store_folder().resolve()):
        raise ValueError(values["path"])
    return given | {"path": place}
