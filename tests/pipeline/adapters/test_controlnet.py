"""ControlNets: one or several, with pictures as they are or reduced to edges, and what is refused."""

from __future__ import annotations

import gc
import importlib.util
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapter_files import write_controlnet, write_picture, write_transformer_controlnet
from direct_calls import pictures
from families import a_few

from pipeline.adapters.apply import apply
from pipeline.adapters.identify import check_adapters
from pipeline.adapters.identify_controlnet import CONTROLNET_CLASSES, identify_controlnet
from pipeline.adapters.pipeline_views import view
from pipeline.adapters.reference_images import control_image
from pipeline.adapters.specs import ControlNetSpec
from pipeline.errors import JobFailure, ModelError
from pipeline.memory.device.loaded_components import used_while_denoising
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.technique_functions import resident_bytes
from pipeline.memory.planning.estimate import OVERHEAD, Shape
from pipeline.request import NO_ADAPTERS, Adapters, MemorySettings
from pipeline.weights.inspection import inspect_file


@pytest.fixture
def edges(sd: LoadedModel, tmp_path: Path) -> Path:
    return write_controlnet(tmp_path / "edges", sd.pipe.unet)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "house.png")


def one(model: LoadedModel, folder: Path, image: Path, **values: Any) -> Any:
    return identify_controlnet(ControlNetSpec(folder, image, **values), model.files)


@pytest.mark.slow
def test_a_controlnet_steers_by_its_strength(sd: LoadedModel, edges: Path, picture: Path) -> None:
    base = pictures(sd)
    weak, strong = (pictures(sd, Adapters(controlnets=(one(sd, edges, picture, strength=s),))) for s in (0.3, 1.0))
    assert np.abs(weak - base).max() > 1e-3 and np.abs(weak - strong).max() > 1e-3
    none = pictures(sd, Adapters(controlnets=(one(sd, edges, picture, strength=0.0),)))
    np.testing.assert_array_equal(none, base)
    np.testing.assert_array_equal(pictures(sd), base)


def test_the_same_picture_as_plain_diffusers(sd: LoadedModel, edges: Path, picture: Path) -> None:
    import diffusers
    import torch
    from PIL import Image, ImageOps

    ours = pictures(sd, Adapters(controlnets=(one(sd, edges, picture, strength=0.8),)))
    plain = diffusers.ControlNetModel.from_pretrained(edges).requires_grad_(False)
    pipe = diffusers.StableDiffusionControlNetPipeline(**sd.pipe.components, controlnet=plain)
    pipe.scheduler = type(sd.own_scheduler).from_config(sd.own_scheduler.config)
    shown = ImageOps.fit(Image.open(picture).convert("RGB"), (32, 32), method=Image.Resampling.LANCZOS)
    with torch.inference_mode():
        theirs = pipe(
            "a red house", shown, num_inference_steps=3, guidance_scale=5.0, controlnet_conditioning_scale=0.8,
            generator=[torch.Generator("cpu").manual_seed(1)], output_type="np",
        ).images  # fmt: skip
    np.testing.assert_array_equal(ours, theirs)


def test_start_and_end_bound_its_steps(sd: LoadedModel, edges: Path, picture: Path) -> None:
    whole = pictures(sd, Adapters(controlnets=(one(sd, edges, picture),)), steps=4)
    early = pictures(sd, Adapters(controlnets=(one(sd, edges, picture, end=0.5),)), steps=4)
    late = pictures(sd, Adapters(controlnets=(one(sd, edges, picture, start=0.5),)), steps=4)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in ((whole, early), (whole, late), (early, late)))


def test_canny_shows_edges_only(sd: LoadedModel, edges: Path, picture: Path) -> None:
    shown = np.asarray(control_image(one(sd, edges, picture, preprocess="canny"), 64, 48))
    assert shown.shape == (48, 64, 3) and set(np.unique(shown)) == {0, 255}
    assert 0.01 < (shown == 255).mean() < 0.5
    plain, canny = (
        pictures(sd, Adapters(controlnets=(one(sd, edges, picture, preprocess=kind),))) for kind in ("none", "canny")
    )
    assert np.abs(plain - canny).max() > 1e-3


@pytest.mark.slow
def test_several_controlnets_work_together(sd: LoadedModel, edges: Path, picture: Path, tmp_path: Path) -> None:
    depth = write_controlnet(tmp_path / "depth", sd.pipe.unet, seed=1)
    first, second = one(sd, edges, picture), one(sd, depth, write_picture(tmp_path / "b.png", seed=1), strength=0.5)
    alone = [pictures(sd, Adapters(controlnets=(each,))) for each in (first, second)]
    both = pictures(sd, Adapters(controlnets=(first, second)), seeds=(1, 2))
    assert all(np.abs(both[:1] - single).max() > 1e-3 for single in alone)
    turned = pictures(sd, Adapters(controlnets=(second, first)))
    np.testing.assert_allclose(turned, both[:1], atol=1e-5)  # sums in another order


@pytest.mark.slow
def test_a_batch_makes_the_pictures_that_single_calls_make(sd: LoadedModel, edges: Path, picture: Path) -> None:
    adapters = Adapters(controlnets=(one(sd, edges, picture),))
    batch = pictures(sd, adapters, seeds=(1, 2, 3))
    for place, seed in enumerate((1, 2, 3)):
        np.testing.assert_allclose(pictures(sd, adapters, seeds=(seed,))[0], batch[place], atol=2e-5)


def test_it_is_loaded_once_and_free_to_go_afterwards(sd: LoadedModel, edges: Path, picture: Path) -> None:
    adapters = Adapters(controlnets=(one(sd, edges, picture),))
    loads = sd.pool.loads
    for _ in range(2):
        apply(sd, adapters)
        pipe = view(sd, adapters)
        assert pipe.unet is sd.pipe.unet and not any(p.requires_grad for p in pipe.controlnet.parameters())
        assert view(sd, adapters) is pipe and used_while_denoising(sd) == [pipe.controlnet]
        gone = weakref.ref(pipe.controlnet)
        del pipe
        apply(sd, NO_ADAPTERS)
        assert sd.views == {} and used_while_denoising(sd) == []
    assert sd.pool.loads == loads + 1
    sd.pool.clear()
    gc.collect()
    assert gone() is None


def test_a_view_follows_components_that_were_loaded_again(sd: LoadedModel, edges: Path, picture: Path) -> None:
    from pipeline.loading.load import load_component

    adapters = Adapters(controlnets=(one(sd, edges, picture),))
    before = pictures(sd, adapters)
    sd.pool.release(sd.pool.key_of(sd.pipe.unet), keep=False)
    sd.pipe.unet = load_component(sd, "unet")
    assert view(sd, adapters).unet is sd.pipe.unet
    np.testing.assert_array_equal(pictures(sd, adapters), before)


@pytest.mark.slow
@pytest.mark.parametrize("family", a_few(["sdxl", "sd3", "flux", "qwen_image", "sana"], ["sdxl", "flux"]))
def test_other_families_have_theirs(
    load_tiny: Callable[..., LoadedModel], family: str, tmp_path: Path, picture: Path
) -> None:
    model = load_tiny(family)
    side = 64 if family == "sana" else 32
    base = pictures(model, side=side)
    if family == "sdxl":
        folder = write_controlnet(tmp_path / "c", model.pipe.unet)
    else:
        folder = write_transformer_controlnet(tmp_path / "c", CONTROLNET_CLASSES[family], model.pipe.transformer)
    adapters = Adapters(controlnets=(one(model, folder, picture),))
    changed = pictures(model, adapters, seeds=(1, 2), side=side)
    assert np.abs(changed[:1] - base).max() > 1e-3
    np.testing.assert_allclose(pictures(model, adapters, seeds=(2,), side=side)[0], changed[1], atol=2e-4)
    np.testing.assert_array_equal(pictures(model, adapters, seeds=(1, 2), side=side), changed)
    if family in ("sdxl", "sd3", "flux"):
        both = Adapters(controlnets=(adapters.controlnets[0], one(model, folder, picture, strength=0.5)))
        assert np.abs(pictures(model, both) - changed[:1]).max() > 1e-3


@pytest.mark.slow
def test_what_does_not_fit_is_refused(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], edges: Path, picture: Path, tmp_path: Path
) -> None:
    sdxl = load_tiny("sdxl")
    of_xl = write_controlnet(tmp_path / "xl", sdxl.pipe.unet)
    with pytest.raises(ModelError, match="controlnet xl: was made for Stable Diffusion XL, the model is"):
        one(sd, of_xl, picture)
    with pytest.raises(ModelError, match=r"controlnet edges: is a ControlNetModel; FLUX.1 takes a FluxControlNetModel"):
        one(load_tiny("flux"), edges, picture)
    with pytest.raises(ModelError, match=r"there is none for Lumina-Image 2.0; there are for: Stable Diffusion 1.5"):
        one(load_tiny("lumina2"), edges, picture)
    with pytest.raises(ModelError, match="is a single file; expected a diffusers folder"):
        one(sd, edges / "diffusion_pytorch_model.safetensors", picture)
    with pytest.raises(ModelError, match=r"controlnet unet.* not a ControlNet; expected a diffusers folder"):
        one(sd, sd.files.path / "unet", picture)
    with pytest.raises(ModelError, match=r"controlnet .*no such file"):
        one(sd, tmp_path / "none", picture)
    config = json.loads((edges / "config.json").read_text())
    (edges / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 768}))
    with pytest.raises(ModelError, match="controlnet edges: attends to width 768, the model has 32"):
        one(sd, edges, picture)


def test_canny_without_opencv_names_the_extra(
    sd: LoadedModel, edges: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"canny needs the package opencv: pip install 'darkroom\[controlnet\]'"):
        one(sd, edges, picture, preprocess="canny")


def test_a_controlnet_that_vanished_or_changed_after_planning_fails(
    sd: LoadedModel, edges: Path, picture: Path
) -> None:
    adapters = Adapters(controlnets=(one(sd, edges, picture),))
    weights = edges / "diffusion_pytorch_model.safetensors"
    write_controlnet(edges, sd.pipe.unet, seed=9)
    with pytest.raises(JobFailure, match="controlnet edges: edges has changed"):
        apply(sd, adapters)
    weights.unlink()
    with pytest.raises(JobFailure, match="controlnet edges: edges is gone"):
        apply(sd, adapters)
    assert sd.applied == NO_ADAPTERS


def test_what_a_family_cannot_do_with_controlnets_is_named(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], edges: Path, picture: Path
) -> None:
    two = Adapters(controlnets=(one(sd, edges, picture, start=0.5), one(sd, edges, picture)))
    assert check_adapters(two, sd.files) == []
    assert check_adapters(two, load_tiny("sana").files) == [
        "Sana takes one ControlNet, not 2",
        "controlnet edges: works on all steps of Sana; leave start at 0 and end at 1",
    ]


def test_blocks_that_stay_leave_room_for_a_controlnet(sd: LoadedModel, edges: Path, picture: Path) -> None:
    """Else the card would be full of blocks when the ControlNet comes."""
    sd.memory = MemorySettings(techniques=("staged", "resident_blocks"), budget_bytes=0)
    shape = Shape(32, 32, 1, guided=True)

    def stays() -> int:
        return resident_bytes(sd, "unet", shape)

    controlnet = one(sd, edges, picture)
    taken = 4 * inspect_file(edges).parameters
    unet = sd.files.component("unet")
    assert unet is not None
    for budget_bytes in range(OVERHEAD["cpu"], OVERHEAD["cpu"] + 40 * 2**20, 2**18):
        sd.memory = replace(sd.memory, budget_bytes=budget_bytes)
        if taken < stays() < 4 * unet.parameters:
            break
    before = stays()
    apply(sd, Adapters(controlnets=(controlnet,)))
    assert 0 < before - stays() == taken
    apply(sd, NO_ADAPTERS)
    assert stays() == before
