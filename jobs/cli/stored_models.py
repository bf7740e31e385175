"""Models of the registry as `darkroom models` prints them: for people, and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from jobs.terminal import aligned, one_line
from pipeline.errors import ConfigError, ModelError
from pipeline.registry.database import Registry
from pipeline.registry.lookup import listed
from pipeline.registry.queries import Stats, find
from pipeline.registry.records import ModelCard, StoredFile, StoredModel
from pipeline.system.units import size_text
from pipeline.weights.families import FAMILIES

COLUMNS = tuple(field.name for field in fields(StoredModel))

_SHOWN = ("name", "kind", "family", "precision", "size", "reference")
_SIZE = (_SHOWN.index("size"),)

_TAGS_SHOWN = 15
_PROMPTS_SHOWN = 3
_WIDTH_OF_PROMPT = 200


def one_model(registry: Registry, named: str) -> StoredModel:
    """The model for a name, a reference, a hash or a path. Raises `ModelError` for none and for several."""
    found = find(registry, named)
    if not found:
        raise ModelError(
            f"{named!r}: no such model is known; darkroom models list shows the known ones, "
            "darkroom models scan FOLDER finds more"
        )
    if len(found) > 1:
        which = listed([model.reference for model in found])
        raise ModelError(f"{named!r}: names {len(found)} models; say which: {which}")
    return found[0]


def known_family(name: str | None) -> str | None:
    """The same name. Raises `ConfigError` if there is no such family."""
    if name is not None and name not in FAMILIES:
        raise ConfigError(f"--family: there is no family {name!r}; families are {', '.join(FAMILIES)}")
    return name


def as_table(models: Sequence[StoredModel]) -> list[str]:
    """A line for each model, below a heading."""
    rows = [_SHOWN]
    for model in models:
        size = size_text(model.bytes)
        rows.append((model.name, model.kind, model.family or "", model.precision or "", size, model.reference))
    return aligned(rows, _SIZE)


def as_row(model: StoredModel) -> dict[str, Any]:
    """Every field by its name, for JSON."""
    return {name: _plain(getattr(model, name)) for name in COLUMNS}


def file_row(file: StoredFile) -> dict[str, Any]:
    """A file of a model, for JSON."""
    shown = ("name", "path", "bytes", "sha256", "tensor_hash", "claimed_sha256", "owned")
    return {name: _plain(getattr(file, name)) for name in shown}


def as_lines(model: StoredModel, files: Sequence[StoredFile]) -> list[tuple[str, str]]:
    """Names and values for people; unknown values are left out."""
    values = {
        "name": model.name,
        "kind": model.kind,
        "family": _family(model),
        "precision": model.precision,
        "base model": model.base_model,
        "trigger words": ", ".join(model.trigger_words),
        "tags": ", ".join(model.tags),
        "licence": model.licence,
        "source": model.source,
        "reference": model.reference if model.reference != str(model.path) else None,
        "path": one_line(str(model.path)) + ("" if model.path.exists() else " (gone)"),
        "size": f"{model.bytes:,} bytes ({size_text(model.bytes)})",
        "files": str(len(files)) if len(files) > 1 else None,
        "sha256": (files[0].sha256 or "not hashed yet") if len(files) == 1 else None,
        "known since": model.added_at,
        "last used": model.last_used,
    }
    return [(name, value) for name, value in values.items() if value]


def _family(model: StoredModel) -> str | None:
    """The family, and where only a card or a note tells it, that."""
    from pipeline.registry.inspected import look_at

    label = FAMILIES[model.family].label if model.family in FAMILIES else model.family
    if label and model.kind != "checkpoint":
        with suppress(ModelError, OSError):
            if look_at(model.path).family is None:
                return f"{label} (by its base model; the tensors do not tell)"
    return label


def claim_lines(name: str, card: ModelCard) -> list[tuple[str, str]]:
    """What is claimed of the model of this name beside its fields, the commonest and first of it; for people."""
    counts = (("downloads", card.downloads), ("thumbs up", card.thumbs_up))
    values = {
        "title": card.title if card.title != name else "",
        "settings": ", ".join(
            f"{key.replace('_', ' ')} {value if isinstance(value, str) else f'{value:g}'}"
            for key, value in card.settings
        ),
        "weight": _weight(card),
        "negative words": ", ".join(card.negative_words),
        "trained on": ", ".join(f"{tag} {times:,}" for tag, times in card.tag_counts[:_TAGS_SHOWN]),
        "statistics": ", ".join(f"{number:,} {what}" for what, number in counts if number is not None),
    }
    lines = [(label, value) for label, value in values.items() if value]
    return lines + [("example", _cut(prompt)) for prompt in card.example_prompts[:_PROMPTS_SHOWN]]


def claims_row(card: ModelCard) -> dict[str, Any]:
    """Every field of a card by its name, for JSON."""
    return asdict(card) | {"tag_counts": dict(card.tag_counts), "settings": dict(card.settings)}


def _weight(card: ModelCard) -> str:
    """The advised weight of a LoRA, and between which values it makes sense."""
    ends = [
        f"{word} {value:g}" for word, value in (("from", card.weight_min), ("to", card.weight_max)) if value is not None
    ]
    return " ".join([*([f"{card.weight:g}"] if card.weight is not None else []), *ends])


def _cut(prompt: str) -> str:
    return prompt if len(prompt) <= _WIDTH_OF_PROMPT else f"{prompt[:_WIDTH_OF_PROMPT].rstrip()} ..."


def stats_lines(stats: Stats) -> list[tuple[str, str]]:
    """Names and values for people."""
    counts = (("by kind", stats.by_kind), ("by family", stats.by_family), ("by source", stats.by_source))
    return [
        ("models", f"{stats.models:,}"),
        *((name, _counted(values.items())) for name, values in counts if values),
        ("size", f"{stats.bytes:,} bytes ({size_text(stats.bytes)})"),
        ("fetched", f"{stats.downloaded:,}, {size_text(stats.downloaded_bytes)}"),
        ("left over", left_over_text(stats.left_over, stats.left_over_bytes)),
    ]


def left_over_text(files: int, size: int) -> str:
    """The leftovers in the store, and how to remove them; for people."""
    if not files:
        return "nothing"
    return f"{files:,} from interrupted or refused downloads, {size_text(size)}; darkroom models prune --max-gb N"


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
