"""Pipelines that are in no family and encode their texts themselves, against the plain call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_tokenizers
import torch
from tiny_requests import request_for

from pipeline.generation.generate import generate_batch
from pipeline.loading.load import load
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Kandinsky 3."""
    from diffusers import DDPMScheduler, Kandinsky3Pipeline, Kandinsky3UNet, VQModel
    from tiny_transformers import _t5_encoder

    torch.manual_seed(0)
    pipe = Kandinsky3Pipeline(
        tokenizer=tiny_tokenizers.t5(),
        text_encoder=_t5_encoder(),
        unet=Kandinsky3UNet(
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            layers_per_block=3,
            block_out_channels=(32, 64),
            cross_attention_dim=4,
            encoder_hid_dim=32,
        ),
        scheduler=DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2"),
        movq=VQModel(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32,) * 4,
            latent_channels=4,
            norm_num_groups=8,
            norm_type="spatial",
            num_vq_embeddings=12,
            vq_embed_dim=4,
        ),
    )
    folder = tmp_path_factory.mktemp("k3") / "kandinsky3"
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load(identify(str(folder))[0], MemorySettings(), "cpu")


def request(model: LoadedModel, negative_prompt: str, seed: int = 1) -> ImageRequest:
    return request_for(
        model, seed=seed, negative_prompt=negative_prompt, width=64, height=64, steps=2, scheduler="DDPMScheduler"
    )


def plainly(folder: Path, one: ImageRequest, **texts: Any) -> Any:
    import diffusers

    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    (picture,) = pipe(
        one.prompt,
        num_inference_steps=one.steps,
        guidance_scale=one.guidance_scale,
        width=one.width,
        height=one.height,
        generator=torch.Generator("cpu").manual_seed(one.seed),
        output_type="np",
        **texts,
    ).images
    return (picture * 255).round()


@pytest.mark.parametrize("negative_prompt", ["", "fog"])
def test_no_negative_prompt_is_none_to_the_pipeline(model: LoadedModel, folder: Path, negative_prompt: str) -> None:
    """Kandinsky 3 takes zeros for none, and encodes an empty text."""
    one = request(model, negative_prompt)
    (made,) = generate_batch(model, [one], remember=False)
    assert isinstance(made, GeneratedImage), made
    plain = plainly(folder, one, **({"negative_prompt": negative_prompt} if negative_prompt else {}))
    assert np.abs(made.pixels - plain).max() <= 1
    if not negative_prompt:
        assert np.abs(plainly(folder, one, negative_prompt="") - plain).max() > 1


def test_pictures_with_and_without_a_negative_prompt_are_made_apart(model: LoadedModel) -> None:
    requests = [request(model, text, seed) for seed, text in enumerate(("", "fog", ""))]
    made = generate_batch(model, requests, remember=False)
    for one, image in zip(requests, made, strict=True):
        (alone,) = generate_batch(model, [one], remember=False)
        assert isinstance(image, GeneratedImage) and isinstance(alone, GeneratedImage)
        assert np.abs(image.pixels.astype(int) - alone.pixels).max() <= 1
