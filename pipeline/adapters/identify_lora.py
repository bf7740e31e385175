"""Finds, checks and hashes a LoRA, before it is loaded."""

from __future__ import annotations

import functools
from dataclasses import replace

from pipeline.adapters.find_weights import check_family, family_label, file_now, find, public_name
from pipeline.adapters.specs import LoraSpec
from pipeline.errors import ModelError
from pipeline.request import LoraWeights
from pipeline.weights.hashes import identified
from pipeline.weights.inspection import ModelFiles, inspect_file


def identify_lora(spec: LoraSpec, files: ModelFiles) -> LoraWeights:
    """Find, check and hash a LoRA. Raises `ModelError` if it was made for another family than the model's."""
    source = str(spec.source)
    path, facts = find(source, "lora", "give a LoRA as .safetensors")
    if facts.format != "safetensors":
        raise ModelError(f"lora {path.name}: is {facts.format}; expected a LoRA as .safetensors")
    name = public_name(spec.name, source, path)
    family, label = family_label(files)
    if family and not family.lora:
        raise ModelError(f"lora {name}: diffusers loads no LoRAs for {label}; leave it out")
    check_family("lora", name, facts, files)
    return LoraWeights(name=name, source=str(path), sha256=identified(path, facts.files), weight=spec.weight)


def touches_text_encoder(lora: LoraWeights) -> bool:
    """Whether a LoRA changes how prompts are encoded. Raises `JobFailure` if its file is gone."""
    return _touches(replace(lora, weight=1.0))


@functools.lru_cache(maxsize=512)
def _touches(lora: LoraWeights) -> bool:
    return inspect_file(file_now(lora.source, lora.sha256, "lora", lora.name)).trains_text_encoder
