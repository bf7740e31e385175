"""Inspects a diffusers folder by its small files and the headers of its weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.weights.denoiser_detection import Denoiser, detect
from pipeline.weights.families import Family, family_of
from pipeline.weights.headers.base import TensorInfo, dtypes, parameters, tensor_bytes
from pipeline.weights.headers.read import read_weights
from pipeline.weights.model_files import Component, ModelFiles
from pipeline.weights.weights_files import component_weights

NOT_LOADED = ("safety_checker", "feature_extractor", "image_encoder")
"""Components of SD 1.x era pipelines that text-to-image does not need."""

DENOISERS = ("unet", "transformer", "prior")
"""The names that pipelines give to what denoises."""

OPTIONAL = ("text_encoder_3",)
"""Components that pipelines do without: SD3's T5, whose place is then filled with zeros."""

_FALLBACK_SIDE = 1024

_MOST_LATENTS = 2**12
"""A configuration that speaks of larger sides of latents is not believed."""


def inspect_folder(path: Path, supplied: Collection[str] = ()) -> ModelFiles:
    """Check a diffusers text-to-image folder. Raises `ModelError` naming the file at fault and the way out.

    Of the components in `supplied`, whose weights lie elsewhere, only the configuration is asked for.
    """
    index = read_json(path / "model_index.json", "not a diffusers folder")
    pipeline_class = index.get("_class_name")
    if not isinstance(pipeline_class, str):
        raise ModelError(f"model {path.name}: model_index.json names no pipeline (_class_name)")
    named = dict(_named_components(path, index))
    files = [path / "model_index.json"]
    variants: set[str | None] = set()
    components: list[Component] = []
    headers: dict[str, Mapping[str, TensorInfo]] = {}
    for name, (library, class_name) in named.items():
        if library not in ("diffusers", "transformers"):
            raise ModelError(
                f"model {path.name}: component {name} is code from {library!r} ({class_name}); only components of "
                "diffusers and transformers are run"
            )
        folder = path / name
        if not folder.is_dir():
            raise ModelError(f"model {path.name}: the folder {name}/ is missing; fetch the model again")
        files += sorted(p for p in folder.iterdir() if p.suffix in (".json", ".txt", ".model") and p.is_file())
        for file in folder.glob("*config.json"):
            read_json(file, "")
        if (folder / "config.json").exists() and name not in supplied:
            weights, variant = component_weights(folder, path.name)
            files += weights
            variants.add(variant)
            headers[name] = {key: t for file in weights for key, t in read_weights(file).tensors.items()}
            components.append(_component(name, class_name, folder, weights, headers[name]))
    family = family_of(pipeline_class)
    denoiser = next((name for name in DENOISERS if name in named), None)
    if denoiser is None or "scheduler" not in named:
        raise ModelError(f"model {path.name}: {pipeline_class} has no denoiser with a scheduler, so it makes no images")
    if family:
        _check_family(path, family, named)
    known = _detected(path, family, headers.get(denoiser, {}))
    configuration = read_json(path / denoiser / "config.json", f"{denoiser}/ has no configuration")
    scheduler = read_json(path / "scheduler" / "scheduler_config.json", "scheduler/ has no configuration")
    width, height = _native_size(path, configuration, family.size if family else _FALLBACK_SIDE)
    prediction = scheduler.get("prediction_type")
    return ModelFiles(
        path=path,
        layout="folder",
        pipeline_class=pipeline_class,
        family=family.name if family else None,
        label=known.label if known else family.label if family else pipeline_class.removesuffix("Pipeline"),
        files=tuple(files),
        variant=next(iter(variants - {None}), None),
        scheduler_class=named["scheduler"][1],
        scheduler_config=scheduler,
        max_clip_skip=_max_clip_skip(path, named),
        width=width,
        height=height,
        components=tuple(components),
        denoiser=denoiser,
        prediction_type=prediction if prediction in ("epsilon", "v_prediction", "sample") else None,
        zero_snr=scheduler.get("rescale_betas_zero_snr") is True,
        quantization=next((c.quantization for c in components if c.name == denoiser), None),
        guidance_distilled=guidance_distilled(family, index, configuration),
        latent_channels=_latent_channels(path),
        attention_width=known.attention_width if known else None,
    )


def guidance_distilled(family: Family | None, index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
    """Whether the guidance scale has no effect: FLUX.1 schnell, and the distilled FLUX.2 klein."""
    if family is None:
        return False
    if family.name == "flux":
        return denoiser.get("guidance_embeds") is False
    return family.name == "flux2_klein" and index.get("is_distilled") is True


def read_json(path: Path, otherwise: str, where: str | None = None) -> dict[str, Any]:
    """A JSON object from a model's folder. Raises `ModelError`, with `otherwise` if there is no such file.

    `where` begins the messages; None names the model's folder. What names code to be run, at any depth, is refused.
    """
    if where is None:
        where = f"model {(path.parent if path.name == 'model_index.json' else path.parent.parent).name}"
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_code)
    except FileNotFoundError:
        raise ModelError(f"{where}: {otherwise}: {path.name} is missing") from None
    except RecursionError:
        raise ModelError(f"{where}: {path.parent.name}/{path.name} is nested too deep; fetch it again") from None
    except _NamesCode:
        raise ModelError(
            f"{where}: {path.parent.name}/{path.name} names code of its own (auto_map), which is not run; get the "
            "model in a form that diffusers and transformers have classes for"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}: {path.name} cannot be read ({error}); fetch it again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{where}: {path.name} should hold a JSON object")
    return value


class _NamesCode(Exception):
    """A configuration that transformers would ask to run code for."""


def _without_code(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if value.get("auto_map"):
        raise _NamesCode
    return value


def quantization_of(configuration: Mapping[str, Any]) -> str | None:
    """The quantisation in a component's configuration, such as `bitsandbytes nf4`.

    torchao's is an object of nested settings, or a name in older files; of all that it can be, int8 is told.
    """
    said = configuration.get("quantization_config")
    if not isinstance(said, dict):
        return None
    method = str(said.get("quant_method", "unknown"))
    if said.get("load_in_8bit") or (method == "torchao" and "int8" in json.dumps(said.get("quant_type")).lower()):
        return f"{method} int8"
    kind = said.get("bnb_4bit_quant_type") if said.get("load_in_4bit") else None
    return f"{method} {kind}" if kind else method


def _named_components(path: Path, index: dict[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    for name, value in index.items():
        if name.startswith("_") or name in NOT_LOADED or not isinstance(value, list):
            continue
        if len(value) != 2:
            raise ModelError(f"model {path.name}: model_index.json: {name} should be [library, class], not {value}")
        library, class_name = value
        if library is not None and class_name is not None:
            yield name, (str(library), str(class_name))


def _component(
    name: str, class_name: str, folder: Path, weights: list[Path], tensors: Mapping[str, TensorInfo]
) -> Component:
    quantization = quantization_of(read_json(folder / "config.json", f"{name}/ has no configuration"))
    main = next(iter(dtypes(tensors)), None)
    return Component(name, class_name, parameters(tensors), tensor_bytes(tensors), main, tuple(weights), quantization)


def _check_family(path: Path, family: Family, named: Mapping[str, tuple[str, str]]) -> None:
    """That the parts which a known pipeline needs are there, and are of its kind."""
    class_name = named.get(family.denoiser, ("", "nothing"))[1]
    if class_name != family.denoiser_class:
        raise ModelError(
            f"model {path.name}: model_index.json mixes families: {family.pipeline_class} denoises with "
            f"{family.denoiser_class}, and {family.denoiser} is {class_name}"
        )
    for name in family.parameters:
        if name not in named and name not in OPTIONAL:
            raise ModelError(f"model {path.name}: model_index.json has no {name}, which {family.label} needs")


def _detected(path: Path, family: Family | None, tensors: Mapping[str, TensorInfo]) -> Denoiser | None:
    """The denoiser as its tensors tell it; what is not known there is left to the folder's own word."""
    found = detect({name: tensor.shape for name, tensor in tensors.items()})
    if family and found and not any(denoiser.family == family.name for denoiser in found):
        raise ModelError(
            f"model {path.name}: model_index.json speaks of {family.label}, but {family.denoiser}/ holds the weights "
            f"of {found[0].label}; fetch the model again"
        )
    return next((denoiser for denoiser in found if family and denoiser.family == family.name), None)


def _max_clip_skip(path: Path, named: Mapping[str, tuple[str, str]]) -> int | None:
    """How many layers of CLIP can be left out, as far as the configurations say.

    diffusers' pipelines with a second CLIP (SDXL, SD 3) read the layer before the last to begin with, in both.
    """
    clips = [name for name in ("text_encoder", "text_encoder_2") if named.get(name, ("", ""))[1].startswith("CLIP")]
    configs = [config for name in clips if (config := path / name / "config.json").exists()]
    known = [count for one in configs if isinstance(count := read_json(one, "").get("num_hidden_layers"), int)]
    return min(known) - ("text_encoder_2" in clips) if known else None


def _latent_channels(path: Path) -> int | None:
    config = path / "vae" / "config.json"
    vae = read_json(config, "") if config.exists() else {}
    channels = vae.get("latent_channels") or vae.get("z_dim")
    return channels if isinstance(channels, int) else None


def _native_size(path: Path, denoiser: Mapping[str, Any], otherwise: int) -> tuple[int, int]:
    """The size in pixels a model was trained for: the denoiser's sample size times the VAE's factor."""
    sample = denoiser.get("sample_size")
    if not (path / "vae" / "config.json").exists() or sample is None:
        return otherwise, otherwise
    vae = read_json(path / "vae" / "config.json", "vae/ has no configuration")
    blocks = vae.get("block_out_channels") or vae.get("decoder_block_out_channels")
    factor = 2 ** (len(blocks) - 1 if isinstance(blocks, list) else 3)
    sides = [side for side in (sample if isinstance(sample, list) else [sample, sample]) if _is_side(side)]
    return (sides[1] * factor, sides[0] * factor) if len(sides) >= 2 else (otherwise, otherwise)


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MOST_LATENTS
