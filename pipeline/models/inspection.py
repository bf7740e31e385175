"""What a diffusers folder holds, from its small files and safetensors headers alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.models.safetensors_header import read_header

NOT_LOADED = ("safety_checker", "feature_extractor", "image_encoder")
"""Components of SD 1.x era pipelines that text-to-image does not need."""

_PICKLE = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_DENOISERS = ("unet", "transformer", "prior")
_FALLBACK_SIDE = 1024


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A sound diffusers folder: the files that decide its pictures, and what it was made for.

    `width` and `height` are pixels; `text_layers` counts the layers of the first text encoder, where it says so.
    """

    path: Path
    pipeline_class: str
    files: tuple[Path, ...]
    variant: str | None
    scheduler_class: str
    scheduler_config: dict[str, Any]
    text_layers: int | None
    width: int
    height: int


def inspect_folder(path: Path) -> ModelFolder:
    """Check a diffusers text-to-image folder. Raises `ModelError` naming the file at fault and the way out."""
    if not path.is_dir():
        raise ModelError(f"model {path.name}: is a file; expected a diffusers folder with a model_index.json")
    index = _read_json(path / "model_index.json", "not a diffusers folder")
    pipeline_class = index.get("_class_name")
    if not isinstance(pipeline_class, str):
        raise ModelError(f"model {path.name}: model_index.json names no pipeline (_class_name)")
    components = dict(_components(path, index))
    files = [path / "model_index.json"]
    variants: set[str | None] = set()
    for name, (library, class_name) in components.items():
        if library not in ("diffusers", "transformers"):
            raise ModelError(
                f"model {path.name}: component {name} is code from {library!r} ({class_name}); only components of "
                "diffusers and transformers are run"
            )
        folder = path / name
        if not folder.is_dir():
            raise ModelError(f"model {path.name}: the folder {name}/ is missing; fetch the model again")
        files += sorted(p for p in folder.iterdir() if p.suffix in (".json", ".txt", ".model") and p.is_file())
        if (folder / "config.json").exists():
            weights, variant = component_weights(folder, path.name)
            files += weights
            variants.add(variant)
    denoiser = next((name for name in _DENOISERS if name in components), None)
    if denoiser is None or "scheduler" not in components:
        raise ModelError(f"model {path.name}: {pipeline_class} has no denoiser with a scheduler, so it makes no images")
    width, height = _native_size(path, denoiser)
    return ModelFolder(
        path=path,
        pipeline_class=pipeline_class,
        files=tuple(files),
        variant=next(iter(variants - {None}), None),
        scheduler_class=components["scheduler"][1],
        scheduler_config=_read_json(path / "scheduler" / "scheduler_config.json", "scheduler/ has no configuration"),
        text_layers=_text_layers(path),
        width=width,
        height=height,
    )


def component_weights(folder: Path, model: str) -> tuple[list[Path], str | None]:
    """The safetensors files of one component and their variant (`fp16` or None), each header checked."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLE)
        if pickles:
            raise ModelError(
                f"model {model}: {folder.name}/ has its weights only as {pickles[0]}, a pickle, which can run code "
                "when opened; get or convert the model as safetensors"
            )
        raise ModelError(f"model {model}: {folder.name}/ has no weights (*.safetensors); fetch the model again")
    plain = [p for p in found if _variant(p) is None]
    chosen, variant = (plain, None) if plain else (found, _variant(found[0]))
    for weights in chosen:
        read_header(weights)
    return chosen, variant


def _variant(path: Path) -> str | None:
    """`diffusion_pytorch_model.fp16.safetensors` -> `fp16`; shards such as `-00001-of-00002` are no variant."""
    parts = path.name.split(".")
    return parts[1].split("-")[0] if len(parts) == 3 else None


def _components(path: Path, index: dict[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    for name, value in index.items():
        if name.startswith("_") or name in NOT_LOADED or not isinstance(value, list):
            continue
        if len(value) != 2:
            raise ModelError(f"model {path.name}: model_index.json: {name} should be [library, class], not {value}")
        library, class_name = value
        if library is not None and class_name is not None:
            yield name, (str(library), str(class_name))


def _text_layers(path: Path) -> int | None:
    """Number of layers of the first text encoder, as far as its configuration says."""
    config = path / "text_encoder" / "config.json"
    layers = _read_json(config, "").get("num_hidden_layers") if config.exists() else None
    return layers if isinstance(layers, int) else None


def _native_size(path: Path, denoiser: str) -> tuple[int, int]:
    """The size in pixels a model was trained for: the denoiser's sample size times the VAE's factor."""
    sample = _read_json(path / denoiser / "config.json", f"{denoiser}/ has no configuration").get("sample_size")
    if not (path / "vae" / "config.json").exists() or sample is None:
        return _FALLBACK_SIDE, _FALLBACK_SIDE
    vae = _read_json(path / "vae" / "config.json", "vae/ has no configuration")
    blocks = vae.get("block_out_channels") or vae.get("decoder_block_out_channels") or [0] * 4
    factor = 2 ** (len(blocks) - 1)
    height, width = (sample, sample) if isinstance(sample, int) else sample[:2]
    return width * factor, height * factor


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    where = f"model {path.parent.name}" if path.name == "model_index.json" else f"model {path.parent.parent.name}"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{where}: {otherwise}: {path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}: {path.name} cannot be read ({error}); fetch it again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{where}: {path.name} should hold a JSON object")
    return value
