"""Adapters through whole bundles: encoded, denoised and decoded as in a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapter_files import layers_of, write_controlnet, write_ip_adapter, write_lora, write_picture, write_tensors
from offload_files import unreadable

from pipeline.adapters.apply import apply
from pipeline.adapters.identify_controlnet import identify_controlnet
from pipeline.adapters.identify_ip_adapter import identify_ip_adapter
from pipeline.adapters.identify_lora import identify_lora
from pipeline.adapters.reference_images import identify_init
from pipeline.adapters.specs import ControlNetSpec, EmbeddingSpec, IpAdapterSpec, LoraSpec
from pipeline.adapters.textual_inversion import identify_embedding
from pipeline.errors import JobFailure
from pipeline.generation.generate import generate_batch, generate_bundle
from pipeline.memory.device.apply import apply_memory, release_model
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import NO_ADAPTERS, Adapters, GeneratedImage, ImageRequest

pytestmark = pytest.mark.slow


def request_for(model: LoadedModel, adapters: Adapters = NO_ADAPTERS, seed: int = 1, **values: Any) -> ImageRequest:
    request = ImageRequest(
        prompt="a red <cat>", negative_prompt="fog", seed=seed, steps=4, guidance_scale=5.0, width=32, height=32,
        scheduler="Euler" if model.files.family in ("sd15", "sdxl") else "FlowMatch Euler", clip_skip=None,
        model=model.settings, memory=model.memory, adapters=adapters,
    )  # fmt: skip
    return replace(request, **values)


def images(model: LoadedModel, batches: Sequence[Sequence[ImageRequest]]) -> list[GeneratedImage]:
    outcomes = dict(generate_bundle(model, batches))
    assert all(isinstance(outcome, GeneratedImage) for outcome in outcomes.values()), outcomes
    return [outcomes[place] for place in sorted(outcomes)]  # type: ignore[misc]


@pytest.fixture
def everything(sd: LoadedModel, tmp_path: Path) -> dict[str, Adapters]:
    """One of each kind for the tiny SD model, alone and together."""
    import torch

    files, picture = sd.files, str(write_picture(tmp_path / "house.png"))
    lora = write_lora(tmp_path / "style.safetensors", layers_of(sd.pipe, "unet", "text_encoder"))
    word = write_tensors(tmp_path / "cat.safetensors", **{"<cat>": torch.ones(1, 32)})
    controlnet = write_controlnet(tmp_path / "edges", sd.pipe.unet)
    ip_adapter = write_ip_adapter(tmp_path / "ip", sd.pipe.unet)
    alone = {
        "lora": Adapters(loras=(identify_lora(LoraSpec(lora, 0.8), files),)),
        "embedding": Adapters(embeddings=(identify_embedding(EmbeddingSpec(word, "<cat>"), files),)),
        "controlnet": Adapters(controlnets=(identify_controlnet(ControlNetSpec(controlnet, picture, "canny"), files),)),
        "ip_adapter": Adapters(ip_adapters=(identify_ip_adapter(IpAdapterSpec(ip_adapter, picture), files),)),
        "init": Adapters(init=identify_init(picture, 0.75, files)),
    }
    together = Adapters(
        alone["lora"].loras, alone["embedding"].embeddings, alone["controlnet"].controlnets,
        alone["ip_adapter"].ip_adapters, alone["init"].init,
    )  # fmt: skip
    return {"none": NO_ADAPTERS, **alone, "together": together}


def test_each_kind_makes_another_picture_and_none_is_as_before(
    sd: LoadedModel, everything: dict[str, Adapters]
) -> None:
    made = {
        name: images(sd, [[request_for(sd, adapters), request_for(sd, adapters, seed=2)]])
        for name, adapters in everything.items()
    }
    assert len({two[0].pixels.tobytes() for two in made.values()}) == len(everything)
    assert made["together"][0].pipeline_class == "StableDiffusionControlNetImg2ImgPipeline"
    assert made["lora"][0].lora_matches[0].matched > 20 and made["none"][0].lora_matches == ()
    assert {two[0].noise_shape for two in made.values()} == {(1, 4, 16, 16)}
    for name, adapters in reversed(everything.items()):
        (again,) = generate_batch(sd, [request_for(sd, adapters, seed=2)])
        assert isinstance(again, GeneratedImage) and again.noise_sha256 == made[name][1].noise_sha256, name
        difference = np.abs(again.pixels.astype(int) - made[name][1].pixels.astype(int))
        assert difference.max() <= 1, name  # alone or in a batch


SLOWER = [("staged", "drop_encoders"), ("staged",), ("model_offload",), ("drop_encoders", "resident_blocks")]


@pytest.mark.parametrize(
    "techniques",
    [
        ("leaf_offload", "disk_offload"),
        *(pytest.param(techniques, marks=pytest.mark.campaign) for techniques in SLOWER),
    ],
)
def test_exact_memory_techniques_change_nothing(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], everything: dict[str, Adapters], techniques: tuple[str, ...]
) -> None:
    held = load_tiny("sd15", techniques=techniques)
    batches = [[request_for(sd, adapters)] for adapters in everything.values()]
    expected = images(sd, batches)
    for _ in range(2):  # the second time with prompts from the cache
        for name, plain, other in zip(everything, expected, images(held, batches), strict=True):
            np.testing.assert_array_equal(other.pixels, plain.pixels, err_msg=name)
            assert other.lora_matches == plain.lora_matches


@pytest.mark.parametrize(("kind", "unread"), [("lora", ""), ("ip_adapter", ""), ("embedding", "unet")])
def test_adapters_come_to_what_waits_on_disk_without_reading_it(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], everything: dict[str, Adapters], kind: str, unread: str
) -> None:
    held = load_tiny("sd15", techniques=("leaf_offload", "disk_offload"))
    with unreadable(unread):
        apply(held, everything[kind])
    for adapters in (everything[kind], NO_ADAPTERS):
        ((plain,), (other,)) = (images(model, [[request_for(model, adapters)]]) for model in (sd, held))
        np.testing.assert_array_equal(other.pixels, plain.pixels)


def test_a_file_that_vanishes_costs_only_its_own_pictures(sd: LoadedModel, everything: dict[str, Adapters]) -> None:
    lora = everything["lora"]
    Path(lora.loras[0].source).unlink()
    outcomes = dict(generate_bundle(sd, [[request_for(sd, lora)], [request_for(sd)]]))
    assert isinstance(outcomes[0], JobFailure) and "style.safetensors is gone" in str(outcomes[0])
    assert isinstance(outcomes[1], GeneratedImage)


def test_a_model_given_back_to_the_pool_carries_nothing(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], everything: dict[str, Adapters]
) -> None:
    from pipeline.loading.load import load

    (expected,) = images(sd, [[request_for(sd)]])
    images(sd, [[request_for(sd, everything["together"])]])
    pool, settings, loads = sd.pool, sd.settings, sd.pool.loads
    release_model(sd)
    again = load(settings, sd.memory, "cpu", pool=pool)
    assert pool.loads == loads and not any("lora" in name for name, _ in again.pipe.unet.named_modules())
    np.testing.assert_array_equal(images(again, [[request_for(again)]])[0].pixels, expected.pixels)


def test_a_component_given_back_in_between_carries_nothing(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], everything: dict[str, Adapters]
) -> None:

    apply(sd, everything["together"])
    unet = sd.pipe.unet
    apply_memory(sd, replace(sd.memory, techniques=("denoiser_int8",)))
    assert sd.pipe.unet is not unet
    assert not any("lora" in name for name, _ in unet.named_modules()) and unet.encoder_hid_proj is None


def test_a_denoiser_rebuilt_in_between_gets_its_lora_again(sd: LoadedModel, everything: dict[str, Adapters]) -> None:

    (expected,) = images(sd, [[request_for(sd, everything["lora"])]])
    apply_memory(sd, replace(sd.memory, techniques=("denoiser_int8",)))
    (lossy,) = images(sd, [[request_for(sd, everything["lora"])]])
    assert lossy.lora_matches == expected.lora_matches and lossy.memory.uses("denoiser_int8")
    apply_memory(sd, replace(sd.memory, techniques=()))
    np.testing.assert_array_equal(images(sd, [[request_for(sd, everything["lora"])]])[0].pixels, expected.pixels)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux", "qwen_image", "z_image", "chroma"])
def test_image_to_image_of_other_families(load_tiny: Callable[..., LoadedModel], family: str, tmp_path: Path) -> None:
    model = load_tiny(family)
    start = identify_init(str(write_picture(tmp_path / "a.png")), 0.5, model.files)
    adapters = Adapters(init=start)
    two = images(model, [[request_for(model, adapters), request_for(model, adapters, seed=2)]])
    (alone,) = images(model, [[request_for(model, adapters, seed=2)]])
    assert two[1].noise_sha256 == alone.noise_sha256 != two[0].noise_sha256
    assert np.abs(two[1].pixels.astype(int) - alone.pixels.astype(int)).max() <= 1
    (other,) = images(model, [[request_for(model, seed=2)]])
    assert np.abs(other.pixels.astype(int) - alone.pixels.astype(int)).max() > 2
