"""Headers of published weights: true tensor names and shapes, taken from diffusers' classes on the meta device.

The names of the authors' own layouts are made from these by renaming; `test_detection.py` has diffusers' converters
turn them back. Files get a header and a hole: they are as long as the real ones and take no room on the disk.
"""

from __future__ import annotations

import json
import re
import struct
import warnings
from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]

_XL = {
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SD3 = {
    "sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}  # fmt: skip
_SD35_MEDIUM = {"pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13))}
_SD35_LARGE = {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"}

PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "sd15": ("UNet2DConditionModel", {"cross_attention_dim": 768, "attention_head_dim": 8}),
    "sd21": (
        "UNet2DConditionModel",
        {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    ),
    "sdxl": ("UNet2DConditionModel", _XL),
    "sdxl_inpaint": ("UNet2DConditionModel", {**_XL, "in_channels": 9}),
    "sdxl_refiner": (
        "UNet2DConditionModel",
        {
            **_XL,
            "cross_attention_dim": 1280,
            "block_out_channels": (384, 768, 1536, 1536),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": 4,
            "attention_head_dim": (6, 12, 24, 24),
            "projection_class_embeddings_input_dim": 2560,
        },
    ),
    "sd3": ("SD3Transformer2DModel", _SD3),
    "sd35_medium": ("SD3Transformer2DModel", {**_SD3, **_SD35_MEDIUM}),
    "sd35_large": ("SD3Transformer2DModel", {**_SD3, **_SD35_LARGE}),
    "flux_dev": ("FluxTransformer2DModel", {"guidance_embeds": True}),
    "flux_schnell": ("FluxTransformer2DModel", {"guidance_embeds": False}),
    "flux_fill": ("FluxTransformer2DModel", {"guidance_embeds": True, "in_channels": 384, "out_channels": 64}),
    "flux2_dev": ("Flux2Transformer2DModel", {}),
    "flux2_klein": (
        "Flux2Transformer2DModel",
        {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680,
         "guidance_embeds": False},
    ),
    "chroma": ("ChromaTransformer2DModel", {}),
    "qwen_image": ("QwenImageTransformer2DModel", {}),
    "z_image": ("ZImageTransformer2DModel", {}),
    "sana": ("SanaTransformer2DModel", {}),
    "pixart_sigma": (
        "PixArtTransformer2DModel", {"sample_size": 128, "caption_channels": 4096, "use_additional_conditions": False},
    ),
    "pixart_alpha": ("PixArtTransformer2DModel", {"sample_size": 128, "caption_channels": 4096}),
    "lumina2": ("Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),
}  # fmt: skip
"""Class and configuration of the denoisers, as their model cards' config.json have them."""

_FLUX = (
    (r"time_text_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"time_text_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"time_text_embed\.text_embedder\.linear_1", "vector_in.in_layer"),
    (r"time_text_embed\.text_embedder\.linear_2", "vector_in.out_layer"),
    (r"time_text_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
    (r"time_text_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
    (r"^context_embedder", "txt_in"),
    (r"^x_embedder", "img_in"),
    (r"single_transformer_blocks\.(\d+)\.norm\.linear", r"single_blocks.\1.modulation.lin"),
    (r"single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight", r"single_blocks.\1.norm.query_norm.scale"),
    (r"single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight", r"single_blocks.\1.norm.key_norm.scale"),
    (r"single_transformer_blocks\.(\d+)\.(attn\.to_[qkv]|proj_mlp)", r"single_blocks.\1.linear1"),
    (r"single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2"),
    (r"^transformer_blocks\.", "double_blocks."),
    (r"\.norm1\.linear", ".img_mod.lin"),
    (r"\.norm1_context\.linear", ".txt_mod.lin"),
    (r"\.attn\.to_[qkv]\.", ".img_attn.qkv."),
    (r"\.attn\.add_[qkv]_proj\.", ".txt_attn.qkv."),
    (r"\.attn\.norm_q\.weight", ".img_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_k\.weight", ".img_attn.norm.key_norm.scale"),
    (r"\.attn\.norm_added_q\.weight", ".txt_attn.norm.query_norm.scale"),
    (r"\.attn\.norm_added_k\.weight", ".txt_attn.norm.key_norm.scale"),
    (r"\.attn\.to_out\.0", ".img_attn.proj"),
    (r"\.attn\.to_add_out", ".txt_attn.proj"),
    (r"\.ff\.net\.0\.proj", ".img_mlp.0"),
    (r"\.ff\.net\.2", ".img_mlp.2"),
    (r"\.ff_context\.net\.0\.proj", ".txt_mlp.0"),
    (r"\.ff_context\.net\.2", ".txt_mlp.2"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^proj_out", "final_layer.linear"),
)
_CHROMA = (
    (r"(distilled_guidance_layer\.layers\.\d+)\.linear_1", r"\1.in_layer"),
    (r"(distilled_guidance_layer\.layers\.\d+)\.linear_2", r"\1.out_layer"),
    (r"(distilled_guidance_layer\.norms\.\d+)\.weight", r"\1.scale"),
    *_FLUX,
)
_FLUX2 = (
    (r"time_guidance_embed\.timestep_embedder\.linear_1", "time_in.in_layer"),
    (r"time_guidance_embed\.timestep_embedder\.linear_2", "time_in.out_layer"),
    (r"time_guidance_embed\.guidance_embedder\.linear_1", "guidance_in.in_layer"),
    (r"time_guidance_embed\.guidance_embedder\.linear_2", "guidance_in.out_layer"),
    (r"(double_stream_modulation_(?:img|txt)|single_stream_modulation)\.linear", r"\1.lin"),
    (r"single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight", r"single_blocks.\1.norm.query_norm.scale"),
    (r"single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight", r"single_blocks.\1.norm.key_norm.scale"),
    (r"single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj", r"single_blocks.\1.linear1"),
    (r"single_transformer_blocks\.(\d+)\.attn\.to_out", r"single_blocks.\1.linear2"),
    (r"\.ff\.linear_in", ".img_mlp.0"),
    (r"\.ff\.linear_out", ".img_mlp.2"),
    (r"\.ff_context\.linear_in", ".txt_mlp.0"),
    (r"\.ff_context\.linear_out", ".txt_mlp.2"),
    *_FLUX,
)
_SD3_NAMES = (
    (r"^pos_embed\.pos_embed", "pos_embed"),
    (r"^pos_embed\.proj", "x_embedder.proj"),
    (r"time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    (r"^transformer_blocks\.(\d+)\.", r"joint_blocks.\1."),
    (r"\.norm1\.linear", ".x_block.adaLN_modulation.1"),
    (r"\.norm1_context\.linear", ".context_block.adaLN_modulation.1"),
    (r"\.(attn2?)\.to_[qkv]\.", r".x_block.\1.qkv."),
    (r"\.attn\.add_[qkv]_proj\.", ".context_block.attn.qkv."),
    (r"\.(attn2?)\.norm_([qk])\.", r".x_block.\1.ln_\2."),
    (r"\.attn\.norm_added_([qk])\.", r".context_block.attn.ln_\1."),
    (r"\.(attn2?)\.to_out\.0", r".x_block.\1.proj"),
    (r"\.attn\.to_add_out", ".context_block.attn.proj"),
    (r"\.ff\.net\.0\.proj", ".x_block.mlp.fc1"),
    (r"\.ff\.net\.2", ".x_block.mlp.fc2"),
    (r"\.ff_context\.net\.0\.proj", ".context_block.mlp.fc1"),
    (r"\.ff_context\.net\.2", ".context_block.mlp.fc2"),
    (r"^norm_out\.linear", "final_layer.adaLN_modulation.1"),
    (r"^proj_out", "final_layer.linear"),
)
_Z_IMAGE = (
    (r"^all_final_layer\.2-1\.", "final_layer."),
    (r"^all_x_embedder\.2-1\.", "x_embedder."),
    (r"\.attention\.to_out\.0\.", ".attention.out."),
    (r"\.attention\.norm_([qk])\.", r".attention.\1_norm."),
    (r"\.attention\.to_[qkv]\.", ".attention.qkv."),
)
_LUMINA2 = (
    (r"^time_caption_embed\.caption_embedder", "cap_embedder"),
    (r"^time_caption_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"^time_caption_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"^norm_out\.linear_1", "final_layer.adaLN_modulation.1"),
    (r"^norm_out\.linear_2", "final_layer.linear"),
    (r"\.norm1\.linear", ".adaLN_modulation.1"),
    (r"\.norm1\.norm", ".attention_norm1"),
    (r"\.norm1\.", ".attention_norm1."),
    (r"\.norm2\.", ".attention_norm2."),
    (r"\.attn\.to_[qkv]\.", ".attention.qkv."),
    (r"\.attn\.to_out\.0\.", ".attention.out."),
    (r"\.attn\.norm_([qk])\.", r".attention.\1_norm."),
    (r"\.feed_forward\.linear_", ".feed_forward.w"),
)
_DIT = (
    (r"^transformer_blocks\.", "blocks."),
    (r"\.attn1\.to_[qkv]\.", ".attn.qkv."),
    (r"\.attn1\.to_out\.0", ".attn.proj"),
    (r"\.attn2\.to_q\.", ".cross_attn.q_linear."),
    (r"\.attn2\.to_[kv]\.", ".cross_attn.kv_linear."),
    (r"\.attn2\.to_out\.0", ".cross_attn.proj"),
    (r"^caption_projection\.linear_", "y_embedder.y_proj.fc"),
    (r"^proj_out", "final_layer.linear"),
    (r"^scale_shift_table", "final_layer.scale_shift_table"),
    (r".*timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r".*timestep_embedder\.linear_2", "t_embedder.mlp.2"),
)
_SANA = (
    (r"^patch_embed\.proj", "x_embedder.proj"),
    (r"^time_embed\.linear", "t_block.1"),
    (r"^caption_norm", "attention_y_norm"),
    (r"\.ff\.conv_inverted", ".mlp.inverted_conv.conv"),
    (r"\.ff\.conv_depth", ".mlp.depth_conv.conv"),
    (r"\.ff\.conv_point", ".mlp.point_conv.conv"),
    *_DIT,
)
_PIXART = (
    (r"^pos_embed\.proj", "x_embedder.proj"),
    (r"^adaln_single\.linear", "t_block.1"),
    (r".*resolution_embedder\.linear_1", "csize_embedder.mlp.0"),
    (r".*resolution_embedder\.linear_2", "csize_embedder.mlp.2"),
    (r".*aspect_ratio_embedder\.linear_1", "ar_embedder.mlp.0"),
    (r".*aspect_ratio_embedder\.linear_2", "ar_embedder.mlp.2"),
    (r"\.ff\.net\.0\.proj", ".mlp.fc1"),
    (r"\.ff\.net\.2", ".mlp.fc2"),
    *_DIT,
)
_RESNET = (
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)

RENAMED = {
    "SD3Transformer2DModel": _SD3_NAMES,
    "FluxTransformer2DModel": _FLUX,
    "Flux2Transformer2DModel": _FLUX2,
    "ChromaTransformer2DModel": _CHROMA,
    "QwenImageTransformer2DModel": (),
    "ZImageTransformer2DModel": _Z_IMAGE,
    "Lumina2Transformer2DModel": _LUMINA2,
    "SanaTransformer2DModel": _SANA,
    "PixArtTransformer2DModel": _PIXART,
}
"""How a class's names become those of the authors; names that become one are one fused tensor."""


def diffusers_shapes(class_name: str, **configuration: Any) -> Shapes:
    """Names and shapes of a class of diffusers' or transformers', without making any weights."""
    import diffusers
    import transformers
    from accelerate import init_empty_weights

    # Buffers too, or the tables of positions would be computed.
    with warnings.catch_warnings(), init_empty_weights(include_buffers=True):
        warnings.simplefilter("ignore")  # some classes use outdated names of diffusers' own
        if hasattr(diffusers, class_name):
            module = getattr(diffusers, class_name)(**configuration)
        else:
            config = transformers.CLIPTextConfig(**configuration)
            module = getattr(transformers, class_name)(config)
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@cache
def published_shapes(model: str) -> Shapes:
    """The denoiser of a published model as diffusers saves it."""
    class_name, configuration = PUBLISHED[model]
    return diffusers_shapes(class_name, **configuration)


def original_shapes(model: str) -> Shapes:
    """The denoiser of a published model as its authors released it, without any prefix."""
    class_name, _ = PUBLISHED[model]
    shapes = published_shapes(model)
    if class_name == "UNet2DConditionModel":
        return {ldm_name(name): shape for name, shape in shapes.items()}
    renamed = _fused(shapes, RENAMED[class_name])
    if class_name == "SanaTransformer2DModel":
        renamed |= {"pos_embed": (1, 1024, 2240), "y_embedder.y_embedding": (300, 2304)}
    return renamed


def ldm_name(name: str) -> str:
    """A UNet's tensor by its name in the authors' checkpoints, with two residual blocks per level."""
    for start, new in (
        ("conv_in.", "input_blocks.0.0."), ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."), ("add_embedding.linear_1.", "label_emb.0.0."),
        ("add_embedding.linear_2.", "label_emb.0.2."), ("conv_norm_out.", "out.0."), ("conv_out.", "out.2."),
    ):  # fmt: skip
        if name.startswith(start):
            return new + name.removeprefix(start)
    side, *rest = name.split(".")
    if side == "mid_block":
        kind, index, *inner = rest
        place = "middle_block." + ("1" if kind == "attentions" else str(2 * int(index)))
    else:
        level, kind, index, *inner = rest
        number = int(level) * 3 + int(index)
        if kind == "downsamplers":
            place, inner = f"input_blocks.{int(level) * 3 + 3}.0.op", inner[1:]
        elif kind == "upsamplers":
            place = f"output_blocks.{int(level) * 3 + 2}.2"
        else:
            block = f"input_blocks.{number + 1}" if side == "down_blocks" else f"output_blocks.{number}"
            place = f"{block}.{1 if kind == 'attentions' else 0}"
    found = ".".join([place, *inner])
    return renamed_by(found, _RESNET) if kind == "resnets" else found


def write_header(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16", metadata: Mapping[str, str] | None = None
) -> Path:
    """A safetensors file with these tensors, all zero; its body is a hole in the file."""
    width = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1}[dtype]
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        size = prod(shape) * width
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def prefixed(shapes: Shapes, prefix: str) -> Shapes:
    """The same tensors with a prefix before each name."""
    return {prefix + name: shape for name, shape in shapes.items()}


def _fused(shapes: Shapes, rules: tuple[tuple[str, str], ...]) -> Shapes:
    fused: Shapes = {}
    for name, shape in shapes.items():
        new = renamed_by(name, rules)
        fused[new] = (fused[new][0] + shape[0], *shape[1:]) if new in fused else shape
    return fused


def renamed_by(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    """A tensor's name after all of the rules, in their order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
