"""Inspects a model in one file: what it contains itself, and what a folder beside it must supply."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.weights.families import FAMILIES, Family
from pipeline.weights.file_inspection import inspect_file
from pipeline.weights.folder_inspection import OPTIONAL, inspect_folder, read_json
from pipeline.weights.model_files import FileFacts, ModelFiles
from pipeline.weights.shipped import SHIPPED

_NOT_CONVERTED = frozenset({("pixart_sigma", "original")})
"""Layouts that diffusers has no converter for."""

_LOADED_QUANTIZATIONS = (None, "float8")
"""What may stand in a `.safetensors` of one file; GGUF brings its own."""

_KINDS = {
    "lora": "a LoRA, which is applied to a model by adapters.loras",
    "vae": "a VAE, which is set by model.vae",
    "controlnet": "a ControlNet, which is used with a model by adapters.controlnets",
    "embedding": "an embedding, which is applied to a model by adapters.embeddings",
    "ip_adapter": "an IP-Adapter, which is applied to a model by adapters.ip_adapters",
    "text_encoder": "a text encoder",
}  # fmt: skip


def inspect_single_file(path: Path, config: Path | None, supplied: Collection[str] = ()) -> ModelFiles:
    """Check a checkpoint, a lone denoiser or a GGUF file against the folder that has the rest. Raises `ModelError`.

    Components in `supplied` come from elsewhere and are asked of neither.
    """
    facts = inspect_file(path)
    if facts.kind not in ("checkpoint", "denoiser"):
        raise ModelError(f"model {path.name}: makes no pictures by itself: it is {_KINDS[facts.kind]}")
    family = FAMILIES[facts.families[0]]
    if (family.name, facts.layout) in _NOT_CONVERTED:
        raise ModelError(
            f"model {path.name}: is {facts.label} in its authors' own layout, which diffusers does not convert; "
            "get it as a diffusers folder"
        )
    if facts.format == "safetensors" and facts.quantization not in _LOADED_QUANTIZATIONS:
        raise ModelError(
            f"model {path.name}: its weights are quantised as {facts.quantization}, which is not loaded from a single "
            "file; get it in 16 bits or as GGUF"
        )
    folder = _configuration(facts, family, config, supplied)
    own = {component.name for component in facts.components}
    components = facts.components + tuple(c for c in folder.components if c.name not in own)
    return replace(
        folder,
        path=path,
        layout="checkpoint" if facts.kind == "checkpoint" else "denoiser",
        family=family.name,
        label=facts.label,
        files=(path, *folder.files),
        variant=None,
        components=components,
        prediction_type=facts.prediction_type or folder.prediction_type,
        zero_snr=facts.zero_snr or folder.zero_snr,
        quantization=facts.quantization,
        attention_width=facts.attention_width,
        config=folder.path,
        notes=facts.notes,
    )


def missing_parts(facts: FileFacts, supplied: Collection[str] = ()) -> list[str]:
    """Components whose weights a single file lacks, except those in `supplied`, which come from elsewhere."""
    there = {*supplied, *(component.name for component in facts.components)}
    family = FAMILIES[facts.families[0]]
    return [name for name in family.parameters if name not in there and name not in OPTIONAL]


def _configuration(facts: FileFacts, family: Family, config: Path | None, supplied: Collection[str]) -> ModelFiles:
    """The folder beside the file, checked to be of the same model."""
    path = facts.path
    there = {*supplied, *(component.name for component in facts.components)}
    missing = missing_parts(facts, supplied)
    if config is None and not missing:
        config = SHIPPED.get(family.name)
    if config is None:
        held = ", ".join(component.name for component in facts.components)
        vae = "model.vae=PATH, or " if missing == ["vae"] and family.name in SHIPPED else ""
        raise ModelError(
            f"model {path.name}: is {facts.label} and holds only {held}; give {vae}model.config=FOLDER, a diffusers "
            "folder of this family that has the rest"
        )
    if not config.is_dir():
        raise ModelError(f"model {path.name}: model.config must be a diffusers folder, and {config.name} is a file")
    folder = inspect_folder(config, supplied=there)
    if folder.family != family.name:
        raise ModelError(
            f"model {path.name}: is {facts.label}, but model.config={config.name} is {folder.label}; "
            f"expected a diffusers folder of {family.label}"
        )
    denoiser = read_json(config / family.denoiser / "config.json", f"{family.denoiser}/ has no configuration")
    for what, found, wanted in (
        ("blocks", facts.blocks, _blocks(denoiser, facts.layout)),
        ("wide attention", facts.attention_width, _width(denoiser)),
    ):
        if found and wanted and found != wanted:
            raise ModelError(
                f"model {path.name}: is {facts.label} of {found} {what}, but {config.name}/ describes {wanted}; "
                "give model.config=FOLDER, the diffusers folder of this very model"
            )
    if facts.guidance_embedded is not None and facts.guidance_embedded != bool(denoiser.get("guidance_embeds")):
        raise ModelError(
            f"model {path.name}: is {facts.label}, but {config.name}/{family.denoiser} says guidance_embeds "
            f"{str(bool(denoiser.get('guidance_embeds'))).lower()}; give model.config=FOLDER of {facts.label}"
        )
    return folder


def _blocks(denoiser: Mapping[str, Any], layout: str | None) -> int | None:
    """The number of blocks that a denoiser's configuration describes, counted as detection counts them."""
    ups = denoiser.get("up_block_types")
    if isinstance(ups, list):
        per_block = denoiser.get("layers_per_block", 2)
        return len(ups) * (per_block + 1) if layout == "original" and isinstance(per_block, int) else len(ups)
    count = denoiser.get("num_layers", denoiser.get("n_layers"))
    return count if isinstance(count, int) else None


def _width(denoiser: Mapping[str, Any]) -> int | None:
    if "up_block_types" in denoiser:
        width = denoiser.get("cross_attention_dim")
    elif "num_attention_heads" in denoiser and "attention_head_dim" in denoiser:
        width = denoiser["num_attention_heads"] * denoiser["attention_head_dim"]
    else:
        width = denoiser.get("dim", denoiser.get("hidden_size"))
    return width if isinstance(width, int) else None
