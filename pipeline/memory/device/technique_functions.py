"""The memory techniques, each as a function that applies it to a loaded model without techniques."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.errors import ModelError
from pipeline.memory.device.block_streaming import BlockStreaming
from pipeline.memory.device.disk_weights import put_on_disk
from pipeline.memory.device.loaded_components import components, encoders
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.offload_hooks import (
    add_group_offload,
    add_model_offload,
    is_cast,
    remove_group_offload,
    remove_model_offload,
)
from pipeline.memory.device.quantization import true_bytes
from pipeline.memory.planning import estimate
from pipeline.memory.planning.estimate import Shape
from pipeline.memory.planning.sizes import Role, Sizes
from pipeline.memory.planning.working_memory import TILE_SIDE

if TYPE_CHECKING:
    import torch

PARTWISE = frozenset({"block_offload", "leaf_offload", "disk_offload", "resident_blocks"})
"""Techniques that bring a model to the device in parts; what they leave alone is there only for its own stage."""


def _weights_are_so(model: LoadedModel) -> bool:
    """Loaded so, or loaded again so just before."""
    return True


def _store_in_float8(model: LoadedModel) -> bool:
    import torch

    denoiser = components(model)[model.files.denoiser]
    if not is_cast(denoiser):
        denoiser.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=model.dtype)
    return True


def _by_stages(model: LoadedModel) -> bool:
    """The stages bring what they need; until then nothing is on the device."""
    for module in components(model).values():
        model.pool.to_host(module)
    return True


def _slice_decoding(model: LoadedModel) -> bool:
    return _vae_can(model, "slicing")


def _tile_decoding(model: LoadedModel) -> bool:
    """In tiles of the side that estimates count with: many VAEs only tile what is larger than their native size."""
    if not _vae_can(model, "tiling"):
        return False
    vae = model.pipe.vae
    vae.__dict__["untiled"] = {name: value for name, value in vars(vae).items() if name.startswith("tile_")}
    for name, value in vae.__dict__["untiled"].items():
        if name.startswith("tile_sample_min_") and value > TILE_SIDE:
            vae.__dict__[name] = TILE_SIDE
            others = (name.replace("sample_min", "sample_stride"), name.replace("sample", "latent"))
            for other in (one for one in others if one in vae.__dict__["untiled"]):
                vae.__dict__[other] = vae.__dict__["untiled"][other] * TILE_SIDE // value
    return True


def _vae_can(model: LoadedModel, name: str) -> bool:
    """Switch something on in the VAE, where there is one and its class has it."""
    try:
        getattr(model.pipe.vae, f"enable_{name}")()
    except (AttributeError, NotImplementedError):
        return False
    return True


def decode_plainly(vae: Any) -> None:
    """Switch VAE slicing and tiling off, and reset the tile size to the class's default."""
    for name in ("slicing", "tiling"):
        if getattr(vae, f"use_{name}", False):
            getattr(vae, f"disable_{name}")()
    vae.__dict__.update(vae.__dict__.pop("untiled", {}))


def offload_models(model: LoadedModel) -> bool:
    """Offload models: one component at a time on the device; includes components that were added later."""
    for module in components(model).values():
        remove_model_offload(module)
    _by_stages(model)
    add_model_offload(components(model).values(), model.device)
    return True


def _offload_parts(model: LoadedModel) -> bool:
    _by_stages(model)
    for name in (model.files.denoiser, *encoders(model)):
        add_hooks(model, name)
    return True


def _offload_to_disk(model: LoadedModel) -> bool:
    """Done with the offloading by parts that it belongs to."""
    if not {"block_offload", "leaf_offload"} & {*model.memory.techniques}:
        raise ModelError("disk_offload needs leaf_offload or block_offload with it")
    return True


def add_hooks(model: LoadedModel, name: str) -> None:
    """Let the denoiser or a text encoder come to the device in parts, if `model.memory` says so."""
    module, memory, is_denoiser = components(model)[name], model.memory, name == model.files.denoiser
    if memory.uses("resident_blocks"):
        room = resident_bytes(model, name)
        if is_denoiser or true_bytes(module) > room:
            module.__dict__["block_streaming"] = BlockStreaming(module, model.device, room)
    elif memory.uses("block_offload") or memory.uses("leaf_offload"):
        what = f"{model.settings.sha256[:12]}-{memory.dtype}-{name}"
        disk = put_on_disk(module, what) if memory.uses("disk_offload") else None
        # Text encoders always by leaf: their blocks lie deeper than diffusers looks for them. Never the VAE: it is
        # small, and with tiling and streams its first run would have to be a warm-up.
        by_leaf = memory.uses("leaf_offload") or not is_denoiser
        add_group_offload(module, model.device, by_leaf=by_leaf, disk=disk)


def remove_hooks(module: Any) -> None:
    """Remove all hooks that place a module's weights; they are then on the host, or on disk if offloaded there.

    Only `bring_back` makes such a module whole: often what follows needs no more than its shape, or not even that.
    """
    streaming: BlockStreaming | None = module.__dict__.pop("block_streaming", None)
    if streaming is not None:
        streaming.remove()
    remove_group_offload(module)
    remove_model_offload(module)


def resident_bytes(model: LoadedModel, name: str, shape: Shape | None = None) -> int:
    """How many bytes of a component may stay on the device; by default for one picture of the model's own size."""
    memory = model.memory
    role: Role = "denoiser" if name == model.files.denoiser else "encoder"
    if memory.budget_bytes is None:
        memory = replace(memory, budget_bytes=_room(model.device))
    shape = shape or Shape(model.files.width, model.files.height, 1, True)
    sizes = Sizes.from_files(model.files).with_adapters(model.applied)  # ControlNets stay there beside the blocks
    return estimate.resident_bytes(sizes, memory, shape, model.device.type, role)


def _room(device: torch.device) -> int:
    """What this process may take of the device."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    import torch

    free, total = torch.cuda.mem_get_info(device)
    # Of a larger card, a process may be allowed a share; what torch has reserved already is its own to use.
    allowed = int(torch.cuda.get_per_process_memory_fraction(device) * total)
    return min(free + torch.cuda.memory_reserved(device), allowed)


TECHNIQUES_APPLIED: dict[str, Callable[[LoadedModel], bool]] = {
    **dict.fromkeys(
        (
            *("half_precision", "denoiser_int8", "denoiser_float8", "denoiser_int4"),
            *("encoder_int8", "encoder_float8", "encoder_int4"),
        ),
        _weights_are_so,
    ),
    "fp8_storage": _store_in_float8,
    "staged": _by_stages,
    "drop_encoders": _by_stages,
    "vae_slicing": _slice_decoding,
    "vae_tiling": _tile_decoding,
    "tiny_vae": _weights_are_so,
    "model_offload": offload_models,
    "block_offload": _offload_parts,
    "leaf_offload": _offload_parts,
    "disk_offload": _offload_to_disk,
    "resident_blocks": _offload_parts,
}
"""Every technique by its name, in the order in which they may be applied; False: not possible for this model."""
