"""The table by which denoisers are recognised: combinations of tensor names that only one of them has.

The names are those of the published weights: `original` as their authors released them and ComfyUI keeps them,
`diffusers` as diffusers saves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Signature:
    """Keys that only this denoiser has together; `blocks` is counted, `width` is the tensor that tells the width."""

    family: str
    label: str
    layout: Literal["original", "diffusers"]
    needs: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    blocks: str = "transformer_blocks"
    width: str = "transformer_blocks.0.attn.to_q.weight"


_CONTROL = "controlnet_x_embedder.weight"

SIGNATURES = (
    Signature(
        "sd15", "Stable Diffusion UNet", "original",
        ("input_blocks.0.0.weight", "time_embed.0.weight", "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
         "output_blocks.0.0.in_layers.0.weight"),
        blocks="output_blocks", width="middle_block.1.transformer_blocks.0.attn2.to_k.weight",
    ),
    Signature(
        "sd15", "Stable Diffusion UNet", "diffusers",
        ("conv_in.weight", "time_embedding.linear_1.weight", "down_blocks.0.resnets.0.conv1.weight",
         "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", "up_blocks.0.resnets.0.conv1.weight"),
        blocks="up_blocks", width="mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    ),
    Signature(
        "sd3", "Stable Diffusion 3", "original",
        ("joint_blocks.0.x_block.attn.qkv.weight", "joint_blocks.0.context_block.adaLN_modulation.1.bias",
         "x_embedder.proj.weight", "context_embedder.weight", "pos_embed"),
        lacks=("controlnet_blocks.0.weight",), blocks="joint_blocks", width="joint_blocks.0.x_block.attn.qkv.weight",
    ),
    Signature(
        "sd3", "Stable Diffusion 3", "diffusers",
        ("transformer_blocks.0.attn.add_k_proj.weight", "transformer_blocks.0.norm1_context.linear.weight",
         "pos_embed.proj.weight", "time_text_embed.text_embedder.linear_1.weight", "context_embedder.weight"),
        lacks=("single_transformer_blocks.0.attn.to_q.weight", "controlnet_blocks.0.weight"),
    ),
    Signature(
        "flux", "FLUX.1", "original",
        ("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight", "vector_in.in_layer.weight",
         "img_in.weight", "final_layer.linear.weight"),
        lacks=("distilled_guidance_layer.in_proj.weight", "double_stream_modulation_img.lin.weight",
               "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias"),
        blocks="double_blocks", width="double_blocks.0.img_attn.qkv.weight",
    ),
    Signature(
        "flux", "FLUX.1", "diffusers",
        ("transformer_blocks.0.attn.add_q_proj.weight", "single_transformer_blocks.0.proj_mlp.weight",
         "time_text_embed.text_embedder.linear_1.weight", "context_embedder.weight", "x_embedder.weight"),
        lacks=(_CONTROL, "distilled_guidance_layer.in_proj.weight"),
    ),
    Signature(
        "flux2_klein", "FLUX.2 klein", "original",
        ("double_stream_modulation_img.lin.weight", "single_stream_modulation.lin.weight",
         "double_blocks.0.img_attn.qkv.weight", "img_in.weight"),
        blocks="double_blocks", width="double_blocks.0.img_attn.qkv.weight",
    ),
    Signature(
        "flux2_klein", "FLUX.2 klein", "diffusers",
        ("double_stream_modulation_img.linear.weight", "single_stream_modulation.linear.weight",
         "single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight", "x_embedder.weight"),
    ),
    Signature(
        "chroma", "Chroma", "original",
        ("distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight",
         "single_blocks.0.linear1.weight", "img_in.weight", "final_layer.linear.weight"),
        blocks="double_blocks", width="double_blocks.0.img_attn.qkv.weight",
    ),
    Signature(
        "chroma", "Chroma", "diffusers",
        ("distilled_guidance_layer.in_proj.weight", "transformer_blocks.0.attn.add_q_proj.weight",
         "single_transformer_blocks.0.proj_mlp.weight", "x_embedder.weight"),
    ),
    Signature(
        "qwen_image", "Qwen-Image", "diffusers",
        ("transformer_blocks.0.img_mod.1.weight", "transformer_blocks.0.txt_mlp.net.0.proj.weight",
         "txt_norm.weight", "img_in.weight", "norm_out.linear.weight"),
        lacks=(_CONTROL, "time_text_embed.addition_t_embedding.weight"),
    ),
    Signature(
        "z_image", "Z-Image", "original",
        ("layers.0.adaLN_modulation.0.weight", "layers.0.attention.qkv.weight", "noise_refiner.0.attention.qkv.weight",
         "cap_embedder.0.weight", "x_embedder.weight"),
        lacks=("siglip_embedder.0.weight",), blocks="layers", width="layers.0.attention.qkv.weight",
    ),
    Signature(
        "z_image", "Z-Image", "diffusers",
        ("layers.0.adaLN_modulation.0.weight", "layers.0.attention.to_q.weight", "cap_embedder.0.weight",
         "all_x_embedder.2-1.weight"),
        lacks=("siglip_embedder.0.weight",), blocks="layers", width="layers.0.attention.to_q.weight",
    ),
    Signature(
        "lumina2", "Lumina-Image 2.0", "original",
        ("layers.0.adaLN_modulation.1.weight", "layers.0.attention.qkv.weight", "noise_refiner.0.attention.qkv.weight",
         "cap_embedder.0.weight", "x_embedder.weight"),
        blocks="layers", width="layers.0.attention.qkv.weight",
    ),
    Signature(
        "lumina2", "Lumina-Image 2.0", "diffusers",
        ("time_caption_embed.caption_embedder.0.weight", "layers.0.attn.to_q.weight",
         "noise_refiner.0.attn.to_q.weight", "x_embedder.weight"),
        lacks=("ref_image_patch_embedder.weight",), blocks="layers", width="layers.0.attn.to_q.weight",
    ),
    Signature(
        "sana", "Sana", "original",
        ("blocks.0.cross_attn.q_linear.weight", "blocks.0.mlp.inverted_conv.conv.weight", "attention_y_norm.weight",
         "y_embedder.y_proj.fc1.weight", "x_embedder.proj.weight"),
        lacks=("plucker_embedder.proj.weight",), blocks="blocks", width="blocks.0.attn.qkv.weight",
    ),
    Signature(
        "sana", "Sana", "diffusers",
        ("transformer_blocks.0.ff.conv_inverted.weight", "transformer_blocks.0.attn2.to_k.weight",
         "caption_norm.weight", "patch_embed.proj.weight", "time_embed.linear.weight"),
        lacks=("controlnet_blocks.0.weight", "time_embed.guidance_embedder.linear_1.weight"),
        width="transformer_blocks.0.attn1.to_q.weight",
    ),
    Signature(
        "pixart_sigma", "PixArt-Sigma", "original",
        ("blocks.0.cross_attn.q_linear.weight", "blocks.0.mlp.fc1.weight", "t_block.1.weight",
         "y_embedder.y_proj.fc1.weight", "x_embedder.proj.weight"),
        lacks=("csize_embedder.mlp.0.weight",), blocks="blocks", width="blocks.0.attn.qkv.weight",
    ),
    Signature(
        "pixart_sigma", "PixArt-Sigma", "diffusers",
        ("adaln_single.emb.timestep_embedder.linear_1.weight", "pos_embed.proj.weight",
         "caption_projection.linear_1.weight", "transformer_blocks.0.attn2.to_k.weight",
         "transformer_blocks.0.ff.net.0.proj.weight"),
        lacks=("adaln_single.emb.resolution_embedder.linear_1.weight",
               "temporal_transformer_blocks.0.attn1.to_q.weight"),
        width="transformer_blocks.0.attn1.to_q.weight",
    ),
)  # fmt: skip

OTHERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Playground 2.5", ("edm_mean",)),
    ("Stable Cascade", ("clip_txt_mapper.weight", "down_blocks.1.0.channelwise.0.weight")),
    ("Stable Video Diffusion", ("input_blocks.1.0.time_stack.in_layers.0.weight",)),
    ("an AnimateDiff motion module", (
        "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
        "down_blocks.0.motion_modules.0.norm.weight",
    )),
    ("Kolors", ("encoder_hid_proj.weight",)),
    ("AuraFlow", ("double_layers.0.attn.w2q.weight", "joint_transformer_blocks.0.attn.to_q.weight")),
    ("FLUX.3", ("early_stream_modulations.image.lin.weight", "early_stream_modulations.image.linear.weight")),
    ("Chroma Radiance", ("nerf_blocks.0.param_generator.weight", "img_in_patch.weight")),
    ("HunyuanImage", ("byt5_in.fc1.weight",)),
    ("HunyuanVideo", ("txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias",)),
    ("HunyuanDiT", ("mlp_t5.0.weight",)),
    ("HiDream", ("double_stream_blocks.0.block.adaLN_modulation.1.bias",)),
    ("LTX-Video", ("patchify_proj.weight",)),
    ("Wan", ("head.modulation",)),
    ("Mochi", ("blocks.0.attn.qkv_x.weight",)),
    ("Cosmos", ("net.x_embedder.proj.1.weight",)),
    ("Qwen-Image 2.1", ("txt_in.text_norm.weight",)),
    ("Qwen-Image Layered", ("time_text_embed.addition_t_embedding.weight",)),
    ("Krea 2", ("txtfusion.projector.weight",)),
    ("Z-Image Omni", ("siglip_embedder.0.weight",)),
    ("OmniGen 2", ("ref_image_patch_embedder.weight",)),
    ("Sana Sprint", ("time_embed.guidance_embedder.linear_1.weight",)),
    ("PixArt-Alpha", ("csize_embedder.mlp.0.weight", "adaln_single.emb.resolution_embedder.linear_1.weight")),
)  # fmt: skip
"""Models that are known by a key of theirs, so that a refusal can name them."""
