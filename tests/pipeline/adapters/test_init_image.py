"""Image-to-image: what a picture and its strength do, in every family that has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from adapter_files import write_controlnet, write_picture, write_transformer_controlnet
from direct_calls import pictures

from pipeline.adapters.identify import check_adapters
from pipeline.adapters.identify_controlnet import CONTROLNET_CLASSES, identify_controlnet
from pipeline.adapters.reference_images import identify_init
from pipeline.adapters.specs import ControlNetSpec
from pipeline.errors import ModelError
from pipeline.memory.device.loaded_components import used_while_denoising
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import Adapters


def start(model: LoadedModel, image: Path, strength: float = 0.5) -> Adapters:
    return Adapters(init=identify_init(str(image), strength, model.files))


@pytest.fixture
def house(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "house.png")


@pytest.mark.slow
def test_less_strength_leaves_more_of_the_picture(sd: LoadedModel, house: Path) -> None:
    made = {strength: pictures(sd, start(sd, house, strength), steps=10) for strength in (0.2, 0.5, 1.0)}
    assert all(np.abs(made[a] - made[b]).max() > 1e-3 for a, b in ((0.2, 0.5), (0.5, 1.0)))
    assert used_while_denoising(sd) == [sd.pipe.vae]
    base = pictures(sd, steps=10)
    np.testing.assert_array_equal(pictures(sd, start(sd, house, 0.5), steps=10), made[0.5])
    np.testing.assert_array_equal(pictures(sd, steps=10), base)


def test_another_picture_makes_another_picture(sd: LoadedModel, house: Path, tmp_path: Path) -> None:
    boat = write_picture(tmp_path / "boat.png", seed=1)
    assert np.abs(pictures(sd, start(sd, house)) - pictures(sd, start(sd, boat))).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux", "qwen_image", "z_image", "chroma"])
def test_a_picture_does_not_depend_on_its_batch_and_can_be_made_again(
    load_tiny: Callable[..., LoadedModel], family: str, house: Path
) -> None:
    model = load_tiny(family)
    adapters = start(model, house, 0.6)
    batch = pictures(model, adapters, seeds=(1, 2), steps=4)
    assert np.abs(batch[0] - batch[1]).max() > 1e-3
    np.testing.assert_array_equal(pictures(model, adapters, seeds=(1, 2), steps=4), batch)
    np.testing.assert_allclose(pictures(model, adapters, seeds=(2,), steps=4)[0], batch[1], atol=1e-4)
    assert np.abs(pictures(model, seeds=(1,), steps=4)[0] - batch[0]).max() > 1e-3


def test_together_with_a_controlnet(sd: LoadedModel, house: Path, tmp_path: Path) -> None:
    folder = write_controlnet(tmp_path / "edges", sd.pipe.unet)
    controlnet = identify_controlnet(ControlNetSpec(folder, house, "canny"), sd.files)
    init = start(sd, house).init
    alone = pictures(sd, Adapters(init=init), steps=4)
    both = pictures(sd, Adapters(init=init, controlnets=(controlnet,)), steps=4)
    assert np.abs(alone - both).max() > 1e-3
    assert set(sd.views) == {"StableDiffusionImg2ImgPipeline", "StableDiffusionControlNetImg2ImgPipeline"}


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_other_families_take_both(
    load_tiny: Callable[..., LoadedModel], family: str, house: Path, tmp_path: Path
) -> None:
    model = load_tiny(family)
    if family == "sdxl":
        folder = write_controlnet(tmp_path / "c", model.pipe.unet)
    else:
        folder = write_transformer_controlnet(tmp_path / "c", CONTROLNET_CLASSES[family], model.pipe.transformer)
    controlnet = identify_controlnet(ControlNetSpec(folder, house), model.files)
    init = start(model, house).init
    both = pictures(model, Adapters(init=init, controlnets=(controlnet,)), steps=4)
    assert np.abs(both - pictures(model, Adapters(init=init), steps=4)).max() > 1e-3
    np.testing.assert_array_equal(pictures(model, Adapters(init=init, controlnets=(controlnet,)), steps=4), both)


def test_sdxl_leaves_its_vae_in_float32(load_tiny: Callable[..., LoadedModel], house: Path) -> None:
    import torch

    model = load_tiny("sdxl", dtype="bfloat16")
    vae = model.pipe.vae.to(torch.float32)
    vae.register_to_config(force_upcast=True)
    weights = vae.encoder.conv_in.weight.clone()
    pictures(model, start(model, house), steps=4, output_type="latent")
    assert vae.dtype == torch.float32
    torch.testing.assert_close(vae.encoder.conv_in.weight, weights, rtol=0, atol=0)
    assert "to" not in vars(vae)


def test_families_without_image_to_image_are_named(load_tiny: Callable[..., LoadedModel], house: Path) -> None:
    for family, label in (("sana", "Sana"), ("pixart_sigma", "PixArt-Sigma")):
        with pytest.raises(ModelError, match=f"diffusers has no image-to-image for {label}; it has for: Stable"):
            start(load_tiny(family), house)


def test_what_does_not_go_together_is_named(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], house: Path, tmp_path: Path
) -> None:
    folder = write_controlnet(tmp_path / "edges", sd.pipe.unet)
    controlnet = identify_controlnet(ControlNetSpec(folder, house), sd.files)
    both = Adapters(init=start(sd, house, 0.1).init, controlnets=(controlnet,))
    assert check_adapters(both, sd.files) == []
    assert check_adapters(both, sd.files, steps=9) == [
        "init image: strength 0.1 of 9 steps leaves none; raise strength or steps"
    ]
    assert check_adapters(both, sd.files, steps=10) == []
    assert check_adapters(both, load_tiny("sd3").files) == [
        "diffusers has no pipeline for Stable Diffusion 3.5 that takes an init image and a ControlNet; leave one out"
    ]
