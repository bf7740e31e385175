"""The settings of an image, as a profile that makes others like it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.archive.named_images import image_file
from jobs.archive.recorded_weights import Places, find_adapters, find_model, find_tiny_vae
from jobs.archive.show import describe
from jobs.config.profiles import KeptSettings, literal
from pipeline.errors import ReadError

if TYPE_CHECKING:
    from pipeline.metadata.record import Record
    from pipeline.request import Adapters, ModelSettings


def settings_of_image(image: Path, output_dir: Path) -> KeptSettings:
    """Model, sampling, memory and adapters of an image of Darkroom's, a path or an id, as a run would be given them.

    Prompts and seeds are not among them. Raises `ReadError` without a record, `ModelError` for weights and pictures
    that are not on this machine.
    """
    record = describe(image_file(image, output_dir), output_dir).record
    if record is None:
        raise ReadError(
            f"{image}: was not made by Darkroom, so its settings are not known; darkroom show prints what is"
        )
    settings = settings_of_record(record)
    return KeptSettings(settings.choices, literal(settings.values))


def settings_of_record(record: Record, replaced: Collection[str] = ()) -> KeptSettings:
    """The same of a record, texts as they stand; of sections that are `replaced` nothing is said or searched for.

    What the record has of adapters is looked for among those of its model. Raises `ModelError`.
    """
    places = Places()
    values: dict[str, Any] = {"sampling": _sampling(record)}
    has_adapters = any((record.loras, record.embeddings, record.controlnets, record.ip_adapters, record.init))
    if has_adapters or "model" not in replaced:
        model, files = find_model(record, None, places)
        values |= {"model": _model(model), **_adapters(find_adapters(record, files, places))}
    if "memory" not in replaced:
        values["memory"] = _memory(record, find_tiny_vae(record, places))
    choices = {"model": "custom", "selection": "manual", "sampling": "default", "memory": record.memory.level}
    kept = {key: value for key, value in values.items() if key not in replaced}
    return KeptSettings({group: one for group, one in choices.items() if group not in replaced}, kept)


def _model(model: ModelSettings) -> dict[str, Any]:
    said = {
        "source": model.source,
        "name": model.name,
        "vae": model.vae_source,
        "config": model.config_source,
        "prediction_type": model.prediction_type,
        "max_sequence_length": model.max_sequence_length,
        "safety_checker": model.safety_checker or None,
    }
    return _set(said)


def _sampling(record: Record) -> dict[str, Any]:
    said = {name: getattr(record, name) for name in ("steps", "guidance_scale", "width", "height", "clip_skip")}
    options = dict(record.scheduler.options) or None
    return _set(
        {**said, "scheduler": record.scheduler.name, "scheduler_options": options, "step_cache": record.step_cache}
    )


def _memory(record: Record, tiny_vae: str | None) -> dict[str, Any]:
    memory = record.memory
    techniques = {**dict.fromkeys(memory.asked, True), **dict.fromkeys(memory.off, False)}
    quality = "exact" if memory.exact else None
    return _set({"dtype": memory.dtype, "quality": quality, "tiny_vae": tiny_vae, "techniques": techniques or None})


def _adapters(adapters: Adapters) -> dict[str, Any]:
    lists: dict[str, list[dict[str, Any]]] = {
        "loras": [{"source": one.source, "weight": one.weight, "name": one.name} for one in adapters.loras],
        "embeddings": [{"source": one.source, "token": one.token, "name": one.name} for one in adapters.embeddings],
        "controlnets": [
            {
                "source": one.source,
                "image": one.image.source,
                **{name: getattr(one, name) for name in ("preprocess", "strength", "start", "end", "name")},
            }
            for one in adapters.controlnets
        ],
        "ip_adapters": [
            _set({"source": one.source, "image": one.image.source, "scale": one.scale, "encoder": one.encoder_source})
            | {"name": one.name}
            for one in adapters.ip_adapters
        ],
    }
    found: dict[str, Any] = {name: entries for name, entries in lists.items() if entries}
    init = adapters.init
    return {
        **({"adapters": found} if found else {}),
        **({"init": {"image": init.image.source, "strength": init.strength}} if init else {}),
    }


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not set."""
    return {key: value for key, value in values.items() if value is not None}
