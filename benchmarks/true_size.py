"""Models of true size with random weights, written as diffusers folders: `write(blueprint("flux"), FOLDER)`.

Shapes are those of the published models, so memory and speed are theirs; the pictures are noise. Weights are drawn
tensor by tensor on the device and go straight into files, so that no model is ever in memory as a whole. Configurations
of SD 1.5 and SDXL are the shipped ones; those of FLUX.1 dev and Z-Image are the published ones, where they are not the
classes' defaults. CLIP's tokenizer is the true one. T5's and Qwen's are tiny, every character being a token; that does
not matter to T5, whose input is always filled up to 512 tokens, and gives Z-Image a text about four times as long.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.weights.shipped import CLIP_VOCABULARY, SHIPPED

SHARD_BYTES = 2 * 10**9
STD = 0.02
"""Of all weights with two dimensions and more; it keeps activations within what bfloat16 holds in all four families."""

_KL_16 = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
_QWEN3_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
_THIRD = {"unet": (192, 384, 768, 768), "vae": (64, 128, 256, 256)}
"""Channels of an SD 1.5 with a third of the parameters."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What model_index.json names as [library, class], and the configuration of each component that has weights.

    `clip` is the folder whose CLIP tokenizers are taken.
    """

    pipeline_class: str
    index: dict[str, tuple[str, str]]
    configs: dict[str, dict[str, Any]]
    scheduler: dict[str, Any]
    clip: Path


def blueprint(family: str, *, third: bool = False) -> Blueprint:
    """Of `sd15`, `sdxl`, `flux` (dev) or `z_image`. `third`: an SD 1.5 whose UNet and VAE are a third of the size."""
    sd15 = _shipped("sd15")
    if family in SHIPPED:
        plan = _shipped(family)
        if third:
            for name, channels in _THIRD.items():
                plan.configs[name]["block_out_channels"] = list(channels)
        return plan
    if family == "flux":
        return Blueprint(
            "FluxPipeline",
            {
                "transformer": ("diffusers", "FluxTransformer2DModel"),
                "vae": ("diffusers", "AutoencoderKL"),
                "text_encoder": ("transformers", "CLIPTextModel"),
                "text_encoder_2": ("transformers", "T5EncoderModel"),
                "tokenizer": ("transformers", "CLIPTokenizer"),
                "tokenizer_2": ("transformers", "T5TokenizerFast"),
                "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
            },
            {
                "transformer": {"guidance_embeds": True},
                "vae": _KL_16,
                "text_encoder": sd15.configs["text_encoder"],
                "text_encoder_2": _T5_XXL,
            },
            {"shift": 3.0, "use_dynamic_shifting": True},
            sd15.clip,
        )
    assert family == "z_image", family
    return Blueprint(
        "ZImagePipeline",
        {
            "transformer": ("diffusers", "ZImageTransformer2DModel"),
            "vae": ("diffusers", "AutoencoderKL"),
            "text_encoder": ("transformers", "Qwen3Model"),
            "tokenizer": ("transformers", "Qwen2TokenizerFast"),
            "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
        },
        {"transformer": {}, "vae": _KL_16, "text_encoder": _QWEN3_4B},
        {"shift": 3.0},
        sd15.clip,
    )


def write(plan: Blueprint, folder: Path, *, shard_bytes: int = SHARD_BYTES, device: str = "cpu") -> int:
    """Write a model in bfloat16, drawn on `device`; returns the number of its parameters."""
    import torch

    torch.manual_seed(0)
    for name in plan.index:
        (folder / name).mkdir(parents=True)
    _write_small_parts(plan, folder)
    parameters = 0
    for name in plan.configs:
        module = empty_component(plan, name)
        library = plan.index[name][0]
        _write_configuration(module, library, folder / name)
        stem = "diffusion_pytorch_model" if library == "diffusers" else "model"
        parameters += _write_weights(module, folder / name, stem, shard_bytes, device)
    index = {"_class_name": plan.pipeline_class, **{name: list(value) for name, value in plan.index.items()}}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return parameters


def empty_component(plan: Blueprint, name: str) -> Any:
    """A component without memory behind its weights."""
    import diffusers
    import torch
    import transformers

    library, class_name = plan.index[name]
    config = plan.configs[name]
    with torch.device("meta"):
        if library == "diffusers":
            return getattr(diffusers, class_name).from_config(config)
        component_class = getattr(transformers, class_name)
        return component_class(component_class.config_class(**config))


def _shipped(family: str) -> Blueprint:
    folder = SHIPPED[family]
    index = _read(folder / "model_index.json")
    components = {name: tuple(value) for name, value in index.items() if isinstance(value, list) and value[0]}
    paths = {name: folder / name / "config.json" for name in components}
    configs = {name: _read(path) for name, path in paths.items() if path.exists()}
    scheduler = _read(folder / "scheduler" / "scheduler_config.json")
    return Blueprint(index["_class_name"], components, configs, scheduler, folder)


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _write_small_parts(plan: Blueprint, folder: Path) -> None:
    """Tokenizers and scheduler."""
    import tiny_tokenizers

    for name, (_, class_name) in plan.index.items():
        if class_name == "CLIPTokenizer":
            shutil.copytree(CLIP_VOCABULARY, folder / name, dirs_exist_ok=True)
            shutil.copytree(plan.clip / name, folder / name, dirs_exist_ok=True)
        elif class_name == "T5TokenizerFast":
            tiny_tokenizers.t5().save_pretrained(folder / name)
        elif class_name == "Qwen2TokenizerFast":
            tiny_tokenizers.qwen().save_pretrained(folder / name)
    scheduler = {"_class_name": plan.index["scheduler"][1], **plan.scheduler}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler), encoding="utf-8")


def _write_configuration(module: Any, library: str, folder: Path) -> None:
    if library == "diffusers":
        module.save_config(folder)
        return
    module.config.architectures = [type(module).__name__]
    module.config.dtype = "bfloat16"
    module.config.save_pretrained(folder)


def _write_weights(module: Any, folder: Path, stem: str, shard_bytes: int, device: str) -> int:
    """The tensors in shards, with an index where there are several; returns how many parameters."""
    shards = list(_shards(module, shard_bytes))
    several = len(shards) > 1
    files = [
        f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors" if several else f"{stem}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda file, shard: _write_shard(folder / file, shard, device), files, shards))
    parameters: int = sum(tensor.numel() for shard in shards for tensor in shard.values())
    if several:
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": 2 * parameters}, "weight_map": where}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return parameters


def _write_shard(path: Path, shard: dict[str, Any], device: str) -> None:
    """One file, tensor by tensor: `safetensors` would first copy all of them, and hold up the other threads."""
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in shard.items():
        end = start + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in shard.items():
            file.write(_drawn(name, tensor.shape, device).cpu().view(torch.uint8).numpy().data)


def _shards(module: Any, shard_bytes: int) -> Iterator[dict[str, Any]]:
    """Names and empty tensors, each tied weight once, in groups of at most so many bytes."""
    shard: dict[str, Any] = {}
    size = 0
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if shard and size + 2 * tensor.numel() > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += 2 * tensor.numel()
    yield shard


def _drawn(name: str, shape: Any, device: str) -> Any:
    """Normal where it is a matrix or more; norms leave everything as it is, and there is no bias."""
    import torch

    if len(shape) > 1:
        return torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(std=STD)
    return torch.full(shape, 1.0 if name.endswith("weight") else 0.0, dtype=torch.bfloat16)
