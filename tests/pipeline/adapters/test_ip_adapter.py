"""IP-Adapters: pictures as prompts, looked at once, and the denoiser as before afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapter_files import (
    write_flux_ip_adapter,
    write_image_encoder,
    write_ip_adapter,
    write_picture,
    write_sd3_ip_adapter,
    write_tensors,
)
from direct_calls import pictures

from jobs.archive.recorded_weights import Places, find_adapters
from pipeline.adapters.apply import apply
from pipeline.adapters.identify import check_adapters
from pipeline.adapters.identify_ip_adapter import identify_ip_adapter
from pipeline.adapters.specs import IpAdapterSpec, LoraSpec
from pipeline.errors import JobFailure, ModelError
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.metadata.record import IpAdapterRecord, PictureRecord, Record
from pipeline.request import NO_ADAPTERS, Adapters, IpAdapterWeights

pytestmark = pytest.mark.slow


@pytest.fixture
def adapter(sd: LoadedModel, tmp_path: Path) -> Path:
    return write_ip_adapter(tmp_path / "ip", sd.pipe.unet)


@pytest.fixture
def face(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "face.png")


def one(model: LoadedModel, path: Path, image: Path, **values: Any) -> IpAdapterWeights:
    return identify_ip_adapter(IpAdapterSpec(path, image, **values), model.files)


def test_a_picture_steers_by_its_scale_and_leaves_no_trace(
    sd: LoadedModel, adapter: Path, face: Path, tmp_path: Path
) -> None:
    base = pictures(sd)
    processors = sd.pipe.unet.attn_processors
    whole, half, none = (
        pictures(sd, Adapters(ip_adapters=(one(sd, adapter, face, scale=scale),))) for scale in (1.0, 0.5, 0.0)
    )
    assert np.abs(whole - base).max() > 1e-3 and np.abs(half - whole).max() > 1e-3
    np.testing.assert_array_equal(none, base)
    other = write_picture(tmp_path / "other.png", seed=1)
    assert np.abs(pictures(sd, Adapters(ip_adapters=(one(sd, adapter, other),))) - whole).max() > 1e-4
    np.testing.assert_array_equal(pictures(sd), base)
    assert sd.pipe.unet.attn_processors == processors and sd.pipe.unet.encoder_hid_proj is None
    assert sd.pipe.image_encoder is None and sd.pipe.feature_extractor is None


def test_an_image_encoder_that_changed_since_the_plan_is_refused(sd: LoadedModel, adapter: Path, face: Path) -> None:
    planned = one(sd, adapter, face)
    weights = Path(planned.encoder_source or "") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(4))
    with pytest.raises(JobFailure, match="image encoder of ip0: image_encoder has changed since this was planned"):
        pictures(sd, Adapters(ip_adapters=(planned,)))
    sd.pool.clear()


@pytest.mark.parametrize("plus", [False, True])
def test_the_same_picture_as_plain_diffusers(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], tmp_path: Path, face: Path, plus: bool
) -> None:
    import torch
    from PIL import Image

    base = pictures(sd)
    adapter = write_ip_adapter(tmp_path / "ip", sd.pipe.unet, plus=plus)
    ours = pictures(sd, Adapters(ip_adapters=(one(sd, adapter, face, scale=0.7),)))
    plain = load_tiny("sd15").pipe
    plain.load_ip_adapter(str(adapter.parent), subfolder="", weight_name=adapter.name)
    plain.set_ip_adapter_scale(0.7)
    for component in (plain.unet, plain.image_encoder):
        component.requires_grad_(False).eval()
    with torch.inference_mode():
        theirs = plain(
            "a red house", ip_adapter_image=Image.open(face).convert("RGB"), num_inference_steps=3, guidance_scale=5.0,
            width=32, height=32, generator=[torch.Generator("cpu").manual_seed(1)], output_type="np",
        ).images  # fmt: skip
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(pictures(sd), base)


def test_the_encoder_is_loaded_once_and_looks_once(sd: LoadedModel, adapter: Path, face: Path) -> None:
    adapters = Adapters(ip_adapters=(one(sd, adapter, face),))
    loads = sd.pool.loads
    for _ in range(2):
        apply(sd, adapters)
        apply(sd, NO_ADAPTERS)
    assert sd.pool.loads == loads + 1
    assert len(sd.adapters.seen) == 1
    sd.pool.clear()  # nobody uses the encoder any more
    apply(sd, adapters)
    assert sd.pool.loads == loads + 1


def test_two_at_once_and_a_lora_beside_them(sd: LoadedModel, adapter: Path, face: Path, tmp_path: Path) -> None:
    from adapter_files import layers_of, write_lora

    from pipeline.adapters.identify_lora import identify_lora

    lora = write_lora(tmp_path / "style.safetensors", layers_of(sd.pipe, "unet"))
    base = pictures(sd)
    second = write_ip_adapter(adapter.parent, sd.pipe.unet, seed=1)
    pair = (one(sd, adapter, face), one(sd, second, write_picture(tmp_path / "b.png", seed=2), scale=0.4))
    single, double = (pictures(sd, Adapters(ip_adapters=some)) for some in (pair[:1], pair))
    assert np.abs(single - double).max() > 1e-3
    loras = (identify_lora(LoraSpec(lora), sd.files),)
    assert np.abs(pictures(sd, Adapters(ip_adapters=pair, loras=loras)) - double).max() > 1e-3
    np.testing.assert_array_equal(pictures(sd, Adapters(ip_adapters=pair)), double)
    np.testing.assert_array_equal(pictures(sd), base)


def test_a_batch_makes_the_pictures_that_single_calls_make(sd: LoadedModel, adapter: Path, face: Path) -> None:
    adapters = Adapters(ip_adapters=(one(sd, adapter, face),))
    batch = pictures(sd, adapters, seeds=(1, 2))
    np.testing.assert_allclose(pictures(sd, adapters, seeds=(2,))[0], batch[1], atol=2e-5)


@pytest.mark.parametrize("techniques", [("denoiser_int8",), ("block_offload",), ("resident_blocks",), ("fp8_storage",)])
def test_on_a_model_that_is_held_otherwise(
    load_tiny: Callable[..., LoadedModel], techniques: tuple[str, ...], tmp_path: Path, face: Path
) -> None:
    plain = load_tiny("sdxl")
    adapter = write_ip_adapter(tmp_path / "ip", plain.pipe.unet)
    model = load_tiny("sdxl", techniques=techniques)
    adapters = Adapters(ip_adapters=(one(model, adapter, face),))
    base = pictures(model)
    changed = pictures(model, adapters)
    assert np.abs(changed - base).max() > 1e-3
    np.testing.assert_array_equal(pictures(model), base)
    if techniques[0] in ("block_offload", "resident_blocks"):
        np.testing.assert_array_equal(pictures(plain, adapters), changed)


@pytest.mark.parametrize(("family", "write"), [("flux", write_flux_ip_adapter), ("sd3", write_sd3_ip_adapter)])
def test_transformers_have_theirs(
    load_tiny: Callable[..., LoadedModel], family: str, write: Callable[..., Path], tmp_path: Path, face: Path
) -> None:
    model = load_tiny(family)
    adapter = write(tmp_path / "ip", model.pipe.transformer)
    base = pictures(model)
    whole, half = (
        pictures(model, Adapters(ip_adapters=(one(model, adapter, face, scale=scale),))) for scale in (1.0, 0.5)
    )
    assert np.abs(whole - base).max() > 1e-3 and np.abs(whole - half).max() > 1e-4
    other = write_picture(tmp_path / "other.png", seed=1)
    assert np.abs(pictures(model, Adapters(ip_adapters=(one(model, adapter, other),))) - whole).max() > 1e-5
    batch = pictures(model, Adapters(ip_adapters=(one(model, adapter, face),)), seeds=(2, 1))
    np.testing.assert_allclose(batch[1], whole[0], atol=2e-4)
    np.testing.assert_array_equal(pictures(model), base)


def test_a_denoiser_that_was_loaded_again_gets_it_again(sd: LoadedModel, adapter: Path, face: Path) -> None:
    from pipeline.loading.load import load_component

    adapters = Adapters(ip_adapters=(one(sd, adapter, face),))
    expected = pictures(sd, adapters)
    sd.adapters.remove(sd, "unet")
    assert sd.pipe.unet.encoder_hid_proj is None
    sd.pool.release(sd.pool.key_of(sd.pipe.unet), keep=False)
    sd.pipe.unet = load_component(sd, "unet")
    np.testing.assert_array_equal(pictures(sd, adapters), expected)


def test_what_does_not_fit_is_refused(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], adapter: Path, face: Path, tmp_path: Path
) -> None:
    import torch

    of_xl = write_ip_adapter(tmp_path / "xl", load_tiny("sdxl").pipe.unet, seed=3)
    with pytest.raises(ModelError, match="ip-adapter ip3: was made for a model of width 64, this one has 32"):
        one(sd, of_xl, face)
    with pytest.raises(ModelError, match=r"diffusers has none for Sana; it has for: Stable Diffusion 1.5"):
        one(load_tiny("sana"), adapter, face)
    narrow = write_image_encoder(tmp_path / "narrow", width=8)
    with pytest.raises(ModelError, match="reads 16 numbers per picture or patch, the encoder narrow gives 8"):
        one(sd, adapter, face, encoder=str(narrow))
    with pytest.raises(ModelError, match="image encoder text_encoder is a CLIPTextModel; expected a CLIPVision"):
        one(sd, adapter, face, encoder=str(sd.files.path / "text_encoder"))
    with pytest.raises(ModelError, match=r"image encoder .*no such file"):
        one(sd, adapter, face, encoder=str(tmp_path / "none"))
    lonely = tmp_path / "lonely.safetensors"
    lonely.write_bytes(adapter.read_bytes())
    with pytest.raises(ModelError, match="there is no image_encoder/ beside it, so name one"):
        one(sd, lonely, face)
    proj = {"image_proj.proj.0.weight": torch.ones(4, 4), "image_proj.norm.weight": torch.ones(32)}
    keys = {f"ip_adapter.1.to_{kind}_ip.weight": torch.ones(32, 32) for kind in "kv"}
    with pytest.raises(ModelError, match="is a FaceID, which needs a face recogniser"):
        one(sd, write_tensors(tmp_path / "faceid.safetensors", **proj, **keys), face)


def test_one_that_does_not_load_leaves_nothing_behind(sd: LoadedModel, adapter: Path, face: Path) -> None:
    from safetensors.torch import load_file

    base = pictures(sd)
    tensors = load_file(adapter)
    del tensors["ip_adapter.1.to_k_ip.weight"]
    write_tensors(adapter, **tensors)
    with pytest.raises(JobFailure, match="ip-adapter ip0: does not fit this model"):
        apply(sd, Adapters(ip_adapters=(one(sd, adapter, face),)))
    np.testing.assert_array_equal(pictures(sd), base)


def test_a_file_that_vanished_after_planning_fails(sd: LoadedModel, adapter: Path, face: Path) -> None:
    adapters = Adapters(ip_adapters=(one(sd, adapter, face),))
    adapter.unlink()
    with pytest.raises(JobFailure, match=r"ip-adapter ip0: ip0.safetensors is gone"):
        apply(sd, adapters)
    assert check_adapters(adapters, sd.files) == []


def test_a_moved_adapter_is_found_with_its_encoder_for_a_picture_to_be_made_again(
    sd: LoadedModel, adapter: Path, face: Path, tmp_path: Path, home: Path
) -> None:
    before = one(sd, adapter, face, scale=0.5)
    values = {"name": before.name, "sha256": before.sha256, "encoder_sha256": before.encoder_sha256, "scale": 0.5}
    said = IpAdapterRecord(**values, image=PictureRecord(name="face", sha256=before.image.sha256))
    record = Record.model_construct(loras=[], embeddings=[], controlnets=[], ip_adapters=[said], init=None)
    new = tmp_path / "new"
    new.mkdir()
    for place, name in ((adapter, "x.safetensors"), (adapter.parent / "image_encoder", "y"), (face, "z.png")):
        place.rename(new / name)
    with pytest.raises(ModelError, match=r"image encoder of the IP-Adapter .*--files"):
        find_adapters(record, sd.files, Places())
    (found,) = find_adapters(record, sd.files, Places(new)).ip_adapters
    assert (found.sha256, found.encoder_sha256) == (before.sha256, before.encoder_sha256)
    assert (found.source, found.encoder_source) == (str(new / "x.safetensors"), str(new / "y"))
