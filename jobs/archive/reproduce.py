"""Makes an image again from its record, and compares the pixels with the original."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.archive.named_images import image_file
from jobs.archive.recorded_weights import Places, find_adapters, find_model, find_tiny_vae
from jobs.archive.show import describe
from jobs.config.faults import fault_lines
from jobs.config.sections import Engine, Model
from jobs.planning.known_models import identified
from jobs.planning.model_checks import settings_faults
from jobs.terminal import print_line
from pipeline.errors import ConfigError, JobFailure, ReadError
from pipeline.metadata.record import Record, pixel_hash
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings
from pipeline.request_id import likeness_of

if TYPE_CHECKING:
    from pipeline.metadata.metadata_settings import Profile
    from pipeline.system.device import Device

EXIT_EQUAL, EXIT_DIFFERENT = 0, 1
FOLDER = "reproduced"
ENGINE_KEYS = ("device", "cpu_threads", "attention", "compile", "channels_last")

_FORMER_WORKSPACE = ":16:8"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Original against reproduction. `differences`: of the environment, one a line; `max_difference`: 8-bit levels."""

    equal: bool
    noise_equal: bool
    differences: tuple[str, ...]
    max_difference: int | None
    mean_difference: float | None


def reproduce(
    image: Path,
    *,
    check: bool,
    output_dir: Path,
    model: str | None,
    files: Path | None = None,
    engine: Sequence[str] = (),
) -> int:
    """Make `image` again; with `check` compare its pixels, else save it below `reproduced/` in the working folder.

    `image` is a path, or the beginning of an id of the manifest of `output_dir`. `model` says where the weights are, if
    they are not where they were used last, `files` in which folder all the rest is; `engine` are settings in place of
    the record's, as `engine.cpu_threads=4`. Returns 0, or 1 when `check` found a difference. Raises `ConfigError`,
    `ReadError` without a record, `ModelError` without the weights.
    """
    image = image_file(image, output_dir)
    record = describe(image, output_dir).record
    if record is None:
        raise ReadError(f"{image}: was not made by Darkroom; only images with a Darkroom record can be made again")
    if check and (unusual := _unusual(record)):
        print_line(f"{image}: was made with {', '.join(unusual)}")
    try:
        remade = remake(record, model, files, _engine_settings(engine))
    except ReadError as error:
        raise ReadError(f"{image}: {error}") from error
    if not check:
        from pipeline.metadata.reading import read_profile

        path = _save(remade, record, read_profile(image))
        same = pixel_hash(record.width, record.height, remade.pixels.tobytes()) == record.pixels_sha256
        print_line(f"{path}: {'pixels as in the original' if same else 'pixels differ; --check says by how much'}")
        return EXIT_EQUAL
    result = compare(record, remade, image)
    print_line(f"{image}: {_verdict(result)}")
    for line in result.differences:
        print_line(f"  {line}")
    return EXIT_EQUAL if result.equal else EXIT_DIFFERENT


def _engine_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Those that are given, checked; written as for a run."""
    from pydantic import ValidationError

    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        name = key.removeprefix("engine.")
        if not equals or name == key or name not in ENGINE_KEYS:
            raise ConfigError(f"{key}: expected engine.KEY=VALUE with one of {', '.join(ENGINE_KEYS)}")
        values[name] = int(value) if value.isdecimal() else {"true": True, "false": False}.get(value, value)
    try:
        return Engine.model_validate(values).model_dump(include={*values})
    except ValidationError as error:
        raise ConfigError(list(fault_lines(error, Engine, "engine."))) from None


def remake(
    record: Record, model: str | None = None, folder: Path | None = None, engine: Mapping[str, Any] | None = None
) -> GeneratedImage:
    """The image of a record, in a batch of the recorded size and at the recorded place in it.

    Batch size changes rounding, so the rest of the batch is filled with the same request; images of a batch do not see
    each other. `folder` is searched for what is not where it was used last; `engine` has settings in place of the
    record's. Raises `ReadError` for names that this version does not know, `ConfigError` for what the weights cannot
    do, `ModelError`, `JobFailure`.
    """
    from pipeline.generation.generate import generate_batch
    from pipeline.loading.load import load
    from pipeline.request import SpeedSettings
    from pipeline.system.device import find_device

    _check_names(record)
    runtime = record.runtime
    said = {
        "cpu_threads": runtime.cpu_threads,
        "attention": runtime.attention_backend,
        "compile": "off" if runtime.compile == "no" else "on",
        "channels_last": runtime.channels_last,
        **(engine or {}),
    }
    device = find_device(said["device"]) if "device" in said else _device(record)
    places = Places(folder)
    settings, files = find_model(record, model, places)
    memory = record.memory
    tiny_vae = find_tiny_vae(record, places)
    asked = MemorySettings(
        level=memory.level,
        dtype=memory.dtype,
        techniques=tuple(memory.asked),
        off=tuple(memory.off),
        exact=memory.exact,
        tiny_vae_source=tiny_vae,
        tiny_vae_sha256=memory.tiny_vae_sha256,
    )
    before = [name for name in ("vae_slicing", "vae_tiling") if getattr(memory, name)]  # of records without techniques
    held = replace(asked, techniques=tuple(memory.techniques or before), budget_bytes=memory.budget_bytes)
    request = ImageRequest(
        prompt=record.prompt,
        negative_prompt=record.negative_prompt,
        seed=record.seed,
        steps=record.steps,
        guidance_scale=record.guidance_scale,
        width=record.width,
        height=record.height,
        scheduler=record.scheduler.name,
        clip_skip=record.clip_skip,
        model=settings,
        memory=asked,
        scheduler_options=tuple(sorted(record.scheduler.options.items())),
        step_cache=record.step_cache,
        adapters=find_adapters(record, files, places),
    )
    known = identified(Model(source=settings.source), settings, files)
    if faults := list(settings_faults(likeness_of(request), request.adapters, held, known)):
        raise ConfigError([f"its record requests what {settings.name} cannot do: {fault}" for fault in faults])
    if device.kind == "cuda":  # read when CUDA starts; records that do not name it are of times when it was this one
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = record.runtime.cublas_workspace or _FORMER_WORKSPACE
    threads = said["cpu_threads"] if device.kind == "cpu" else None
    speed = SpeedSettings(attention=said["attention"], compile=said["compile"], channels_last=said["channels_last"])
    loaded = load(settings, held, device.kind, threads, speed=speed)
    outcome = generate_batch(loaded, [request] * record.batch.size, remember=False)[record.batch.index]
    if isinstance(outcome, JobFailure):
        raise outcome
    return outcome


def _check_names(record: Record) -> None:
    """Raises `ReadError` for names in a record that nothing of this version has; they come from a file."""
    from pipeline.loading.speed_options import ATTENTION_BACKENDS, STEP_CACHES
    from pipeline.memory.planning.techniques import TECHNIQUES

    memory = record.memory
    for place, names, known in (
        ("memory", (*memory.techniques, *memory.asked, *memory.off), TECHNIQUES),
        ("runtime.attention_backend", (record.runtime.attention_backend,), ATTENTION_BACKENDS),
        ("step_cache", (record.step_cache,) if record.step_cache else (), STEP_CACHES),
    ):
        for name in names:
            if name not in known:
                raise ReadError(f"its record names {name[:80]!r} under {place}; known are {', '.join(known)}")


def compare(record: Record, remade: GeneratedImage, image: Path) -> Comparison:
    """Compare with the recorded hash of the pixels before encoding, so that lossy files are compared exactly."""
    import numpy as np

    from pipeline.metadata.reading import read_pixels

    equal = pixel_hash(record.width, record.height, remade.pixels.tobytes()) == record.pixels_sha256
    largest = mean = None
    if not equal:
        old = read_pixels(image).astype(np.int16)
        if old.shape == remade.pixels.shape:
            apart = np.abs(old - remade.pixels.astype(np.int16))
            largest, mean = int(apart.max()), float(apart.mean())
    return Comparison(
        equal=equal,
        noise_equal=remade.noise_sha256 == record.noise.sha256,
        differences=tuple(_differences(record, remade)),
        max_difference=largest,
        mean_difference=mean,
    )


def _verdict(result: Comparison) -> str:
    if result.equal:
        return "equal, pixel for pixel"
    if result.max_difference is None:
        return "different: not even the size agrees"
    noise = "same initial noise" if result.noise_equal else "other initial noise"
    why = "" if result.differences else "; nothing recorded of the environment differs"
    return (
        f"different by at most {result.max_difference} of 255, {result.mean_difference:.3f} on average ({noise}){why}"
    )


def _differences(record: Record, remade: GeneratedImage) -> list[str]:
    """What of the recorded environment is not as it was."""
    now = _record_again(remade, record, record.id)
    pairs: list[tuple[str, Any, Any]] = [
        ("weights", record.model.sha256, now.model.sha256),
        ("vae", record.vae and record.vae.sha256, now.vae and now.vae.sha256),
        ("pipeline", record.pipeline, now.pipeline),
        ("scheduler class", record.scheduler.class_name, now.scheduler.class_name),
        ("precision", record.memory.dtype, now.memory.dtype),
        ("memory techniques", _techniques(record), _techniques(now)),
        ("tiny vae", record.memory.tiny_vae_sha256, now.memory.tiny_vae_sha256),
        ("batch size", record.batch.size, now.batch.size),
        ("batch index", record.batch.index, now.batch.index),
        ("darkroom", record.generator.version, now.generator.version),
    ]
    before, after = record.runtime.model_dump(), now.runtime.model_dump()
    versions_before, versions_after = before.pop("versions"), after.pop("versions")
    # What an older record does not have is not known to differ.
    pairs += [(name.replace("_", " "), before[name], after.get(name)) for name in before]
    for name in sorted({*versions_before, *versions_after}):
        pairs.append((name, versions_before.get(name), versions_after.get(name)))
    config_before, config_after = record.scheduler.config, now.scheduler.config
    for name in sorted({*config_before, *config_after}):
        pairs.append((f"scheduler {name}", config_before.get(name), config_after.get(name)))
    return [f"{name}: was {old}, is {new}" for name, old, new in pairs if old != new]


def _record_again(remade: GeneratedImage, record: Record, image_id: str) -> Record:
    """The record of the image that was made now, for the same job."""
    from pipeline.metadata.building import build_record

    return build_record(
        remade,
        image_id=image_id,
        created=datetime.now(UTC),
        output_format=record.output.format,
        quality=record.output.quality,
        origin=record.job,
        prompt_template=record.prompt_template,
        selection=record.selection,
        derived_from=record.derived_from,
    )


def _unusual(record: Record) -> list[str]:
    """What was switched on for speed and changes pixels, or lets them depend on more than the request."""
    runtime = record.runtime
    found = [f"step cache {record.step_cache}"] if record.step_cache else []
    if runtime.attention_backend != "native":
        found.append(f"attention {runtime.attention_backend}")
    if runtime.compile != "no":
        found.append(f"compiled denoiser ({runtime.compile})")
    if not runtime.deterministic:
        found.append("kernels that are not deterministic")
    if any(peaks.get("refused") for peaks in record.measured.stages.values()):
        found.append("replacement kernels, because the device was nearly full")
    return found


def _techniques(record: Record) -> str:
    """Those that change pixels."""
    from pipeline.memory.planning.techniques import TECHNIQUES

    lossy = [name for name in record.memory.techniques if name not in TECHNIQUES or TECHNIQUES[name].lossy]
    return ", ".join(lossy) or "none"


def _device(record: Record) -> Device:
    """The kind of device that the image was made on, or the best one here; the difference is then reported."""
    from pipeline.system.device import find_device

    try:
        return find_device(record.runtime.device)
    except ConfigError:
        return find_device()


def _save(remade: GeneratedImage, record: Record, profile: Profile) -> Path:
    from pipeline.metadata.metadata_settings import MetadataSettings
    from pipeline.metadata.naming import NamingSettings
    from pipeline.metadata.saving import save

    lossless = record.output.format == "webp" and record.output.quality is None
    settings = MetadataSettings(profile, lossless=lossless)
    if record.output.quality is not None:
        settings = replace(settings, quality=record.output.quality)
    again = _record_again(remade, record, str(uuid.uuid4()))
    # The copy tells no more than the original: not in its metadata, nor by a folder named after the batch.
    naming = NamingSettings(scheme="guid" if profile == "private" else "standard", folder="")
    return save(remade, again, Path(FOLDER), naming, settings)
