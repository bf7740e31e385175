"""CivitAI's answers cut down to the fields that are used, each of its type and free of markup."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.hubs.json_fields import mapping, number, objects, words
from pipeline.hubs.plain_text import plain_text
from pipeline.hubs.version_files import permissions
from pipeline.storage.foreign_names import plain

_MOST_VERSIONS = 50
_MOST_FILES = 50
_MOST_PICTURES = 20
_PICTURE_FIELDS = ("steps", "cfgScale", "sampler", "clipSkip")


def trimmed_version(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A version; `early_access` is whether it is on now."""
    of = mapping(raw.get("model"))
    until = raw.get("earlyAccessEndsAt") or raw.get("earlyAccessDeadline")
    return {
        "id": number(raw.get("id")),
        "model_id": number(raw.get("modelId")),
        "name": plain(raw.get("name")),
        "base_model": plain(raw.get("baseModel")),
        "usage": plain(raw.get("usageControl")),
        "words": list(words(raw.get("trainedWords"))),
        "early_access": raw.get("availability") == "EarlyAccess" or _is_ahead(until),
        "early_access_until": plain(until, 30),
        "text": plain_text(raw.get("description")),
        "model": {**_trimmed_of(of), "name": plain(of.get("name"))},
        "files": [_trimmed_file(one) for one in objects(raw.get("files"))[:_MOST_FILES]],
        "pictures": [_trimmed_picture(one) for one in objects(raw.get("images"))[:_MOST_PICTURES]],
    }


def trimmed_model(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A model with its versions, the newest first."""
    return {
        **_trimmed_of(raw),
        "id": number(raw.get("id")),
        "name": plain(raw.get("name")),
        "tags": list(words(raw.get("tags"))),
        "permissions": permissions(raw),
        "text": plain_text(raw.get("description")),
        "downloads": number(mapping(raw.get("stats")).get("downloadCount")) or 0,
        "versions": [
            trimmed_version(one) for one in objects(raw.get("modelVersions"))[:_MOST_VERSIONS] if number(one.get("id"))
        ],
    }


def _trimmed_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": plain(raw.get("type")), "mode": plain(raw.get("mode")), "poi": raw.get("poi") is True}


def _trimmed_file(raw: Mapping[str, Any]) -> dict[str, Any]:
    about, hashes = mapping(raw.get("metadata")), mapping(raw.get("hashes"))
    return {
        **{name: raw.get(name) for name in ("id", "sizeKB", "primary", "modelVersionId") if _is_plain(raw.get(name))},
        "name": _shown_name(raw.get("name")),
        **{name: plain(raw.get(name)) for name in ("type", "pickleScanResult", "virusScanResult")},
        "metadata": {name: plain(about.get(name)) for name in ("format", "size", "fp")},
        "hashes": {"SHA256": plain(hashes.get("SHA256"))},
    }


def _shown_name(name: Any) -> str:
    """A file's name as it can be shown, with its ending; authors and readers of trigger words give it any form."""
    stem, dot, ending = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    return f"{plain(stem, 150) or 'model'}.{plain(ending, 20).lower()}" if dot else plain(name)


def _trimmed_picture(raw: Mapping[str, Any]) -> dict[str, Any]:
    meta = mapping(raw.get("meta"))
    said = {**meta, "clipSkip": meta.get("clipSkip", meta.get("Clip skip"))}
    return {name: said[name] for name in _PICTURE_FIELDS if _is_plain(said.get(name))}


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and 0 < len(value) <= 60 and value.isprintable())


def _is_ahead(date: Any) -> bool:
    try:
        then = datetime.fromisoformat(date)
    except (TypeError, ValueError):
        return False
    return (then if then.tzinfo else then.replace(tzinfo=UTC)) > datetime.now(UTC)


def title(model_name: str, version_name: str) -> str:
    """What a version is called: by its model and its own name."""
    return model_name if version_name in model_name else f"{model_name} {version_name}".strip()
