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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.registry.card_fields import (
    amount,
    count,
    description,
    mapping,
    merged,
    parse_json,
    prompts,
    sequence,
    text_of,
    word_sets,
    words,
)
from pipeline.registry.hints import Hints
from pipeline.registry.records import ModelCard
from pipeline.registry.settings_in_text import settings_in, settings_of
from pipeline.storage.foreign_names import plain

MAX_BYTES = 2**20
"""Larger ones are passed over; real ones have tens of kilobytes."""

_MOST_PICTURES = 20
_LONGEST_TIPS = 10_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_Hints = Callable[[Mapping[str, Any]], Hints]


def sidecars_of(model: str) -> list[str]:
    """The names of possible notes beside a weights file, the most informative first."""
    stem = model.rpartition(".")[0]
    return [f"{stem}{ending}" for ending in _READERS]


def read_hints(paths: list[Path]) -> Hints:
    """The hints of these notes together; if they differ, the first wins. Malformed values are skipped."""
    hints = Hints()
    for path in paths:
        hints = hints.filled(_read(path))
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


@dataclass(frozen=True, slots=True)
class _Picture:
    """An example picture of an author's: its prompt, and settings as far as they are told."""

    prompt: str
    steps: float | None
    guidance_scale: float | None
    clip_skip: float | None
    sampler: str


def _civitai_version(value: Mapping[str, Any]) -> Hints:
    """CivitAI's answer for a version. Of its files the first one's hash: that is the one that is fetched unasked."""
    model = mapping(value.get("model"))
    stats = mapping(value.get("stats"))
    hashes = next((mapping(mapping(one).get("hashes")) for one in sequence(value.get("files"))), {})
    pictures = [_picture(one) for one in sequence(value.get("images"))[:_MOST_PICTURES]]
    text = text_of((value.get("description"), model.get("description")))
    card = ModelCard(
        title=plain(model.get("name")),
        description=description(text),
        base_model=plain(value.get("baseModel")),
        trigger_words=words(value.get("trainedWords")),
        tags=words(model.get("tags")),
        example_prompts=prompts(one.prompt for one in pictures),
        downloads=count(stats.get("downloadCount")),
        thumbs_up=count(stats.get("thumbsUpCount")),
    )
    return Hints(
        card,
        {**settings_of(pictures), **settings_in(text)},
        sha256=_hash(hashes.get("SHA256")),
        version_id=_number(value.get("id")),
        model_id=_number(value.get("modelId")),
    )


def _lora_manager(value: Mapping[str, Any]) -> Hints:
    """LoRA Manager's own notes, before CivitAI's answer, which stands in them."""
    version = _civitai_version(mapping(value.get("civitai")))
    text = text_of((value.get("notes"), value.get("modelDescription")))
    written = value.get("usage_tips")  # an object, as text
    tips = mapping(parse_json(written) if isinstance(written, str) and len(written) <= _LONGEST_TIPS else None)
    own = ModelCard(
        title=plain(value.get("model_name")),
        description=description(text),
        base_model=plain(value.get("base_model")),
        tags=words(value.get("tags")),
        weight=amount(tips.get("strength")) or None,
        weight_min=amount(tips.get("strength_min")),
        weight_max=amount(tips.get("strength_max")),
    )
    skip = amount(tips.get("clip_skip"))
    said = {**settings_in(text), **({"clip_skip": f"{skip:g}"} if skip else {})}
    return replace(
        version,
        card=merged(own, version.card),
        said={**version.said, **said},
        sha256=_hash(value.get("sha256")) or version.sha256,
    )


def _stability_matrix(value: Mapping[str, Any]) -> Hints:
    text = text_of((value.get("VersionDescription"), value.get("ModelDescription")))
    stats = mapping(value.get("Stats"))
    card = ModelCard(
        title=plain(value.get("ModelName")),
        description=description(text),
        base_model=plain(value.get("BaseModel")),
        trigger_words=words(value.get("TrainedWords")),
        tags=words(value.get("Tags")),
        downloads=count(stats.get("downloadCount", stats.get("DownloadCount"))),
        thumbs_up=count(stats.get("thumbsUpCount", stats.get("ThumbsUpCount"))),
    )
    return Hints(
        card,
        settings_in(text),
        sha256=_hash(mapping(value.get("Hashes")).get("SHA256")),
        version_id=_number(value.get("VersionId")),
        model_id=_number(value.get("ModelId")),
    )


def _a1111(value: Mapping[str, Any]) -> Hints:
    """What the user of A1111 has noted; a weight of 0 stands for none."""
    base = plain(value.get("sd version"))
    text = text_of((value.get("description"), value.get("notes")))
    card = ModelCard(
        description=description(text),
        base_model="" if base == "Unknown" else base,
        trigger_words=word_sets(value.get("activation text")),
        negative_words=words(value.get("negative text")),
        weight=amount(value.get("preferred weight")) or None,
    )
    return Hints(
        card,
        settings_in(text),
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


def _picture(value: Any) -> _Picture:
    """Older answers have the settings in `meta`, newer ones one level deeper."""
    outer = mapping(mapping(value).get("meta"))
    meta = mapping(outer.get("meta")) or outer
    prompt = meta.get("prompt")
    return _Picture(
        prompt=prompt if isinstance(prompt, str) else "",
        steps=amount(meta.get("steps")),
        guidance_scale=amount(meta.get("cfgScale")),
        clip_skip=amount(meta.get("clipSkip", meta.get("Clip skip"))),
        sampler=plain(meta.get("sampler"), 60),
    )


def _number(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**63 else None


def _hash(value: Any) -> str | None:
    digits = value.lower() if isinstance(value, str) else ""
    return digits if _SHA256.fullmatch(digits) else None
