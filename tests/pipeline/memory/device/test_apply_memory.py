"""Techniques put on a loaded model and taken off: the same pictures, the same weights, nothing left behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import a_few
from held_models import Load, held_by, images, pictures, requests_for

from pipeline.errors import ModelError
from pipeline.generation.generate import generate_batch
from pipeline.memory.device.apply import apply_memory, reapply, recover, release_model, without_techniques
from pipeline.memory.device.block_streaming import BlockStreaming
from pipeline.memory.device.embedding_cache import EmbeddingCache
from pipeline.memory.device.loaded_components import components, is_placed_by_hooks
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.offload_hooks import add_group_offload, is_cast, is_offloaded, remove_group_offload
from pipeline.memory.device.pool import Pool
from pipeline.memory.device.quantization import quantized_as, true_bytes
from pipeline.memory.device.stages import stage
from pipeline.memory.device.technique_functions import TECHNIQUES_APPLIED
from pipeline.memory.planning.memory_request import requested_memory
from pipeline.memory.planning.techniques import TECHNIQUES
from pipeline.request import MemorySettings

pytestmark = pytest.mark.slow

FAMILIES = a_few(("sd15", "sdxl", "flux"), ["flux"])
PLAIN = MemorySettings()
EXACT: dict[str, MemorySettings] = {
    "staged": held_by("staged"),
    "drop_encoders": held_by("drop_encoders"),
    "staged, drop_encoders": held_by("staged", "drop_encoders"),
    "vae_slicing": held_by("vae_slicing"),
    "model_offload": held_by("model_offload"),
    "model_offload, drop_encoders": held_by("model_offload", "drop_encoders"),
    "block_offload": held_by("block_offload"),
    "leaf_offload": held_by("leaf_offload"),
    "leaf_offload, drop_encoders, staged": held_by("leaf_offload", "drop_encoders", "staged"),
    "disk_offload by leaf": held_by("leaf_offload", "disk_offload"),
    "disk_offload by block": held_by("block_offload", "disk_offload"),
    "resident_blocks": held_by("resident_blocks"),
    "resident_blocks, none of them": held_by("resident_blocks", budget_bytes=1),
    "everything that goes together": held_by(
        "staged", "drop_encoders", "vae_slicing", "resident_blocks", budget_bytes=1
    ),
}


ON_FIRST_RUN = ("_diffusers_hook", "_output_capturing_hooks_installed")
"""What diffusers and transformers leave in a module that has run, whether anything was put on it or not."""


def attributes(model: LoadedModel) -> dict[str, set[str]]:
    """What each component and its parts carry beside weights: hooks would show here."""
    found = {}
    for name, module in components(model).items():
        for path, child in module.named_modules():
            hooks = {hook for hook in ("_forward_hooks", "_forward_pre_hooks") if getattr(child, hook)}
            found[f"{name}.{path}"] = {key for key in vars(child) if key not in ON_FIRST_RUN} | hooks
    return found


def weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor.clone()
        for name, module in components(model).items()
        for key, tensor in module.state_dict().items()
    }


def test_every_technique_has_exactly_one_function() -> None:
    assert list(TECHNIQUES_APPLIED) == list(TECHNIQUES)


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_techniques_change_no_bit_and_leave_nothing(family: str, loaded: Load) -> None:
    assert {name for memory in EXACT.values() for name in memory.techniques} == {
        name for name, technique in TECHNIQUES.items() if not technique.lossy and name != "half_precision"
    }
    model = loaded(family)
    before, found, values = pictures(model), attributes(model), weights(model)
    assert not np.array_equal(before[0], before[1])
    for name, memory in EXACT.items():
        apply_memory(model, memory)
        model.embeddings = EmbeddingCache()
        made = images(model)
        np.testing.assert_array_equal([image.pixels for image in made], before, err_msg=name)
        assert [image.memory.techniques for image in made] == [memory.techniques] * 2, name
        apply_memory(model, PLAIN)
        with stage(model, "encode"):  # brings dropped encoders back
            assert not model.dropped
        assert attributes(model) == found, f"{name} left something"
    model.embeddings = EmbeddingCache()
    np.testing.assert_array_equal(pictures(model), before)
    after = weights(model)
    assert all(torch.equal(after[key], tensor) for key, tensor in values.items())


@pytest.mark.parametrize("memory", a_few(EXACT.values(), [*EXACT.values()][::5]), ids=EXACT)
def test_a_model_may_be_loaded_so(memory: MemorySettings, loaded: Load) -> None:
    np.testing.assert_array_equal(pictures(loaded("sd15", memory)), pictures(loaded("sd15")))


LOSSY = ("denoiser_int8", "denoiser_float8", "encoder_int8", "encoder_float8", "fp8_storage")


@pytest.mark.parametrize("name", LOSSY)
def test_weights_stored_smaller_come_back_whole(name: str, loaded: Load) -> None:
    model = loaded("flux")
    part = model.files.denoiser if name.startswith(("denoiser", "fp8")) else "text_encoder"
    before, size = pictures(model), true_bytes(components(model)[part])
    others = {key: id(module) for key, module in components(model).items() if not key.startswith(part)}
    apply_memory(model, held_by(name, "staged"))
    model.embeddings = EmbeddingCache()
    smaller = true_bytes(components(model)[part])
    assert smaller < 0.8 * size
    assert not np.array_equal(pictures(model), before)
    assert {key: id(module) for key, module in components(model).items() if not key.startswith(part)} == others
    model.embeddings = EmbeddingCache()
    apply_memory(model, PLAIN)
    assert true_bytes(components(model)[part]) == size
    np.testing.assert_array_equal(pictures(model), before)
    assert quantized_as(components(model)[part]) is None and not is_cast(components(model)[part])


def test_one_quantisation_after_another(loaded: Load) -> None:
    model = loaded("flux")
    for kind in ("int8", "float8"):
        apply_memory(model, held_by(f"denoiser_{kind}"))
        assert quantized_as(model.pipe.transformer) == kind and quantized_as(model.pipe.text_encoder) is None
    direct = pictures(loaded("flux", held_by("denoiser_float8")))
    np.testing.assert_array_equal(pictures(model), direct)


@pytest.mark.parametrize("where", ["leaf_offload", "resident_blocks", "model_offload", "block_offload"])
@pytest.mark.parametrize("stored", ["denoiser_int8", "fp8_storage"])
def test_where_weights_wait_does_not_change_what_they_are(stored: str, where: str, loaded: Load) -> None:
    model = loaded("flux", held_by(stored))
    there = pictures(model)
    apply_memory(model, held_by(stored, where, budget_bytes=1))
    np.testing.assert_array_equal(pictures(model), there)


def test_nothing_is_loaded_where_nothing_must_be(loaded: Load) -> None:
    pool = Pool()
    model = loaded("sd15", pool=pool)
    loads, parts = pool.loads, {name: id(module) for name, module in components(model).items()}
    for memory in (held_by("leaf_offload", "vae_slicing"), held_by("resident_blocks"), held_by("model_offload"), PLAIN):
        apply_memory(model, memory)
    assert pool.loads == loads and {name: id(module) for name, module in components(model).items()} == parts


def test_the_same_again_is_nearly_free(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("sd15", held_by("leaf_offload"))
    hook = model.pipe.unet.conv_in._diffusers_hook.get_hook("group_offloading")
    apply_memory(model, replace(held_by("leaf_offload"), level="aggressive", exact=True))
    assert model.pipe.unet.conv_in._diffusers_hook.get_hook("group_offloading") is hook
    assert model.memory.level == "aggressive" and model.memory.exact


def test_another_precision_is_another_model(loaded: Load) -> None:
    with pytest.raises(ValueError, match="load it again"):
        apply_memory(loaded("sd15"), MemorySettings(dtype="bfloat16"))


def test_a_technique_that_a_model_does_not_have_is_not_claimed(loaded: Load) -> None:
    from diffusers import AutoencoderKL

    model = loaded("sd15")
    asked = held_by("vae_slicing", "staged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoencoderKL, "enable_slicing", lambda self: (_ for _ in ()).throw(NotImplementedError()))
        apply_memory(model, asked)
        assert model.memory.techniques == ("staged",)
        apply_memory(model, asked)
        assert model.memory.techniques == ("staged",)
    reapply(model)
    assert model.memory.techniques == ("staged", "vae_slicing"), "what was asked is not forgotten"


def test_what_cannot_be_put_on_leaves_the_model_as_it_was(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    model = loaded("flux", held_by("leaf_offload"))
    before = pictures(model)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(ModelError, match=r"darkroom\[bitsandbytes\]"):
        apply_memory(model, held_by("denoiser_int4", "staged"))
    assert model.memory == held_by("leaf_offload") and not model.dropped
    assert is_offloaded(model.pipe.transformer)
    np.testing.assert_array_equal(pictures(model), before)


def test_tiles_have_the_side_that_estimates_count_with(loaded: Load) -> None:
    model = loaded("sd15")
    vae = model.pipe.vae
    vae.tile_sample_min_size, vae.tile_latent_min_size = 1024, 512  # as in SDXL: nothing of 1024 would be tiled
    apply_memory(model, held_by("vae_tiling"))
    assert (vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size) == (True, 512, 256)
    apply_memory(model, PLAIN)
    assert (vae.use_tiling, vae.tile_sample_min_size, vae.tile_latent_min_size) == (False, 1024, 512)
    assert "untiled" not in vars(vae)


def test_the_vae_is_never_offloaded_in_parts(loaded: Load) -> None:
    """With tiling and streams its first run would have to be a warm-up, or devices are mixed up."""
    model = loaded("sd15")
    for name in ("block_offload", "leaf_offload", "resident_blocks"):
        apply_memory(model, held_by(name, "vae_tiling"))
        assert not is_placed_by_hooks(model.pipe.vae) and is_placed_by_hooks(model.pipe.unet)


@pytest.fixture
def tiny_vae(tmp_path: Path) -> Path:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    options: Any = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    blocks: Any = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    AutoencoderTiny(**options, **blocks, latent_channels=4).save_pretrained(tmp_path / "taesd")
    return tmp_path / "taesd"


def test_the_tiny_vae_comes_and_goes(tiny_vae: Path, loaded: Load) -> None:
    model = loaded("sd15")
    before, own = pictures(model), type(model.pipe.vae)
    tiny = requested_memory("none", "float32", {"tiny_vae": True}, "cpu", tiny_vae=str(tiny_vae))
    apply_memory(model, tiny)
    assert type(model.pipe.vae).__name__ == "AutoencoderTiny"
    assert not np.array_equal(pictures(model), before)
    apply_memory(model, PLAIN)
    assert type(model.pipe.vae) is own
    np.testing.assert_array_equal(pictures(model), before)
    np.testing.assert_array_equal(pictures(loaded("sd15", tiny)).shape, before.shape)


def test_hooks_put_on_twice_are_refused() -> None:
    """diffusers ignores the second time in silence."""
    module = torch.nn.Sequential(torch.nn.Linear(4, 4))
    add_group_offload(module, torch.device("cpu"), by_leaf=True)
    with pytest.raises(RuntimeError, match="already"):
        add_group_offload(module, torch.device("cpu"), by_leaf=True)
    remove_group_offload(module)
    add_group_offload(module, torch.device("cpu"), by_leaf=True)


@pytest.mark.parametrize(
    "techniques",
    [
        ("leaf_offload",),
        ("block_offload",),
        ("model_offload",),
        ("resident_blocks",),
        ("leaf_offload", "disk_offload"),
        ("block_offload", "disk_offload"),
    ],
)
@pytest.mark.campaign
def test_an_exception_in_the_middle_is_recovered_from(techniques: tuple[str, ...], loaded: Load) -> None:
    model = loaded("flux")
    before = pictures(model)
    apply_memory(model, held_by(*techniques, budget_bytes=1))
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("in the middle")

    handle = model.pipe.transformer.single_transformer_blocks[0].proj_mlp.register_forward_hook(fail)
    outcomes = generate_batch(model, requests_for(model, steps=3))
    handle.remove()
    assert len(outcomes) == 2 and len(calls) > 3, "split and tried again"
    recover(model)
    np.testing.assert_array_equal(pictures(model), before)
    apply_memory(model, PLAIN)
    np.testing.assert_array_equal(pictures(model), before)


def test_layers_are_added_where_nothing_is_hooked_or_cast(loaded: Load) -> None:
    model = loaded("flux", held_by("fp8_storage", "resident_blocks", budget_bytes=1))
    cast = model.pipe.transformer
    assert is_cast(cast) and isinstance(cast.block_streaming, BlockStreaming)
    with without_techniques(model):
        plain = model.pipe.transformer
        assert plain is not cast and not is_cast(plain) and not is_placed_by_hooks(plain)
        assert {tensor.dtype for tensor in plain.parameters()} == {torch.float32}
        with without_techniques(model):  # adapters within adapters
            assert model.pipe.transformer is plain
        plain.transformer_blocks[0].register_module("extra", torch.nn.Linear(4, 4).requires_grad_(False))
    assert model.pipe.transformer is plain and is_cast(plain) and is_placed_by_hooks(plain)
    assert model.memory == held_by("fp8_storage", "resident_blocks", budget_bytes=1)
    pictures(model)


def test_lifting_what_carries_nothing_does_nothing(loaded: Load) -> None:
    model = loaded("sd15", held_by("staged", "vae_slicing"))
    with without_techniques(model):
        assert model.pipe.vae.use_slicing
    assert model.memory == held_by("staged", "vae_slicing")


LET_GO = [PLAIN, held_by("fp8_storage"), held_by("denoiser_int8")]


@pytest.mark.parametrize("memory", [*LET_GO, *a_few(EXACT.values(), [])])
def test_a_model_let_go_is_free_or_fit_for_the_next(memory: MemorySettings, loaded: Load) -> None:
    pool = Pool()
    model = loaded("sd15", memory, pool)
    pictures(model)
    modules = list(components(model).values())
    release_model(model)
    assert not any(is_placed_by_hooks(module) for module in modules), "idle modules carry no hooks"
    alive = [weakref.ref(module) for module in modules]
    del modules, model
    again = loaded("sd15", pool=pool)
    assert pictures(again).shape
    release_model(again)
    del again
    pool.clear()
    gc.collect()
    assert pool.bytes_on_host == 0 and not [ref for ref in alive if ref() is not None]


def test_two_models_share_an_encoder(loaded: Load, tmp_path: Path, tiny: Callable[[str], Path]) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    from pipeline.loading.load import load
    from pipeline.registry.model_settings import identify

    folder = tmp_path / "tuned"
    shutil.copytree(tiny("sd15"), folder)
    file = next((folder / "unet").glob("*.safetensors"))
    tensors = {key: tensor * 1.01 for key, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    pool = Pool()
    one = loaded("sd15", pool=pool)
    loads = pool.loads
    two = load(identify(str(folder))[0], PLAIN, "cpu", pool=pool)
    assert pool.loads == loads + 1, "its UNet"
    assert one.pipe.text_encoder is two.pipe.text_encoder and one.pipe.vae is two.pipe.vae
    assert not np.array_equal(pictures(one), pictures(two))
    encoder = one.pipe.text_encoder
    release_model(one)
    assert two.pipe.text_encoder is encoder and pictures(two).shape


def test_a_model_that_could_not_be_held_otherwise_is_held_and_paints_as_before(loaded: Load) -> None:
    from pipeline.errors import OutOfMemory

    model = loaded("sd15", held_by("staged"))
    expected = pictures(model)
    real, fails = model.load_component, [OutOfMemory("out of memory: injected")]

    def load_component(*arguments: Any) -> Any:
        if fails:
            raise fails.pop()
        return real(*arguments)

    model.load_component = load_component
    with pytest.raises(OutOfMemory, match="injected"):
        apply_memory(model, held_by("denoiser_int8"))
    assert not fails and model.memory.techniques == ("staged",) and model.pipe.unet is not None
    assert quantized_as(model.pipe.unet) is None
    np.testing.assert_array_equal(pictures(model), expected)
