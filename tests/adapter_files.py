"""Adapters for tiny models, written on the spot: LoRAs, embeddings, ControlNets, IP-Adapters, pictures."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PEFT = {
    "unet": "unet.{}.lora_{}.weight",
    "transformer": "transformer.{}.lora_{}.weight",
    "text_encoder": "text_encoder.text_model.{}.lora_{}.weight",
    "text_encoder_2": "text_encoder_2.text_model.{}.lora_{}.weight",
}
KOHYA = {
    "unet": "lora_unet_",
    "text_encoder": "lora_te_text_model_",
    "text_encoder_1": "lora_te1_text_model_",
    "text_encoder_2": "lora_te2_text_model_",
}
DENOISER_LAYERS = ("attn1.to_q", "attn2.to_k", "attn2.to_v", "attn.to_q")
ENCODER_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")


def layers_of(pipe: Any, *components: str) -> dict[str, list[tuple[str, int, int]]]:
    """(name, inputs, outputs) of the layers that LoRAs are trained on, by component."""
    found = {}
    for component in components:
        endings = ENCODER_LAYERS if component.startswith("text_encoder") else DENOISER_LAYERS
        modules = getattr(pipe, component).named_modules()
        found[component] = [(n, m.in_features, m.out_features) for n, m in modules if n.endswith(endings)]
    return found


def write_lora(
    path: Path,
    layers: dict[str, list[tuple[str, int, int]]],
    *,
    seed: int = 0,
    rank: int = 4,
    size: float = 0.5,
    form: str = "peft",
    extra: dict[str, Any] | None = None,
) -> Path:
    """A LoRA in the form of PEFT or of kohya (with alpha at half its rank), plus some tensors of the caller's."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Any] = {}
    for component, names in layers.items():
        for name, inputs, outputs in names:
            down = torch.randn(rank, inputs, generator=generator) * size
            up = torch.randn(outputs, rank, generator=generator) * size
            if form == "peft":
                tensors[PEFT[component].format(name.removeprefix("text_model."), "A")] = down
                tensors[PEFT[component].format(name.removeprefix("text_model."), "B")] = up
            else:
                stem = KOHYA[component] + name.removeprefix("text_model.").replace(".", "_")
                tensors[f"{stem}.lora_down.weight"] = down
                tensors[f"{stem}.lora_up.weight"] = up
                tensors[f"{stem}.alpha"] = torch.tensor(rank / 2)
    save_file(tensors | (extra or {}), path)
    return path


def write_tensors(path: Path, **tensors: Any) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, path)
    return path


def write_picture(path: Path, size: tuple[int, int] = (48, 40), seed: int = 0) -> Path:
    """A picture of large coloured fields, so that edges and averages differ from one to the next."""
    random = np.random.default_rng(seed)
    fields = random.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(fields).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def write_controlnet(folder: Path, unet: Any, seed: int = 0) -> Path:
    """A ControlNet for a tiny UNet, with weights that have an effect (untrained ones are zero)."""
    import torch
    from diffusers import ControlNetModel

    torch.manual_seed(seed)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32))
    return _saved(controlnet, folder)


def write_transformer_controlnet(folder: Path, class_name: str, transformer: Any) -> Path:
    """A ControlNet of one block of each kind for a tiny transformer."""
    import diffusers
    import torch

    torch.manual_seed(0)
    config = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    extra = {"num_layers": 1, "num_single_layers": 1, "extra_conditioning_channels": 0}
    accepted = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        options = {name: value for name, value in (config | extra).items() if name in accepted}
        controlnet = getattr(diffusers, class_name)(**options)
    return _saved(controlnet, folder)


def _saved(controlnet: Any, folder: Path) -> Path:
    import torch

    with torch.no_grad():
        for parameter in controlnet.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    controlnet.save_pretrained(folder, safe_serialization=True)
    return folder


def write_ip_adapter(folder: Path, unet: Any, width: int = 16, seed: int = 0, plus: bool = False) -> Path:
    """An IP-Adapter for a tiny UNet in the layout of h94/IP-Adapter, its image encoder beside it.

    `plus`: one that reads an embedding per patch.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    attention = unet.config.cross_attention_dim

    def random(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator) * 0.3

    tensors = {
        "image_proj.proj.weight": random(4 * attention, width),
        "image_proj.proj.bias": random(4 * attention),
        "image_proj.norm.weight": torch.ones(attention),
        "image_proj.norm.bias": random(attention),
    }
    if plus:
        shapes: dict[str, tuple[int, ...]] = {
            "latents": (1, 4, 64), "proj_in.weight": (64, 32), "proj_in.bias": (64,), "proj_out.bias": (attention,),
            "proj_out.weight": (attention, 64), "norm_out.weight": (attention,), "norm_out.bias": (attention,),
        }  # fmt: skip
        for layer in range(4):
            shapes |= {f"layers.{layer}.0.norm{n}.{kind}": (64,) for n in (1, 2) for kind in ("weight", "bias")}
            shapes |= {f"layers.{layer}.0.{name}.weight": (n, 64) for name, n in (("to_q", 64), ("to_kv", 128))}
            shapes |= {f"layers.{layer}.0.to_out.weight": (64, 64), f"layers.{layer}.1.1.weight": (256, 64)}
            shapes |= {f"layers.{layer}.1.0.{kind}": (64,) for kind in ("weight", "bias")}
            shapes |= {f"layers.{layer}.1.3.weight": (64, 256)}
        tensors = {f"image_proj.{name}": random(*shape) for name, shape in shapes.items()}
    cross = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    modules = dict(unet.named_modules())
    for place, name in enumerate(cross):
        outputs = modules[name.removesuffix(".processor")].to_k.out_features
        tensors[f"ip_adapter.{2 * place + 1}.to_k_ip.weight"] = random(outputs, attention)
        tensors[f"ip_adapter.{2 * place + 1}.to_v_ip.weight"] = random(outputs, attention)
    write_tensors(folder / f"ip{seed}.safetensors", **tensors)
    write_image_encoder(folder / "image_encoder", width)
    return folder / f"ip{seed}.safetensors"


def write_flux_ip_adapter(folder: Path, transformer: Any, width: int = 16) -> Path:
    """One in the layout of XLabs, its image encoder beside it."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator) * 0.3

    attention = transformer.config.joint_attention_dim
    tensors = {
        "ip_adapter_proj_model.proj.weight": random(4 * attention, width),
        "ip_adapter_proj_model.proj.bias": random(4 * attention),
        "ip_adapter_proj_model.norm.weight": torch.ones(attention),
        "ip_adapter_proj_model.norm.bias": random(attention),
    }
    for block in range(transformer.config.num_layers):
        for kind in "kv":
            stem = f"double_blocks.{block}.processor.ip_adapter_double_stream_{kind}_proj"
            tensors[f"{stem}.weight"] = random(transformer.inner_dim, attention)
            tensors[f"{stem}.bias"] = random(transformer.inner_dim)
    write_image_encoder(folder / "image_encoder", width)
    return write_tensors(folder / "ip.safetensors", **tensors)


def write_sd3_ip_adapter(folder: Path, transformer: Any) -> Path:
    """One in the layout of InstantX, its SigLIP image encoder beside it."""
    import torch
    from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
    from diffusers.models.embeddings import IPAdapterTimeImageProjection
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    inner = transformer.config.attention_head_dim * transformer.config.num_attention_heads
    projection = IPAdapterTimeImageProjection(
        embed_dim=32, output_dim=inner, hidden_dim=64, heads=1, num_queries=4, timestep_in_dim=32
    )
    tensors = {f"image_proj.{name}": tensor for name, tensor in projection.state_dict().items()}
    for place in range(len(transformer.attn_processors)):
        layer = SD3IPAdapterJointAttnProcessor2_0(inner, inner, transformer.config.attention_head_dim, 64)
        tensors |= {f"ip_adapter.{place}.{name}": tensor for name, tensor in layer.state_dict().items()}
    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    SiglipVisionModel(config).save_pretrained(folder / "image_encoder")
    return write_tensors(folder / "ip.safetensors", **{name: t.contiguous() for name, t in tensors.items()})


def write_image_encoder(folder: Path, width: int = 16) -> Path:
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, projection_dim=width, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder
