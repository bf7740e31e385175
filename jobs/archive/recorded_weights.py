"""Finds the weights, adapters and reference pictures that a record names by hash on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DarkroomError, ModelError
from pipeline.registry.inspected import look_at
from pipeline.registry.lookup import content_hash, places_called, places_of, places_of_kind
from pipeline.request import Adapters
from pipeline.weights.families import family_of
from pipeline.weights.hashes import file_hash

if TYPE_CHECKING:
    from pipeline.metadata.record import Record
    from pipeline.registry.records import StoredKind
    from pipeline.request import ModelSettings
    from pipeline.weights.inspection import ModelFiles

MAX_FILES = 10_000
"""So many files of a folder are looked at; hashing a whole disk would take the night."""


class Places:
    """Where to search for recorded content; `folder` is searched as well: files, and folders of components and models.

    What is looked at has its header read first, so that only what is of the right kind is hashed, once.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._below = list(_below(folder))

    def of(self, sha256: str, name: str, *kinds: StoredKind, family: str | None = None) -> Iterator[Path]:
        """Places that may have content with this hash, the likeliest first: where it was seen or is registered, in
        `folder`, models with this name, models of one of these kinds (a scan knows kinds and hashes nothing).
        """
        guesses = (places_of_kind(kind, family) for kind in kinds)
        called = places_called(name) if name else []
        places = chain(places_of(sha256), self._below, called, chain.from_iterable(guesses))
        return iter(dict.fromkeys(place for place in places if place.is_file() or place.is_dir()))


def find_model(record: Record, model: str | None, places: Places) -> tuple[ModelSettings, ModelFiles]:
    """The weights of a record, with their VAE and the parts that a single file lacks; `model` says where they are.

    Raises `ModelError` for what is at none of the places, saying what would help.
    """
    from pipeline.registry.model_settings import identify
    from pipeline.weights.references import EMBEDDED

    said, vae = record.model, record.vae
    family = family_of(said.architecture or "")
    known = family.name if family else None
    identified = partial(
        identify,
        name=said.name,
        vae=str(_vae(places, "the VAE", vae.sha256, vae.name)) if vae else None,
        prediction_type=said.prediction_type,
        max_sequence_length=said.max_sequence_length,
        safety_checker=said.safety_checker,
    )
    likely = places.of(said.sha256, said.name, "checkpoint", family=known)
    for candidate in [model] if model else [*EMBEDDED, *map(str, likely)]:
        if said.config_sha256 and not model and not _is_file_of(candidate, said.sha256):
            continue  # with a folder for the rest the weights are a file, and their hash is known without it
        configs = places.of(said.config_sha256, "", "checkpoint", family=known) if said.config_sha256 else (None,)
        for config in configs:
            try:
                settings, files = identified(candidate, config=str(config) if config else None)
            except (DarkroomError, OSError):
                if model and not config:
                    raise
                continue
            if settings.config_sha256 == said.config_sha256 and (model or settings.sha256 == said.sha256):
                return settings, files
        if said.config_sha256:
            raise _missing(f"the configuration folder (model.config) of {said.name}", said.config_sha256)
    raise _missing(f"the model {said.name}", said.sha256, "say with --model where it is")


def find_tiny_vae(record: Record, places: Places) -> str | None:
    """The folder of the tiny VAE that decoded the image, if one did."""
    sha256 = record.memory.tiny_vae_sha256
    return str(_vae(places, "the tiny VAE", sha256)) if sha256 else None


def find_adapters(record: Record, files: ModelFiles, places: Places) -> Adapters:
    """LoRAs and other adapters, with their pictures. Raises `ModelError` naming what is not on this machine."""
    from pipeline.adapters.identify_controlnet import identify_controlnet
    from pipeline.adapters.identify_ip_adapter import identify_ip_adapter
    from pipeline.adapters.identify_lora import identify_lora
    from pipeline.adapters.reference_images import identify_image, identify_init
    from pipeline.adapters.specs import ControlNetSpec, EmbeddingSpec, IpAdapterSpec, LoraSpec
    from pipeline.adapters.textual_inversion import identify_embedding

    def found(what: str, part: Any, identify: Callable[[str], Any], *kinds: StoredKind) -> Any:
        for place in places.of(part.sha256, part.name, *kinds):
            with suppress(DarkroomError, OSError):
                settings = identify(str(place))
                if settings.sha256 == part.sha256:
                    return settings
        raise _missing(f"the {what} {part.name}", part.sha256, scanned=bool(kinds))

    def picture(part: Any) -> str:
        return str(found("picture", part, identify_image).source)

    def weights(what: str, kind: StoredKind, part: Any, identify: Any, spec: Any, **values: Any) -> Any:
        return found(what, part, lambda place: identify(spec(place, name=part.name, **values), files), kind)

    def lora(one: Any) -> Any:
        return weights("LoRA", "lora", one, identify_lora, LoraSpec, weight=one.weight)

    def embedding(one: Any) -> Any:
        return weights("embedding", "embedding", one, identify_embedding, EmbeddingSpec, token=one.token)

    def controlnet(one: Any) -> Any:
        values = {key: getattr(one, key) for key in ("preprocess", "strength", "start", "end")}
        values["image"] = picture(one.image)
        return weights("ControlNet", "controlnet", one, identify_controlnet, ControlNetSpec, **values)

    def ip_adapter(one: Any) -> Any:
        values = {"encoder": _encoder(places, one.encoder_sha256), "scale": one.scale, "image": picture(one.image)}
        return weights("IP-Adapter", "ip_adapter", one, identify_ip_adapter, IpAdapterSpec, **values)

    init = record.init
    return Adapters(
        loras=tuple(map(lora, record.loras)),
        embeddings=tuple(map(embedding, record.embeddings)),
        controlnets=tuple(map(controlnet, record.controlnets)),
        ip_adapters=tuple(map(ip_adapter, record.ip_adapters)),
        init=identify_init(picture(init.image), init.strength, files) if init else None,
    )


def _vae(places: Places, what: str, sha256: str, name: str = "") -> Path:
    """A VAE by itself, or that of a model."""
    own = (place / "vae" for place in places_of_kind("checkpoint") if (place / "vae").is_dir())
    for place in chain(places.of(sha256, name, "vae"), own):
        with suppress(DarkroomError, OSError):
            if look_at(place).kind == "vae" and content_hash(place) == sha256:
                return place
    raise _missing(f"{what} {name}".strip(), sha256)


def _encoder(places: Places, sha256: str | None) -> str | None:
    from pipeline.adapters.identify_ip_adapter import encoder_hash

    for place in places.of(sha256, "", "ip_adapter") if sha256 else ():
        with suppress(DarkroomError, OSError):
            if place.is_dir() and look_at(place).kind == "ip_adapter" and encoder_hash(place) == sha256:
                return str(place)
    if sha256:
        raise _missing("the image encoder of the IP-Adapter", sha256)
    return None


def _is_file_of(candidate: str, sha256: str) -> bool:
    path = Path(candidate)
    with suppress(DarkroomError, OSError):
        return path.is_file() and look_at(path).kind == "checkpoint" and file_hash(path) == sha256
    return False


def _missing(
    what: str, sha256: str, way_out: str = "say with --files in which folder it is", *, scanned: bool = True
) -> ModelError:
    if scanned:
        way_out += ", or scan its folder with: darkroom models scan FOLDER"
    return ModelError(
        f"{what} (SHA-256 {sha256[:12]}...) that made this image is not known on this machine, or has changed; "
        f"{way_out}"
    )


def _below(folder: Path | None) -> Iterator[Path]:
    """Files of a folder, and folders with a configuration, that might be what is looked for."""
    for path in islice(sorted(folder.rglob("*")) if folder else (), MAX_FILES):
        if path.is_file():
            yield path.parent if path.name in ("config.json", "model_index.json") else path
