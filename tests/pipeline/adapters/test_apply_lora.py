"""LoRAs: identified by their headers, put on models, switched, and gone without a trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapter_files import layers_of, write_lora, write_tensors
from direct_calls import pictures, with_loras
from families import a_few

from pipeline.adapters.apply import apply, text_encoder_key
from pipeline.adapters.apply_lora import MAX_LOADED
from pipeline.adapters.identify_lora import identify_lora
from pipeline.adapters.specs import LoraSpec
from pipeline.errors import JobFailure, ModelError
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import NO_ADAPTERS, LoraMatch, LoraWeights
from pipeline.weights.hashes import file_hash


@pytest.fixture
def lora(sd: LoadedModel, tmp_path: Path) -> Path:
    """On attention layers of the UNet and of the text encoder."""
    return write_lora(tmp_path / "style.safetensors", layers_of(sd.pipe, "unet", "text_encoder"))


def test_every_key_of_a_lora_finds_its_place(sd: LoadedModel, lora: Path) -> None:
    keys = 2 * sum(len(names) for names in layers_of(sd.pipe, "unet", "text_encoder").values())
    apply(sd, with_loras(sd, (lora, 1.0)))
    assert sd.lora_matches == (LoraMatch(file_hash(lora), keys, 0),)
    assert keys > 20


def test_weights_stay_frozen_when_loras_are_switched(sd: LoadedModel, lora: Path) -> None:
    """Trainable weights take other CPU kernels, so that pictures would differ in their last bits."""
    for weight in (1.0, 0.5, 0.0, 1.0):
        apply(sd, with_loras(sd, (lora, weight)))
        for component in (sd.pipe.unet, sd.pipe.text_encoder):
            assert not any(parameter.requires_grad for parameter in component.parameters())


def test_kohya_and_peft_are_the_same_lora(sd: LoadedModel, tmp_path: Path) -> None:
    layers = layers_of(sd.pipe, "unet", "text_encoder")
    peft = write_lora(tmp_path / "peft.safetensors", layers)
    kohya = write_lora(tmp_path / "kohya.safetensors", layers, form="kohya")
    # kohya's alpha is half the rank, so the same matrices count half.
    half = pictures(sd, with_loras(sd, (peft, 0.5)))
    np.testing.assert_allclose(pictures(sd, with_loras(sd, (kohya, 1.0))), half, atol=1e-5)
    assert sd.lora_matches[0].unmatched == 0


def test_kohya_for_sdxl_has_both_text_encoders(load_tiny: Callable[..., LoadedModel], tmp_path: Path) -> None:
    model = load_tiny("sdxl")
    layers = layers_of(model.pipe, "unet", "text_encoder", "text_encoder_2")
    named = {"text_encoder_1" if name == "text_encoder" else name: found for name, found in layers.items()}
    path = write_lora(tmp_path / "xl.safetensors", named, form="kohya")
    apply(model, with_loras(model, (path, 1.0)))
    assert model.lora_matches == (LoraMatch(file_hash(path), 2 * sum(map(len, layers.values())), 0),)
    assert all("peft_config" in vars(getattr(model.pipe, name)) for name in layers)


def test_keys_without_a_place_are_counted(sd: LoadedModel, tmp_path: Path) -> None:
    import torch

    layers = layers_of(sd.pipe, "unet")
    nowhere = {f"unet.up_blocks.9.attn1.to_q.lora_{half}.weight": torch.ones(4, 4) for half in "AB"}
    path = write_lora(tmp_path / "odd.safetensors", layers, extra=nowhere)
    apply(sd, with_loras(sd, (path, 1.0)))
    assert sd.lora_matches == (LoraMatch(file_hash(path), 2 * len(layers["unet"]), 2),)


def test_what_dora_adds_is_counted_as_without_a_place(sd: LoadedModel, tmp_path: Path) -> None:
    import torch

    layers = layers_of(sd.pipe, "unet")
    (name, _, outputs), *_ = layers["unet"]
    scale = {f"lora_unet_{name.replace('.', '_')}.dora_scale": torch.ones(outputs, 1)}
    path = write_lora(tmp_path / "dora.safetensors", layers, form="kohya", extra=scale)
    apply(sd, with_loras(sd, (path, 1.0)))
    assert sd.lora_matches == (LoraMatch(file_hash(path), 2 * len(layers["unet"]), 1),)


@pytest.mark.parametrize("family", ["sdxl", "flux", "qwen_image", "sd3"])
def test_other_families_take_their_loras(load_tiny: Callable[..., LoadedModel], family: str, tmp_path: Path) -> None:
    model = load_tiny(family)
    components = [model.files.denoiser, *(["text_encoder"] if family != "qwen_image" else [])]
    layers = layers_of(model.pipe, *components)
    base = pictures(model)
    path = write_lora(tmp_path / "one.safetensors", layers)
    changed = pictures(model, with_loras(model, (path, 1.0)))
    assert model.lora_matches == (LoraMatch(file_hash(path), 2 * sum(map(len, layers.values())), 0),)
    assert np.abs(changed - base).max() > 1e-3
    np.testing.assert_array_equal(pictures(model), base)


def test_the_weight_counts_and_0_is_none(sd: LoadedModel, lora: Path) -> None:
    base, half, whole = (pictures(sd, with_loras(sd, (lora, weight))) for weight in (0.0, 0.5, 1.0))
    assert sd.lora_matches
    assert np.abs(half - whole).max() > 1e-3 and np.abs(base - half).max() > 1e-3
    np.testing.assert_array_equal(pictures(sd), base)
    assert sd.lora_matches == ()


def test_two_loras_at_once_are_more_than_either(sd: LoadedModel, lora: Path, tmp_path: Path) -> None:
    other = write_lora(tmp_path / "other.safetensors", layers_of(sd.pipe, "unet"), seed=1)
    one, two = pictures(sd, with_loras(sd, (lora, 1.0))), pictures(sd, with_loras(sd, (other, 1.0)))
    both = pictures(sd, with_loras(sd, (lora, 1.0), (other, 1.0)))
    assert [match.sha256 for match in sd.lora_matches] == [file_hash(lora), file_hash(other)]
    assert np.abs(both - one).max() > 1e-3 and np.abs(both - two).max() > 1e-3
    turned = pictures(sd, with_loras(sd, (other, 1.0), (lora, 1.0)))
    np.testing.assert_array_equal(turned, both)  # their order is not in a picture's id
    np.testing.assert_array_equal(pictures(sd, with_loras(sd, (lora, 1.0))), one)


@pytest.mark.slow
def test_the_same_picture_as_plain_diffusers(sd: LoadedModel, lora: Path, load_tiny: Callable[..., Any]) -> None:
    plain = load_tiny("sd15")
    vars(plain.pipe.text_encoder).pop("text_model")
    plain.pipe.load_lora_weights(str(lora), adapter_name="x")
    plain.pipe.set_adapters(["x"], [0.7])
    for component in (plain.pipe.unet, plain.pipe.text_encoder):
        component.requires_grad_(False)
    expected = pictures_of_plain(plain)
    np.testing.assert_array_equal(pictures(sd, with_loras(sd, (lora, 0.7))), expected)


HELD = [
    ("denoiser_int8",),
    ("block_offload",),
    ("leaf_offload",),
    ("leaf_offload", "disk_offload"),
    ("model_offload",),
    ("resident_blocks",),
]


def pictures_of_plain(model: LoadedModel) -> Any:
    import torch

    with torch.inference_mode():
        generator = [torch.Generator("cpu").manual_seed(1)]
        options = {"num_inference_steps": 3, "guidance_scale": 5.0, "width": 32, "height": 32, "output_type": "np"}
        return model.pipe("a red house", generator=generator, **options).images


@pytest.mark.campaign
def test_twenty_loras_leave_the_base_as_it_was_and_few_layers(sd: LoadedModel, tmp_path: Path) -> None:
    layers = layers_of(sd.pipe, "unet", "text_encoder")
    base = pictures(sd)
    parameters = []
    for seed in range(20):
        path = write_lora(tmp_path / f"{seed}.safetensors", layers, seed=seed)
        apply(sd, with_loras(sd, (path, 1.0)))
        parameters.append(sum(1 for _ in sd.pipe.unet.parameters()))
    assert len(sd.pipe.unet.peft_config) == MAX_LOADED == len(sd.pipe.text_encoder.peft_config)
    assert parameters[MAX_LOADED - 1 :] == [parameters[-1]] * (21 - MAX_LOADED)
    np.testing.assert_array_equal(pictures(sd), base)
    sd.adapters.remove(sd)
    assert not any("lora" in name for name, _ in sd.pipe.unet.named_modules())
    np.testing.assert_array_equal(pictures(sd), base)


def test_a_lora_for_another_family_is_refused_by_its_header(
    sd: LoadedModel, load_tiny: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    flux, sdxl = load_tiny("flux"), load_tiny("sdxl")
    of_flux = write_lora(tmp_path / "flux.safetensors", layers_of(flux.pipe, "transformer"))
    of_sdxl = write_lora(tmp_path / "xl.safetensors", layers_of(sdxl.pipe, "unet"))
    with pytest.raises(
        ModelError, match=r"lora flux: was made for FLUX\.1 or Chroma, the model is Stable Diffusion 1\.5"
    ):
        with_loras(sd, (of_flux, 1.0))
    with pytest.raises(ModelError, match="lora xl: was made for a model of width 64, this one has 32"):
        with_loras(sd, (of_sdxl, 1.0))


def test_what_is_no_lora_is_refused(sd: LoadedModel, tmp_path: Path) -> None:
    import torch

    page = tmp_path / "page.safetensors"
    page.write_text("<!doctype html><title>log in</title>")
    checkpoint = tmp_path / "old.ckpt"
    checkpoint.write_bytes(b"PK")
    embedding = write_tensors(tmp_path / "word.safetensors", emb_params=torch.ones(2, 768))
    for path, words in {
        tmp_path / "none.safetensors": "lora .*no such file",
        page: "lora page.safetensors: .*a web page",
        checkpoint: "lora old.ckpt: .*pickle",
        embedding: "lora word.safetensors: is an embedding, not a LoRA",
    }.items():
        with pytest.raises(ModelError, match=words) as caught:
            with_loras(sd, (path, 1.0))
        assert "\n" not in str(caught.value)


def test_no_matching_key_fails_and_leaves_nothing_behind(sd: LoadedModel, tmp_path: Path) -> None:
    base = pictures(sd)
    layers = {"unet": [("mid_block.elsewhere.attn1.to_q", 32, 32), ("mid_block.elsewhere.attn1.to_k", 32, 32)]}
    path = write_lora(tmp_path / "lost.safetensors", layers)
    with pytest.raises(JobFailure, match="lora lost: ") as caught:
        apply(sd, with_loras(sd, (path, 1.0)))
    assert "\n" not in str(caught.value)
    assert sd.applied == NO_ADAPTERS and sd.lora_matches == ()
    np.testing.assert_array_equal(pictures(sd), base)


def test_a_lora_of_the_wrong_width_fails_and_leaves_nothing_behind(sd: LoadedModel, tmp_path: Path) -> None:
    base = pictures(sd)
    (name, _, outputs), *rest = layers_of(sd.pipe, "unet")["unet"]
    path = write_lora(tmp_path / "wide.safetensors", {"unet": [*rest, (name, 48, outputs)]})
    with pytest.raises(JobFailure, match="lora wide: does not fit this model"):
        apply(sd, with_loras(sd, (path, 1.0)))
    assert not getattr(sd.pipe.unet, "peft_config", {})
    np.testing.assert_array_equal(pictures(sd), base)


def test_a_file_that_vanished_or_changed_after_planning_fails(sd: LoadedModel, lora: Path) -> None:
    adapters = with_loras(sd, (lora, 1.0))
    write_lora(lora, layers_of(sd.pipe, "unet"), seed=5)
    with pytest.raises(JobFailure, match=r"lora style: style.safetensors has changed"):
        apply(sd, adapters)
    lora.unlink()
    with pytest.raises(JobFailure, match=r"lora style: style.safetensors is gone"):
        apply(sd, adapters)


def test_a_component_that_was_loaded_again_gets_the_lora_again(sd: LoadedModel, lora: Path) -> None:
    from pipeline.loading.load import load_component

    adapters = with_loras(sd, (lora, 1.0))
    expected = pictures(sd, adapters)
    matches = sd.lora_matches
    sd.pool.release(sd.pool.key_of(sd.pipe.text_encoder), keep=False)
    sd.pipe.text_encoder = load_component(sd, "text_encoder")
    np.testing.assert_array_equal(pictures(sd, adapters), expected)
    encoder, sd.pipe.text_encoder = sd.pipe.text_encoder, None  # its embeddings lie in the cache
    apply(sd, adapters)
    assert sd.lora_matches == matches
    sd.pipe.text_encoder = encoder


def test_without_the_text_encoder_in_memory_the_rest_is_loaded(sd: LoadedModel, lora: Path) -> None:
    encoder, sd.pipe.text_encoder = sd.pipe.text_encoder, None
    adapters = with_loras(sd, (lora, 1.0))
    apply(sd, adapters)
    before = sd.lora_matches
    sd.pipe.text_encoder = encoder
    apply(sd, adapters)
    assert sd.lora_matches == before and "peft_config" in vars(encoder)


def test_only_what_touches_a_text_encoder_is_in_the_embeddings_key(sd: LoadedModel, lora: Path, tmp_path: Path) -> None:
    of_unet = write_lora(tmp_path / "unet.safetensors", layers_of(sd.pipe, "unet"))
    kohya = write_lora(tmp_path / "kohya.safetensors", layers_of(sd.pipe, "text_encoder"), form="kohya")
    assert text_encoder_key(sd, NO_ADAPTERS) == ""
    assert text_encoder_key(sd, with_loras(sd, (of_unet, 1.0), (lora, 0.0))) == ""
    keys = [with_loras(sd, (lora, 1.0)), with_loras(sd, (lora, 0.5)), with_loras(sd, (kohya, 1.0))]
    assert len({text_encoder_key(sd, adapters) for adapters in keys} - {""}) == 3


def test_a_float16_lora_works_in_the_precision_of_the_model(sd: LoadedModel, lora: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.half() for name, tensor in load_file(lora).items()}
    save_file(tensors, tmp_path / "half.safetensors")
    save_file({name: tensor.float() for name, tensor in tensors.items()}, tmp_path / "same.safetensors")
    half = pictures(sd, with_loras(sd, (tmp_path / "half.safetensors", 1.0)))
    np.testing.assert_array_equal(pictures(sd, with_loras(sd, (tmp_path / "same.safetensors", 1.0))), half)


@pytest.mark.parametrize("techniques", a_few(HELD, HELD[:2]))
@pytest.mark.slow
def test_a_lora_on_a_model_that_is_held_otherwise(
    load_tiny: Callable[..., LoadedModel], tmp_path: Path, techniques: tuple[str, ...]
) -> None:
    model = load_tiny("sdxl", techniques=techniques)
    path = write_lora(tmp_path / "one.safetensors", layers_of(load_tiny("sdxl").pipe, "unet", "text_encoder"))
    base = pictures(model)
    changed = pictures(model, with_loras(model, (path, 1.0)))
    assert model.lora_matches[0].unmatched == 0 and np.abs(changed - base).max() > 1e-3
    np.testing.assert_array_equal(pictures(model), base)
    if techniques != ("denoiser_int8",):
        plain = load_tiny("sdxl")
        np.testing.assert_array_equal(pictures(plain), base)
        np.testing.assert_array_equal(pictures(plain, with_loras(plain, (path, 1.0))), changed)


@pytest.mark.slow
def test_a_lora_before_float8_storage(load_tiny: Callable[..., LoadedModel], tmp_path: Path) -> None:
    model = load_tiny("sdxl", techniques=("fp8_storage",))
    path = write_lora(tmp_path / "one.safetensors", layers_of(load_tiny("sdxl").pipe, "unet"))
    base = pictures(model)
    assert np.abs(pictures(model, with_loras(model, (path, 1.0))) - base).max() > 1e-3
    np.testing.assert_array_equal(pictures(model), base)


def test_the_name_of_a_lora_may_be_given(sd: LoadedModel, lora: Path) -> None:
    found = identify_lora(LoraSpec(lora, 0.3, "My style/2"), sd.files)
    assert isinstance(found, LoraWeights) and found.name == "My-style-2" and len(found.sha256) == 64
