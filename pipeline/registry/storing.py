"""Adds models to the registry and removes them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pipeline.registry.database import Registry, RegistryNotWritable
from pipeline.registry.notes import write_note
from pipeline.registry.records import ModelCard, StoredFile, StoredModel, now
from pipeline.registry.stored_cards import write_card

_KEPT = ("last_used", "added_at")
"""What stays when a model is added once more."""

_SEARCHED = 500
"""Characters of a description that are searched: what a model is stands at its beginning, thanks and links below."""

_NO_CARD = ModelCard()

_LISTS = ("trigger_words", "tags", "branches")
_FIELDS = [field.name for field in fields(StoredModel)]
MODEL_COLUMNS = ", ".join(_FIELDS)
"""The columns of a model, in the order of its fields."""

_MODEL = [*(name for name in _FIELDS if name != "id"), "name_key", "words"]
_FILE = ["model" if field.name == "model_id" else field.name for field in fields(StoredFile)]
"""The columns that are written; the id of a model is the database's own."""

_PATH_PLACE = _FIELDS.index("path")
_LIST_PLACES = tuple(map(_FIELDS.index, _LISTS))

_INSERT_MODEL = (
    f"INSERT INTO models ({', '.join(_MODEL)}) VALUES ({', '.join('?' * len(_MODEL))}) "
    f"ON CONFLICT (reference, path) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in _MODEL if c not in _KEPT)}"
)
_INSERT_FILE = f"INSERT OR REPLACE INTO files ({', '.join(_FILE)}) VALUES ({', '.join('?' * len(_FILE))})"


def add(registry: Registry, model: StoredModel, files: Iterable[StoredFile], card: ModelCard = _NO_CARD) -> StoredModel:
    """Add a model, its files and its card, or update the one with this reference and path; returns it as stored.

    The times it was added and used stay, and hashes of files that have not changed. Its branches no longer point to
    other commits. Raises `RegistryError`.
    """
    with registry.changing() as connection:
        if model.branches and model.revision:
            _take_branches(connection, model)
        connection.execute(_INSERT_MODEL, _values(model, card))
        (row,) = registry.rows(
            f"SELECT {MODEL_COLUMNS} FROM models WHERE reference = ? AND path = ?", (model.reference, str(model.path))
        )
        stored = model_of(row)
        hashed = {file.path: file for file in files_of(registry, stored) if file.sha256}
        connection.execute("DELETE FROM files WHERE model = ?", (stored.id,))
        for file in files:
            before = hashed.get(file.path)
            if before and file.sha256 is None and _state(before) == _state(file):
                file = replace(file, sha256=before.sha256, tensor_hash=before.tensor_hash)
            connection.execute(_INSERT_FILE, _file_values(replace(file, model_id=stored.id)))
        write_card(connection, stored.id, card)
        kept = files_of(registry, stored)
    if any(file.owned for file in kept):
        with suppress(OSError):  # the note is for the day on which the registry is lost
            write_note(stored, kept, card)
    return stored


def forget_at(registry: Registry, path: Path, keep: str | None = None) -> None:
    """Remove scanned models at a path, except the one with the reference `keep`. Raises `RegistryError`."""
    with registry.changing() as connection:
        connection.execute(
            "DELETE FROM models WHERE path = ? AND reference IS NOT ? "
            "AND NOT EXISTS (SELECT 1 FROM files WHERE model = models.id AND owned)",
            (str(path), keep),
        )


def note_hashes(registry: Registry, file: StoredFile) -> None:
    """Store the hashes of a known file, and the file state to which they belong. Raises `RegistryError`.

    On a read-only or full disk they are computed again when they are needed again.
    """
    with suppress(RegistryNotWritable), registry.changing() as connection:
        connection.execute(
            "UPDATE files SET sha256 = ?, tensor_hash = ?, bytes = ?, mtime_ns = ?, inode = ? "
            "WHERE model = ? AND path = ?",
            (file.sha256, file.tensor_hash, *_state(file), file.model_id, str(file.path)),
        )


def files_of(registry: Registry, model: StoredModel) -> list[StoredFile]:
    """The files of a model. Raises `RegistryError`."""
    rows = registry.rows("SELECT * FROM files WHERE model = ? ORDER BY path", (model.id,))
    return [file_of(row) for row in rows]


def model_of(row: sqlite3.Row) -> StoredModel:
    """The model of a row of `MODEL_COLUMNS`; read by position, since thousands are listed at once."""
    values = list(row)
    values[_PATH_PLACE] = Path(values[_PATH_PLACE])
    for place in _LIST_PLACES:
        values[place] = _listed(values[place])
    return StoredModel(*values)


def file_of(row: sqlite3.Row) -> StoredFile:
    """The file of a row of the table `files`."""
    values = dict(row)
    values["model_id"] = values.pop("model")
    values["path"], values["owned"] = Path(values["path"]), bool(values["owned"])
    return StoredFile(**values)


def key_of(name: str) -> str:
    """A name in the form for comparisons: in small letters, with one hyphen between words."""
    return re.sub(r"[\W_]+", "-", name.casefold()).strip("-") or name.casefold()


def repository_of(reference: str) -> str:
    """`hf:org/name` of a canonical reference to it or to one of its files; other references unchanged."""
    return reference.partition("@")[0] if reference.startswith("hf:") else reference


def _take_branches(connection: sqlite3.Connection, model: StoredModel) -> None:
    repository = repository_of(model.reference)
    others = connection.execute(
        "SELECT id, branches FROM models WHERE reference >= ? AND reference < ? AND revision IS NOT ?",
        (f"{repository}@", f"{repository}A", model.revision),  # A comes after @
    ).fetchall()
    for row in others:
        left = [branch for branch in _listed(row["branches"]) if branch not in model.branches]
        connection.execute("UPDATE models SET branches = ? WHERE id = ?", (_joined(left), row["id"]))


def _values(model: StoredModel, card: ModelCard) -> list[Any]:
    origin = model.path.name if model.source == "local" else model.reference  # of a path, all folders would match
    said = (card.title, card.description[:_SEARCHED])
    searched = [model.name, origin, model.base_model or "", *model.tags, *model.trigger_words, *said]
    computed = {
        "name_key": key_of(model.name),
        "path": str(model.path),
        "words": "\n".join(searched).casefold(),
        "added_at": model.added_at or now(),
        **{column: _joined(getattr(model, column)) for column in _LISTS},
    }
    return [computed[column] if column in computed else getattr(model, column) for column in _MODEL]


def _file_values(file: StoredFile) -> list[Any]:
    computed = {"model": file.model_id, "path": str(file.path), "owned": int(file.owned)}
    return [computed[column] if column in computed else getattr(file, column) for column in _FILE]


def _state(file: StoredFile) -> Sequence[int]:
    return file.bytes, file.mtime_ns, file.inode


def _joined(words: Iterable[str]) -> str:
    """A list as one text, a word in a line."""
    return "\n".join(" ".join(word.split("\n")) for word in words)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split("\n")) if text else ()
