"""Tiny diffusers folders with real architectures and random weights, made on the spot.

python tests/tiny_models.py FOLDER writes all of `FOLDERS`. `write_tiny` writes any family.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import tiny_transformers
from tiny_tokenizers import write_clip
from tiny_transformers import clip_config

FOLDERS = ("sd", "sdxl", "sd_nan", "sd_black")


def write_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """A model of a family of `pipeline.weights.families` of under 3 MB, in its own kind of folder."""
    import torch

    if family in ("sd15", "sdxl"):
        return (write_tiny_sd if family == "sd15" else write_tiny_sdxl)(folder, seed=seed)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Chroma builds a class of diffusers that is on its way out
        pipe = getattr(tiny_transformers, family)(folder)
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def write_all(folder: Path) -> None:
    """One of each."""
    write_tiny_sd(folder / "sd")
    write_tiny_sdxl(folder / "sdxl")
    write_broken_vae(folder / "sd", folder / "sd_nan", value=float("nan"))
    write_broken_vae(folder / "sd", folder / "sd_black", value=-10.0)


def write_tiny_sd(folder: Path, *, seed: int = 0, v_prediction: bool = False) -> Path:
    """A Stable Diffusion folder (UNet, AutoencoderKL, CLIP) of under 2 MB that makes 32 x 32 pictures of noise."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    pipe = StableDiffusionPipeline(
        unet=_unet(cross_attention_dim=32),
        vae=_vae(),
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=write_clip(folder / "tokenizer"),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            steps_offset=1,
            prediction_type="v_prediction" if v_prediction else "epsilon",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def write_tiny_sdxl(folder: Path, *, seed: int = 0) -> Path:
    """An SDXL folder: two text encoders, pooled embeddings and size conditioning, 32 x 32 pictures of noise."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    pipe = StableDiffusionXLPipeline(
        unet=_unet(
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=1,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        ),
        vae=_vae(),
        text_encoder=CLIPTextModel(clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(clip_config(projection_dim=32)),
        tokenizer=write_clip(folder / "tokenizer"),
        tokenizer_2=write_clip(folder / "tokenizer_2"),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            timestep_spacing="leading",
            steps_offset=1,
        ),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def write_checked_sd(source: Path, folder: Path, *, flags: bool) -> Path:
    """A copy with a safety checker that finds something in every picture, or in none."""
    import json

    import torch
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    shutil.copytree(source, folder)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={**size, "image_size": 32, "patch_size": 16, "projection_dim": 8}, projection_dim=8
    )
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.fill_(-2.0 if flags else 2.0)  # against cosines
    checker.special_care_embeds_weights.fill_(2.0)
    checker.save_pretrained(folder / "safety_checker", safe_serialization=True)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder / "feature_extractor")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_broken_vae(source: Path, folder: Path, *, value: float) -> Path:
    """A copy whose decoder ends in `value`: NaN, or so low that every picture is black."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_out.weight"] = torch.zeros_like(tensors["decoder.conv_out.weight"])
    tensors["decoder.conv_out.bias"] = torch.full_like(tensors["decoder.conv_out.bias"], value)
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def _unet(**options: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
        **options,
    )


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        latent_channels=4,
    )


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
