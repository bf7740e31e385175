"""The components of a model: the class, configuration and weights files of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.registry.resolve import resolve
from pipeline.request import MemorySettings, ModelSettings
from pipeline.weights.hashes import file_hashes
from pipeline.weights.inspection import NOT_LOADED, ModelFiles, component_weights

DENOISERS = ("unet", "transformer", "prior")
"""The names that pipelines give to what denoises."""

_CHECKER = ("safety_checker", "feature_extractor")
_WITHOUT_WEIGHTS = ("Tokenizer", "TokenizerFast", "Scheduler", "Processor", "ProcessorFast", "Extractor")
_OF_NO_CONTENT = ("transformers_version", "torch_dtype", "dtype", "architectures")


@dataclass(frozen=True, slots=True)
class ComponentPart:
    """One component before it is loaded. `config` is the folder with its configuration.

    `weights` are empty for tokenizers, schedulers and image processors. With `single_file` they are one file in the
    layout of the model's authors, or of GGUF, and not the folder's own; `family` is then that of a file which holds
    other components too.
    """

    name: str
    library: str
    class_name: str
    config: Path
    weights: tuple[Path, ...] = ()
    variant: str | None = None
    single_file: bool = False
    family: str | None = None

    @property
    def role(self) -> str:
        """`denoiser`, `encoder` or `other`: weights of these roles are quantised differently."""
        if self.name in DENOISERS:
            return "denoiser"
        return "encoder" if self.name.startswith("text_encoder") else "other"

    def configuration(self) -> dict[str, Any]:
        """The component's config.json."""
        value: dict[str, Any] = json.loads((self.config / "config.json").read_text(encoding="utf-8"))
        return value


def index_of(files: ModelFiles) -> tuple[Path, dict[str, Any]]:
    """The folder that describes the pipeline, and its model_index.json."""
    folder = files.config or files.path
    return folder, json.loads((folder / "model_index.json").read_text(encoding="utf-8"))


def parts_of(files: ModelFiles, settings: ModelSettings, memory: MemorySettings) -> dict[str, ComponentPart]:
    """Every component to load, by name. Raises `ModelError` if one cannot be found."""
    folder, index = index_of(files)
    parts = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or value[0] is None:
            continue
        if name in NOT_LOADED and not (settings.safety_checker and name in _CHECKER):
            continue
        own = ComponentPart(name, str(value[0]), str(value[1]), folder / name)
        parts[name] = _vae(settings, own) if name == "vae" and settings.vae_source else _part(files, own)
    if memory.uses("tiny_vae"):
        tiny = resolve(memory.tiny_vae_source or "")
        parts["vae"] = _with_weights(ComponentPart("vae", "diffusers", "AutoencoderTiny", tiny), tiny.name)
    return parts


def scheduler_config(files: ModelFiles, settings: ModelSettings) -> dict[str, Any]:
    """The configuration of the model's own scheduler, with the prediction type that the weights were trained for."""
    config = dict(files.scheduler_config)
    prediction_type = settings.prediction_type or files.prediction_type
    if prediction_type:
        config["prediction_type"] = prediction_type
    if files.zero_snr and files.layout != "folder":  # a folder says itself how it is to be sampled
        # Trained down to pure noise, so it must start there: the last timestep, with no signal left in it.
        config.update(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    return config


def pool_key(part: ComponentPart, dtype: str, techniques: Iterable[str]) -> Hashable:
    """The key by which two components are the same in memory: class, configuration, weights, dtype and quantisation.

    Paths and the traces that programs leave in configurations do not count, so a text encoder that came with two
    models is one.
    """
    config = {
        key: value
        for key, value in part.configuration().items()
        if key not in _OF_NO_CONTENT and not key.startswith("_")
    }
    text = json.dumps(config, sort_keys=True)
    digests = sorted(file_hashes(list(part.weights)).values())
    name = part.name if part.single_file else ""  # one file holds several components
    content = hashlib.sha256("\n".join([part.class_name, name, text, *digests]).encode()).hexdigest()
    return content, dtype, tuple(sorted(techniques))


def _part(files: ModelFiles, own: ComponentPart) -> ComponentPart:
    """A component with its weights; `own` is its place in the folder that describes the pipeline."""
    name, model = own.name, own.config.parent.name
    if own.class_name.endswith(_WITHOUT_WEIGHTS):
        return own
    if any(component.name == name and files.path in component.files for component in files.components):
        return replace(own, weights=(files.path,), single_file=True, family=files.family)
    if not any(own.config.glob("*.safetensors")) and files.layout != "folder":
        way = "model.vae=PATH" if name == "vae" else "model.config=FOLDER, a diffusers folder of this family"
        raise ModelError(f"model {files.path.name}: holds no {name}, and {model}/ neither; give one with {way}")
    return _with_weights(own, model)


def _with_weights(part: ComponentPart, model: str) -> ComponentPart:
    """A component with the weights in its own folder."""
    weights, variant = component_weights(part.config, model)
    return replace(part, weights=tuple(weights), variant=variant)


def _vae(settings: ModelSettings, own: ComponentPart) -> ComponentPart:
    """The VAE given instead of the model's own; a single file is read with the configuration of that one."""
    path = resolve(settings.vae_source or "")
    if path.is_file():
        return replace(own, weights=(path,), single_file=True)
    given = _with_weights(ComponentPart("vae", "diffusers", "", path), path.name)  # first, as it says what is not there
    class_name = str(json.loads((path / "config.json").read_text(encoding="utf-8")).get("_class_name", ""))
    if not class_name.startswith("Autoencoder"):
        raise ModelError(
            f"vae {settings.vae}: config.json names {class_name!r}; expected one of diffusers' autoencoders"
        )
    return replace(given, class_name=class_name)
