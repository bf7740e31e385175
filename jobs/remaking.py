"""What a record names by hash, found on this machine: weights, adapters, reference pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DarkroomError, ModelError
from pipeline.models.registry.resolving import content_hash, places_called, places_of
from pipeline.request import Adapters

if TYPE_CHECKING:
    from pipeline.metadata.record import Record
    from pipeline.models.inspection import ModelFiles
    from pipeline.request import ModelSettings

MAX_FILES = 10_000
"""So many files of a folder are looked at; hashing a whole disk would take the night."""


def find_model(record: Record, model: str | None) -> tuple[ModelSettings, ModelFiles]:
    """The weights of a record, with their VAE and what a single file leaves out; `model` says where they are.

    Raises `ModelError` if neither earlier use nor the registry tells where they are.
    """
    from pipeline.models.profile import identify
    from pipeline.models.references import EMBEDDED

    said = record.model
    vae = _place(record.vae.sha256, f"the VAE {record.vae.name}", record.vae.name) if record.vae else None
    config = _place(said.config_sha256, f"the configuration folder of {said.name}") if said.config_sha256 else None
    candidates = [model] if model else [*EMBEDDED, *map(str, (*places_of(said.sha256), *places_called(said.name)))]
    for candidate in candidates:
        try:
            settings, files = identify(
                candidate,
                name=said.name,
                vae=str(vae) if vae else None,
                config=str(config) if config else None,
                prediction_type=said.prediction_type,
                max_sequence_length=said.max_sequence_length,
                safety_checker=said.safety_checker,
            )
        except DarkroomError:
            if model:
                raise
            continue
        if model or settings.sha256 == said.sha256:
            return settings, files
    raise ModelError(
        f"the weights that made this image ({said.name}, SHA-256 {said.sha256[:12]}...) are not known on this "
        "machine, or have changed; say where they are with --model, or take their folder in with: "
        "darkroom models scan FOLDER"
    )


def find_tiny_vae(record: Record) -> str | None:
    """The folder of the tiny VAE that decoded the image, if one did."""
    sha256 = record.memory.tiny_vae_sha256
    return str(_place(sha256, "the tiny VAE")) if sha256 else None


def find_adapters(record: Record, files: ModelFiles, folder: Path | None) -> Adapters:
    """LoRAs, ControlNets and the rest, with their pictures. Raises `ModelError` naming what is not here."""
    from pipeline.adapters import (
        identify_controlnet,
        identify_embedding,
        identify_image,
        identify_init,
        identify_ip_adapter,
        identify_lora,
    )

    def found(what: str, part: Any, identify: Callable[[str], Any]) -> Any:
        for place in (*places_of(part.sha256), *_below(folder), *places_called(part.name)):
            try:
                settings = identify(str(place))
            except DarkroomError:
                continue
            if settings.sha256 == part.sha256:
                return settings
        raise _missing(
            f"the {what} {part.name}",
            part.sha256,
            "; say with --files in which folder it is, or take that in with: darkroom models scan FOLDER",
        )

    def picture(part: Any) -> str:
        return str(found("picture", part, identify_image).source)

    def lora(one: Any) -> Any:
        return found("LoRA", one, partial(identify_lora, weight=one.weight, files=files, name=one.name))

    def embedding(one: Any) -> Any:
        return found("embedding", one, partial(identify_embedding, token=one.token, files=files, name=one.name))

    def controlnet(one: Any) -> Any:
        values = {key: getattr(one, key) for key in ("preprocess", "strength", "start", "end", "name")}
        identify = partial(identify_controlnet, image=picture(one.image), files=files, **values)
        return found("ControlNet", one, identify)

    def ip_adapter(one: Any) -> Any:
        values = {"scale": one.scale, "encoder": _encoder(one.encoder_sha256), "name": one.name}
        return found("IP-Adapter", one, partial(identify_ip_adapter, image=picture(one.image), files=files, **values))

    init = record.init
    return Adapters(
        loras=tuple(map(lora, record.loras)),
        embeddings=tuple(map(embedding, record.embeddings)),
        controlnets=tuple(map(controlnet, record.controlnets)),
        ip_adapters=tuple(map(ip_adapter, record.ip_adapters)),
        init=identify_init(picture(init.image), strength=init.strength, files=files) if init else None,
    )


def _encoder(sha256: str | None) -> str | None:
    return str(_place(sha256, "the image encoder of the IP-Adapter")) if sha256 else None


def _place(sha256: str, what: str, name: str = "") -> Path:
    for place in places_of(sha256):
        return place
    for place in places_called(name):
        with suppress(DarkroomError, OSError):
            if content_hash(place) == sha256:
                return place
    raise _missing(what, sha256, "; take its folder in with: darkroom models scan FOLDER" if name else "")


def _missing(what: str, sha256: str, way_out: str = "") -> ModelError:
    return ModelError(
        f"{what} (SHA-256 {sha256[:12]}...) that made this image is not known on this machine, or has changed{way_out}"
    )


def _below(folder: Path | None) -> Iterator[Path]:
    """Files of a folder, and folders with a configuration, that might be what is looked for."""
    if folder is None:
        return
    for count, path in enumerate(sorted(folder.rglob("*"))):
        if count >= MAX_FILES:
            return
        if path.is_file():
            yield path.parent if path.name == "config.json" else path
