"""Queries of the registry: list, search, find by reference or name, count."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pipeline.errors import ModelError
from pipeline.registry.database import Registry
from pipeline.registry.leftovers import leftovers
from pipeline.registry.records import Source, StoredFile, StoredKind, StoredModel
from pipeline.registry.storing import MODEL_COLUMNS, file_of, key_of, model_of, repository_of
from pipeline.weights.headers.base import WEIGHTS
from pipeline.weights.references import Reference, parse

Sort = Literal["name", "bytes", "last_used", "added_at", "kind", "family"]

_DOWNLOADED = "EXISTS (SELECT 1 FROM files WHERE model = models.id AND owned)"
_ORDERS: dict[Sort, str] = {
    "name": "name_key, id",
    "bytes": "bytes DESC, name_key, id",
    "last_used": "last_used IS NULL, last_used DESC, name_key, id",
    "added_at": "added_at DESC, id",
    "kind": "kind, name_key, id",
    "family": "family IS NULL, family, name_key, id",
}


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of models and sums of bytes. Content that several models share counts once in `downloaded_bytes`.

    `left_over` are files in the store that no model has: of downloads that were broken off, mostly.
    """

    models: int
    by_source: dict[str, int]
    by_kind: dict[str, int]
    by_family: dict[str, int]
    bytes: int
    downloaded: int
    downloaded_bytes: int
    left_over: int
    left_over_bytes: int


def list_models(
    registry: Registry,
    *,
    kind: StoredKind | None = None,
    family: str | None = None,
    source: Source | None = None,
    downloaded: bool | None = None,
    text: str = "",
    sort: Sort = "name",
    limit: int | None = None,
) -> list[StoredModel]:
    """Models that match all filters; numbers and times sort the largest first. Raises `RegistryError`.

    `downloaded`: those that Darkroom has fetched, or the others. Of `text` every word must stand somewhere in name,
    hub's reference or file name, base model, tags, trigger words, title or the beginning of the description; parts of
    words count, capitals do not.
    """
    conditions, values = ["TRUE"], []
    for column, value in (("kind", kind), ("family", family), ("source", source)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if downloaded is not None:
        conditions.append(_DOWNLOADED if downloaded else f"NOT {_DOWNLOADED}")
    for word in text.casefold().split():
        conditions.append("instr(words, ?)")
        values.append(word)
    return _models(
        registry,
        f"{' AND '.join(conditions)} ORDER BY {_ORDERS[sort]} LIMIT ?",
        [*values, -1 if limit is None else limit],
    )


def search_local(registry: Registry, text: str) -> list[StoredModel]:
    """Models that match all these words; matches in the name come before matches elsewhere."""
    key = key_of(text)
    found = list_models(registry, text=text)
    return sorted(found, key=lambda model: (key_of(model.name) != key, key not in key_of(model.name)))


def find(registry: Registry, reference: str | Reference) -> list[StoredModel]:
    """The models for a reference or a plain name; none if it is not known.

    A hub's reference, a hash or a path means one model at most: of several copies a fetched one, of several commits the
    branch that was asked for, else the newest. A name means the model that is called so, else the only one whose name
    begins so, of several commits likewise; where several are, all are returned, and it is ambiguous. Raises
    `RegistryError`, and `ModelError` for what is no reference.
    """
    parsed = parse(reference) if isinstance(reference, str) else reference
    match parsed.scheme:
        case "hf":
            return _of_repository(registry, parsed)
        case "civitai":
            fetched_first = "source = 'civitai' DESC"  # others have the number from what lies beside them
            return _best(registry, "version_id = ?", [parsed.number], fetched_first) or _best(
                registry, "model_id = ?", [parsed.number], f"version_id DESC, {fetched_first}"
            )
        case "sha256":
            ids = {file.model_id for file in files_by_hash(registry, parsed.sha256 or "")}
            return _best(registry, f"id IN ({', '.join(map(str, ids))})") if ids else []
        case "path":
            return _best(registry, "path = ?", [str(Path(parsed.text).expanduser().absolute())])
    return _called(registry, parsed.text)


def files_by_hash(registry: Registry, sha256: str, *, claimed: bool = False) -> list[StoredFile]:
    """Files whose SHA-256 begins so, or for which a note beside them claims so. Raises `RegistryError`."""
    column = "claimed_sha256" if claimed else "sha256"
    rows = registry.rows(
        f"SELECT * FROM files WHERE {column} >= ? AND {column} < ? ORDER BY owned DESC, path", (sha256, f"{sha256}g")
    )
    return [file_of(row) for row in rows]


def files_by_tensors(registry: Registry, tensor_hash: str) -> list[StoredFile]:
    """Files with exactly these weights, whatever metadata their headers have. Raises `RegistryError`."""
    rows = registry.rows("SELECT * FROM files WHERE tensor_hash = ? ORDER BY owned DESC, path", (tensor_hash,))
    return [file_of(row) for row in rows]


def stats(registry: Registry) -> Stats:
    """Counts and sums over all known models. Raises `RegistryError`."""

    def counts(column: str) -> dict[str, int]:
        rows = registry.rows(
            f"SELECT coalesce({column}, 'unknown') AS name, count(*) AS n FROM models GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        return {row["name"]: row["n"] for row in rows}

    (total,) = registry.rows("SELECT count(*) AS n, coalesce(sum(bytes), 0) AS bytes FROM models")
    (fetched,) = registry.rows(f"SELECT count(*) AS n FROM models WHERE {_DOWNLOADED}")
    left = leftovers(registry)
    return Stats(
        models=total["n"],
        by_source=counts("source"),
        by_kind=counts("kind"),
        by_family=counts("family"),
        bytes=total["bytes"],
        downloaded=fetched["n"],
        downloaded_bytes=downloaded_bytes(registry),
        left_over=len(left),
        left_over_bytes=sum(one.bytes for one in left),
    )


def downloaded_bytes(registry: Registry) -> int:
    """Bytes of all downloads, each content once, as on the disk. Raises `RegistryError`."""
    (row,) = registry.rows(
        "SELECT coalesce(sum(bytes), 0) AS bytes FROM "
        "(SELECT max(bytes) AS bytes FROM files WHERE owned GROUP BY coalesce(sha256, path))"
    )
    return int(row["bytes"])


def _of_repository(registry: Registry, reference: Reference) -> list[StoredModel]:
    """By commit, the beginning of one, or a branch; without a revision, `main` before others, then the newest.

    Of a whole repository the entry for the whole, else that of its only file of weights that is known. A component's
    folder, or the configuration without weights, is found by no other reference than its own.
    """
    repository = f"hf:{reference.repository}@"
    found = _models(registry, "reference >= ? AND reference < ?", [repository, f"{repository[:-1]}A"])
    if reference.revision:
        asked = reference.revision
        named = [model for model in found if asked in model.branches]
        is_commit = len(asked) >= _SHORTEST_COMMIT
        found = named or [model for model in found if is_commit and (model.revision or "").startswith(asked)]
    files = {inside for model in found if (inside := _inside(model)).endswith(WEIGHTS) or not inside}
    only = next(iter(files)) if len(files) == 1 else ""
    wanted = only if reference.file is None else reference.file
    exact = [model for model in found if _inside(model) == wanted]
    return _newest(registry, exact)


def _newest(registry: Registry, models: Sequence[StoredModel]) -> list[StoredModel]:
    """Of each part of a repository, of which several commits are here, the one that is meant without a revision."""
    fetched = _fetched(registry, models)
    best: dict[tuple[str, str], StoredModel] = {}
    for model in sorted(models, key=lambda one: ("main" in one.branches, one.id in fetched, one.added_at, one.id)):
        is_commit = model.source == "huggingface"
        best[(repository_of(model.reference), _inside(model)) if is_commit else ("", str(model.id))] = model
    return [model for model in models if model in best.values()]


def _inside(model: StoredModel) -> str:
    """The path in its repository, empty for the whole."""
    return model.reference.partition("@")[2].partition("/")[2]


_SHORTEST_COMMIT = 7
"""Digits of a commit that are taken for it, as git does."""


def _called(registry: Registry, name: str) -> list[StoredModel]:
    bare = name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix.lower() in WEIGHTS else name
    key = key_of(bare)
    if exact := _newest(registry, _models(registry, "name_key = ? ORDER BY id", [key])):
        return exact
    if "/" in name:
        with suppress(ModelError):  # not the form of a repository
            if repository := _of_repository(registry, parse(f"hf:{name}")):
                return repository
    begin_so = "name_key >= ? AND name_key < ? ORDER BY name_key, id"
    return _newest(registry, _models(registry, begin_so, [key, f"{key}\U0010ffff"]))


def _best(registry: Registry, condition: str, values: Sequence[Any] = (), order: str = "1") -> list[StoredModel]:
    """One model: of several copies a fetched one, then the newest."""
    return _models(registry, f"{condition} ORDER BY {order}, {_DOWNLOADED} DESC, added_at DESC LIMIT 1", values)


def _models(registry: Registry, condition: str, values: Sequence[Any]) -> list[StoredModel]:
    return [model_of(row) for row in registry.rows(f"SELECT {MODEL_COLUMNS} FROM models WHERE {condition}", values)]


def _fetched(registry: Registry, models: Sequence[StoredModel]) -> set[int]:
    ids = ", ".join(str(model.id) for model in models)
    return {row["model"] for row in registry.rows(f"SELECT DISTINCT model FROM files WHERE owned AND model IN ({ids})")}
