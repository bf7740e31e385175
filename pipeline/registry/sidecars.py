"""Reads other programs' notes beside a model: only hints, not needed, and not trusted for anything that matters.

| file beside `model.safetensors` | written by |
| --- | --- |
| `model.metadata.json` | LoRA Manager (ComfyUI) |
| `model.civitai.info` | Civitai Helper and its descendants (A1111, Forge): CivitAI's answer for the version |
| `model.cm-info.json` | Stability Matrix |
| `model.json` | A1111's own notes, and browsers for CivitAI that add ids to them |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.storage.foreign_names import plain

MAX_BYTES = 2**20
"""Larger ones are passed over; real ones have tens of kilobytes."""

MOST_WORDS = 100
"""So many trigger words and tags are kept of a model."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_Hints = Callable[[Mapping[str, Any]], "Hints"]


@dataclass(frozen=True, slots=True)
class Hints:
    """Claims about a model; every field may be empty. Texts are one line each, of printable characters."""

    title: str = ""
    base_model: str = ""
    trigger_words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sha256: str | None = None
    version_id: int | None = None
    model_id: int | None = None


def sidecars_of(model: str) -> list[str]:
    """The names of possible notes beside a weights file, the most informative first."""
    stem = model.rpartition(".")[0]
    return [f"{stem}{ending}" for ending in _READERS]


def read_hints(paths: list[Path]) -> Hints:
    """The hints of these notes together; if they differ, the first wins. Malformed values are skipped."""
    hints = Hints()
    for path in paths:
        said = _read(path)
        hints = Hints(**{one.name: getattr(hints, one.name) or getattr(said, one.name) for one in fields(Hints)})
    return hints


def _read(path: Path) -> Hints:
    reader = next(reader for ending, reader in _READERS.items() if path.name.endswith(ending))
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        value = json.loads(text.decode("utf-8-sig")) if len(text) <= MAX_BYTES else None
        return reader(value) if isinstance(value, dict) else Hints()
    except (OSError, ValueError, RecursionError):
        return Hints()


def _civitai_version(value: Mapping[str, Any]) -> Hints:
    """CivitAI's answer for a version. Of its files the first one's hash: that is the one that is fetched unasked."""
    model = _mapping(value.get("model"))
    hashes = next((_mapping(_mapping(one).get("hashes")) for one in _sequence(value.get("files"))), {})
    return Hints(
        title=plain(model.get("name")),
        base_model=plain(value.get("baseModel")),
        trigger_words=_words(value.get("trainedWords")),
        tags=_words(model.get("tags")),
        sha256=_hash(hashes.get("SHA256")),
        version_id=_number(value.get("id")),
        model_id=_number(value.get("modelId")),
    )


def _lora_manager(value: Mapping[str, Any]) -> Hints:
    version = _civitai_version(_mapping(value.get("civitai")))
    return replace(
        version,
        title=plain(value.get("model_name")) or version.title,
        base_model=plain(value.get("base_model")) or version.base_model,
        tags=_words(value.get("tags")) or version.tags,
        sha256=_hash(value.get("sha256")) or version.sha256,
    )


def _stability_matrix(value: Mapping[str, Any]) -> Hints:
    return Hints(
        title=plain(value.get("ModelName")),
        base_model=plain(value.get("BaseModel")),
        trigger_words=_words(value.get("TrainedWords")),
        tags=_words(value.get("Tags")),
        sha256=_hash(_mapping(value.get("Hashes")).get("SHA256")),
        version_id=_number(value.get("VersionId")),
        model_id=_number(value.get("ModelId")),
    )


def _a1111(value: Mapping[str, Any]) -> Hints:
    base = plain(value.get("sd version"))
    return Hints(
        base_model="" if base == "Unknown" else base,
        trigger_words=_words(value.get("activation text")),
        sha256=_hash(value.get("sha256")),
        version_id=_number(value.get("modelVersionId")),
        model_id=_number(value.get("modelId")),
    )


_READERS: dict[str, _Hints] = {
    ".metadata.json": _lora_manager,
    ".civitai.info": _civitai_version,
    ".cm-info.json": _stability_matrix,
    ".json": _a1111,
}
"""How each kind is read; `.json` comes last, since the others may end so too."""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _words(value: Any) -> tuple[str, ...]:
    """Words from a list, or from a text in which commas part them."""
    return tuple(dict.fromkeys(word for word in _split(value) if word))[:MOST_WORDS]


def _split(value: Any) -> Iterator[str]:
    parts = value.split(",") if isinstance(value, str) else _sequence(value)
    for part in parts[: 2 * MOST_WORDS]:
        yield plain(part)


def _number(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**63 else None


def _hash(value: Any) -> str | None:
    digits = value.lower() if isinstance(value, str) else ""
    return digits if _SHA256.fullmatch(digits) else None
