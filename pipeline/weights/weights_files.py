"""Selects the weights files in a component's folder: shards, variants, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.weights.headers.base import PICKLES, WeightsHeader
from pipeline.weights.headers.read import read_weights

_LOADED = ("diffusion_pytorch_model", "model")
"""How the weights begin that diffusers and transformers load; other files of a folder are passed over."""

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.safetensors$")


def component_weights(folder: Path, model: str) -> tuple[list[Path], str | None]:
    """The safetensors files of one component and their variant (`fp16` or None), each header checked."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        if pickles:
            raise ModelError(
                f"model {model}: {folder.name}/ has its weights only as {pickles[0]}, a pickle, which can run code "
                "when opened; get or convert the model as safetensors"
            )
        raise ModelError(f"model {model}: {folder.name}/ has no weights (*.safetensors); fetch the model again")
    found = [p for p in found if re.split(r"[.-]", p.name)[0] in _LOADED] or found
    plain = [p for p in found if _variant(p) is None]
    chosen, variant = (plain, None) if plain else (found, _variant(found[0]))
    chosen = [p for p in chosen if _variant(p) == variant]
    check_shards(folder, model, {path.name: _header(path, model).tensors for path in chosen})
    return chosen, variant


def _variant(path: Path) -> str | None:
    """`diffusion_pytorch_model.fp16.safetensors` -> `fp16`; shards such as `-00001-of-00002` are no variant."""
    parts = path.name.split(".")
    return parts[1].split("-")[0] if len(parts) == 3 else None


def check_shards(folder: Path, model: str, holds: Mapping[str, Collection[str]]) -> None:
    """Check that every shard is there, by the index if there is one and by the shards' own numbering.

    `holds` are the tensors of each shard by its name; the shards themselves need not be in the folder yet.
    """
    names = holds.keys()
    for index in sorted(folder.glob("*.safetensors.index*.json")):
        wanted = _weight_map(index, model)
        if not names & wanted.values():
            continue  # the index of another variant
        missing = sorted(set(wanted.values()) - names)
        if missing:
            raise ModelError(
                f"model {model}: {folder.name}/ lacks {missing[0]}, which {index.name} names; fetch the model again"
            )
        astray = next((tensor for tensor, file in wanted.items() if tensor not in holds[file]), None)
        if astray is not None:
            raise ModelError(
                f"model {model}: {folder.name}/{wanted[astray]} lacks the tensor {astray[:80]!r}, which {index.name} "
                "places there; fetch the model again"
            )
        return
    for name in names:
        shard = _SHARD.search(name)
        if shard and len(names) < int(shard[1]):
            raise ModelError(
                f"model {model}: {folder.name}/ has {len(names)} of {int(shard[1])} parts of its weights; "
                "fetch the model again"
            )


def _header(path: Path, model: str) -> WeightsHeader:
    try:
        return read_weights(path)
    except ModelError as error:
        raise ModelError(f"model {model}: {path.parent.name}/{error}") from None


def _weight_map(index: Path, model: str) -> dict[str, str]:
    try:
        value = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(tensor): str(file) for tensor, file in value.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(f"model {model}: {index.parent.name}/{index.name} cannot be read; fetch it again") from None
