"""Tiny diffusers folders with real architectures and random weights, made on the spot.

python tests/tiny_models.py FOLDER writes all of `FOLDERS`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

TOKENS = 32
"""Length of the text encoders' input."""

FOLDERS = ("sd", "sdxl", "sd_nan", "sd_black")


def write_all(folder: Path) -> None:
    """One of each."""
    write_tiny_sd(folder / "sd")
    write_tiny_sdxl(folder / "sdxl")
    write_broken_vae(folder / "sd", folder / "sd_nan", value=float("nan"))
    write_broken_vae(folder / "sd", folder / "sd_black", value=-10.0)


def write_tokenizer(folder: Path) -> None:
    """A byte-level CLIP tokenizer without merges: every character of ASCII is a piece of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = [chr(code) for code in range(33, 127)]
    words = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "CLIPTokenizer",
                "model_max_length": TOKENS,
                "bos_token": "<|startoftext|>",
                "eos_token": "<|endoftext|>",
                "unk_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>",
            }
        )
    )


def write_tiny_sd(folder: Path, *, seed: int = 0, v_prediction: bool = False) -> Path:
    """A Stable Diffusion folder (UNet, AutoencoderKL, CLIP) of under 2 MB that makes 32 x 32 pictures of noise."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    write_tokenizer(folder / "tokenizer")
    pipe = StableDiffusionPipeline(
        unet=_unet(cross_attention_dim=32),
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config()),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
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
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(seed)
    for name in ("tokenizer", "tokenizer_2"):
        write_tokenizer(folder / name)
    pipe = StableDiffusionXLPipeline(
        unet=_unet(
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=1,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        ),
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(projection_dim=32)),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
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


def _text_config(**options: Any) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=190,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=188,
        eos_token_id=189,
        pad_token_id=189,
        **options,
    )


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
