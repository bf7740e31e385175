"""Resolves a reference to a path on this machine by the registry, and checks the path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pipeline.errors import ModelError
from pipeline.registry.content import SUFFIXES, blob_path
from pipeline.registry.database import Registry, RegistryError
from pipeline.registry.queries import files_by_hash, find, list_models
from pipeline.registry.records import StoredKind, StoredModel
from pipeline.registry.store_folders import registry_file
from pipeline.registry.storing import files_of, key_of, note_hashes
from pipeline.registry.upkeep import touch
from pipeline.weights.hashes import file_hash, folder_hash, known_places
from pipeline.weights.references import CONFIGURATION, Reference, asked_for, parse

_Answer = TypeVar("_Answer")

_KINDS: dict[str, StoredKind] = {
    "model": "checkpoint",
    "model.config": "checkpoint",
    "vae": "vae",
    "tiny VAE": "vae",
    "lora": "lora",
    "controlnet": "controlnet",
    "embedding": "embedding",
    "ip-adapter": "ip_adapter",
    "image encoder": "ip_adapter",
}
"""What is looked for by each noun of `registry.resolve`: of two models of one name, the one of this kind is meant."""


def find_place(reference: Reference, noun: str) -> Path | None:
    """The path for a reference on this machine; None if nothing is known of it.

    What was fetched must be as it was fetched, and what is named by a hash must have it. Raises `ModelError` where a
    name is ambiguous, and for what is known and has gone or changed; `RegistryError`.
    """
    digits = reference.sha256
    if not registry_file().exists():
        return _by_hash(None, digits) if digits else None
    with Registry() as registry:
        if digits:
            return _by_hash(registry, digits)
        found, inside = _found(registry, asked_for(reference, noun))
        if not found:
            return None
        model = _the_one(found, reference, noun)
        _check(registry, model, reference, noun)
        with suppress(RegistryError):  # what is only read can be used too
            touch(registry, model)
        return model.path / inside


def is_known(reference: Reference) -> bool:
    """Whether something for this reference is here; does not check it or record its use. Raises `RegistryError`."""
    digits = reference.sha256
    if not registry_file().exists():
        return bool(digits and _places(digits))
    with Registry() as registry:
        if digits:
            return bool(_places(digits, registry))
        found, inside = _found(registry, reference)
        return any((model.path / inside).exists() for model in found)


def name_at(path: Path) -> str | None:
    """The registry's name of the model at a path; None if it knows none there. Raises `RegistryError`."""
    if not registry_file().exists():
        return None
    with Registry() as registry:
        rows = registry.rows("SELECT name FROM models WHERE path = ? ORDER BY id LIMIT 1", (str(path),))
    return str(rows[0]["name"]) if rows else None


def places_of(sha256: str) -> list[Path]:
    """Paths that may have content with this SHA-256, the likeliest first; the caller must verify the hash.

    Without a registry that can be read: where it was used before.
    """
    return _asked(lambda registry: _places(sha256, registry)) or _places(sha256)


def places_called(name: str) -> list[Path]:
    """Paths of models with exactly this name, in any spelling: a scan knows names, and hashes only later.

    Nothing without a registry that can be read.
    """
    query = "SELECT path FROM models WHERE name_key = ? ORDER BY id"
    places = _asked(lambda registry: [Path(row["path"]) for row in registry.rows(query, (key_of(name),))])
    return [place for place in places if place.exists()]


def places_of_kind(kind: StoredKind, family: str | None = None) -> list[Path]:
    """Paths of models of a kind, of the given family if there is one, and of unknown family; as `places_called`."""
    known = _asked(lambda registry: list_models(registry, kind=kind))
    return [model.path for model in known if family is None or model.family in (family, None)]


def _asked(question: Callable[[Registry], list[_Answer]]) -> list[_Answer]:
    """The registry's answer, none where it cannot be read: that is said where a model is named, here others may do."""
    with suppress(RegistryError):
        if registry_file().exists():
            with Registry() as registry:
                return question(registry)
    return []


def _found(registry: Registry, reference: Reference) -> tuple[list[StoredModel], str]:
    """What is known by a reference; of a part of a repository that is here as a whole, also where in that it is."""
    found, inside = find(registry, reference), reference.file
    if not inside or (found and inside != CONFIGURATION):
        return found, ""
    whole = find(registry, Reference(reference.text, "hf", reference.repository, reference.revision))
    whole = [model for model in whole if parse(model.reference).file is None]  # not its only part that is here
    if inside == CONFIGURATION:
        return whole or found, ""
    return [model for model in whole if (model.path / inside).exists()], inside


def _the_one(found: list[StoredModel], reference: Reference, noun: str) -> StoredModel:
    here = [model for model in found if model.path.exists()]
    if not here:
        lost = found[0]
        raise ModelError(
            f"{noun} {reference.text!r}: was at {lost.path} and is gone; put it back, or scan its new folder with: "
            "darkroom models scan FOLDER"
        )
    kind = _KINDS.get(noun)
    fitting = [model for model in here if model.kind == kind] or here
    if len(fitting) > 1 and not _same_content(fitting):
        which = listed([model.reference for model in fitting])
        raise ModelError(f"{noun} {reference.text!r}: names {len(fitting)} models; say which: {which}")
    return fitting[0]


def listed(references: Sequence[str], most: int = 5) -> str:
    """References among which a name does not decide, as a list for messages."""
    shown = ", ".join(references[:most])
    return shown + (f" and {len(references) - most} more" if len(references) > most else "")


def _same_content(models: list[StoredModel]) -> bool:
    """Whether these are copies of one file; files of the same length are hashed to know."""
    if len({model.bytes for model in models}) > 1 or not all(model.path.is_file() for model in models):
        return False
    try:
        return len({file_hash(model.path) for model in models}) == 1
    except OSError:
        return False


def _check(registry: Registry, model: StoredModel, reference: Reference, noun: str) -> None:
    """That what was fetched is what was fetched: unread where nothing about the file has changed, else by its hash."""
    for file in files_of(registry, model):
        if not file.owned or file.unchanged():
            continue
        try:
            same = file_hash(file.path) == file.sha256
        except OSError:
            same = False
        if not same:
            raise ModelError(
                f"{noun} {reference.text!r}: {file.name} has changed since it was downloaded; remove it with: "
                f"darkroom models remove {model.reference}, and fetch it again"
            )
        with suppress(RegistryError, OSError):
            note_hashes(registry, file.now())


def _by_hash(registry: Registry | None, digits: str) -> Path | None:
    """A place whose content has this hash, by reading it where that is not remembered."""
    for place in _places(digits, registry):
        with suppress(OSError, ModelError):
            if content_hash(place).startswith(digits):
                return place
    return None


def _places(digits: str, registry: Registry | None = None) -> list[Path]:
    """Where what has this hash may lie: the store, what is known or claimed of scanned files, what was used before."""
    places: list[Path] = []
    if len(digits) == 64:
        places += [blob_path(digits, suffix) for suffix in SUFFIXES]
    if registry:
        for claimed in (False, True):
            places += [file.path for file in files_by_hash(registry, digits, claimed=claimed)]
    places += known_places(digits)
    return [place for place in dict.fromkeys(places) if place.exists()]


def content_hash(place: Path) -> str:
    """The hash by which records identify a file or folder of weights. Raises `ModelError`, `OSError`."""
    if place.is_file():
        return file_hash(place)
    from pipeline.registry.inspected import look_at

    return folder_hash(place, look_at(place).files)
