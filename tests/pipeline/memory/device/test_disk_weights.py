"""Weights that wait on disk: read as the model runs, and never only to be let go, settled or added to."""

from __future__ import annotations

import gc
import shutil
import subprocess
import tempfile
import weakref
from collections import namedtuple
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
import torch
from held_models import Load, held_by, pictures
from offload_files import offload_folders, unreadable

from pipeline.errors import ModelError, OutOfHostMemory
from pipeline.loading.load import load
from pipeline.memory.device import disk_weights
from pipeline.memory.device.apply import apply_memory, recover, release_model, without_techniques
from pipeline.memory.device.disk_weights import disk_weights_of
from pipeline.memory.device.embedding_cache import EmbeddingCache
from pipeline.memory.device.loaded_components import components, is_placed_by_hooks
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.offload_hooks import is_offloaded
from pipeline.memory.device.pool import Pool
from pipeline.memory.device.quantization import quantized_as
from pipeline.memory.device.stages import stage
from pipeline.registry.model_settings import identify
from pipeline.request import MemorySettings

pytestmark = pytest.mark.slow

PLAIN = MemorySettings()
BY_LEAF = held_by("leaf_offload", "disk_offload")
both_ways = pytest.mark.parametrize(
    "memory", [BY_LEAF, held_by("block_offload", "disk_offload")], ids=["leaf", "block"]
)


@both_ways
def test_a_model_let_go_is_not_read_back(memory: MemorySettings, loaded: Load) -> None:
    pool = Pool()
    model = loaded("flux", memory, pool)
    pictures(model)
    alive = {name: weakref.ref(module) for name, module in components(model).items()}
    with unreadable():
        release_model(model)
    assert {name for name, reference in alive.items() if reference() is not None} == {"vae"}
    assert not offload_folders()
    assert pictures(loaded("flux", pool=pool)).shape


def test_encoders_are_dropped_without_being_read_back(loaded: Load) -> None:
    model = loaded("flux", held_by("leaf_offload", "disk_offload", "drop_encoders"))
    before = pictures(model)
    model.embeddings = EmbeddingCache()
    with ExitStack() as dropping:
        with stage(model, "encode"):
            dropping.enter_context(unreadable("text_encoder"))
        assert model.dropped == {"text_encoder", "text_encoder_2"} and not offload_folders("text_encoder")
    np.testing.assert_array_equal(pictures(model), before)


@both_ways
def test_a_failure_is_recovered_from_without_reading_or_writing(memory: MemorySettings, loaded: Load) -> None:
    model = loaded("flux", memory)
    before = pictures(model)

    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle")

    layer = model.pipe.transformer.single_transformer_blocks[0].proj_mlp
    handle = layer.register_forward_hook(fail)
    with pytest.raises(RuntimeError), stage(model, "denoise"):
        layer(torch.zeros(1, layer.in_features))
    handle.remove()
    with unreadable():
        recover(model)
    np.testing.assert_array_equal(pictures(model), before)


@both_ways
def test_layers_are_added_and_taken_out_without_reading(memory: MemorySettings, loaded: Load) -> None:
    model = loaded("flux", memory)
    before = pictures(model)
    block = model.pipe.transformer.transformer_blocks[0]
    with unreadable():
        with without_techniques(model):
            block.norm1.register_module("extra", torch.nn.Linear(4, 4).requires_grad_(False))
        assert is_offloaded(model.pipe.transformer)
    np.testing.assert_array_equal(pictures(model), before)
    with unreadable(), without_techniques(model):
        del block.norm1.extra
    np.testing.assert_array_equal(pictures(model), before)
    apply_memory(model, PLAIN)
    np.testing.assert_array_equal(pictures(model), before)


def test_what_is_to_be_loaded_again_is_not_read_back(loaded: Load) -> None:
    model = loaded("flux", BY_LEAF)
    expected = pictures(loaded("flux", held_by("denoiser_int8")))
    with unreadable("transformer"):
        apply_memory(model, held_by("denoiser_int8"))
    assert quantized_as(model.pipe.transformer) == "int8" and not offload_folders()
    np.testing.assert_array_equal(pictures(model), expected)


def test_others_who_share_a_component_get_it_whole(loaded: Load) -> None:
    pool = Pool()
    one, other = loaded("flux", pool=pool), loaded("flux", pool=pool)
    before = pictures(other)
    apply_memory(one, BY_LEAF)
    release_model(one)
    assert not offload_folders() and not any(is_placed_by_hooks(module) for module in components(other).values())
    other.embeddings = EmbeddingCache()
    np.testing.assert_array_equal(pictures(other), before)


def out_of_host_memory(*_: Any) -> Any:
    raise OSError(12, "Cannot allocate memory")


def test_what_could_not_be_read_back_waits_on_disk_as_before(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("flux", BY_LEAF)
    before = pictures(model)
    with monkeypatch.context() as patch:
        patch.setattr(disk_weights, "copy_at", out_of_host_memory)
        with pytest.raises(OutOfHostMemory):
            apply_memory(model, PLAIN)
    assert model.memory == BY_LEAF and is_offloaded(model.pipe.transformer)
    np.testing.assert_array_equal(pictures(model), before)


def test_a_model_that_cannot_be_held_at_all_makes_no_pictures(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights may have no content then: pictures would be made of nothing."""
    from pipeline.generation.recovery.guarded import attempted
    from pipeline.memory.device import technique_functions

    model = loaded("flux", BY_LEAF)
    before = pictures(model)
    with monkeypatch.context() as patch:
        patch.setattr(technique_functions, "add_hooks", out_of_host_memory)
        patch.setattr(disk_weights, "copy_at", out_of_host_memory)
        with pytest.raises(OutOfHostMemory):
            apply_memory(model, PLAIN)
        with pytest.raises(OSError, match="Cannot allocate"):
            attempted(model, lambda: apply_memory(model, PLAIN))
    apply_memory(model, PLAIN)
    np.testing.assert_array_equal(pictures(model), before)


def test_a_load_that_fails_leaves_nothing_on_disk(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    settings, pool = identify(str(tiny("flux")))[0], Pool()
    with monkeypatch.context() as patch:
        patch.setattr(disk_weights.DiskWeights, "_write", out_of_host_memory)
        with pytest.raises(OutOfHostMemory):
            load(settings, BY_LEAF, "cpu", pool=pool)
    gc.collect()
    assert not offload_folders()
    model = load(settings, PLAIN, "cpu", pool=pool)
    assert not any(disk_weights_of(module) or is_placed_by_hooks(module) for module in components(model).values())
    np.testing.assert_array_equal(pictures(model), pictures(load(settings, PLAIN, "cpu")))


def test_two_models_of_one_architecture_on_disk_stay_two(
    tiny: Callable[[str], Path], loaded: Load, tmp_path: Path
) -> None:
    """diffusers names the files after places in the module alone, and never writes one that is there."""
    from tiny_models import write_tiny

    other = load(identify(str(write_tiny("sd15", tmp_path / "other", seed=7)))[0], PLAIN, "cpu")
    one = loaded("sd15")
    apart = pictures(one), pictures(other)
    for model in (one, other):
        apply_memory(model, BY_LEAF)
    for model, expected in zip((one, other, one), (*apart, apart[0]), strict=True):
        np.testing.assert_array_equal(pictures(model), expected)
    assert not np.array_equal(*apart)
    folders = offload_folders()
    assert len(folders) == 4 and all(any(folder.iterdir()) for folder in folders)
    for model in (one, other):
        apply_memory(model, PLAIN)
    assert not offload_folders(), "removed with the technique"


def test_one_folder_for_two_models_would_mix_them_up() -> None:
    """The trap itself, in diffusers' own way of waiting on disk; when this fails, diffusers has mended it."""
    from diffusers.hooks import apply_group_offloading

    torch.manual_seed(0)
    one, other = (torch.nn.Sequential(torch.nn.Linear(4, 4)).requires_grad_(False) for _ in range(2))
    x, cpu = torch.ones(1, 4), torch.device("cpu")
    expected = other(x)
    with tempfile.TemporaryDirectory() as folder:
        for module in (one, other):
            apply_group_offloading(module, cpu, cpu, "leaf_level", offload_to_disk_path=folder)
        assert not torch.equal(other(x), expected)


def weights_of(model: LoadedModel) -> dict[str, torch.Tensor]:
    modules = components(model).items()
    return {f"{name}.{key}": value.clone() for name, module in modules for key, value in module.state_dict().items()}


def test_weights_that_two_layers_share_survive_the_disk(loaded: Load) -> None:
    """The first layer empties what the second one then writes; T5 has its embedding twice."""
    model = loaded("flux")
    encoder, before = model.pipe.text_encoder_2, weights_of(model)
    assert len(list(encoder.parameters())) < len(list(encoder.named_parameters(remove_duplicate=False)))
    apply_memory(model, BY_LEAF)
    recover(model)
    apply_memory(model, PLAIN)
    assert len(list(encoder.parameters())) < len(list(encoder.named_parameters(remove_duplicate=False)))
    assert all(torch.equal(tensor, before[key]) for key, tensor in weights_of(model).items())


def test_what_waits_on_disk_takes_no_memory(loaded: Load) -> None:
    model = loaded("flux")
    apply_memory(model, BY_LEAF)
    for _ in range(2):
        waiting = {tensor.untyped_storage().nbytes() for tensor in model.pipe.transformer.parameters()}
        assert max(waiting) <= 8, "one element each"
        pictures(model)


def test_folders_of_dead_processes_are_swept(loaded: Load) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    root = Path(platformdirs.user_cache_dir("darkroom")) / "offload"
    left = root / f"{process.pid}-abc-float32-unet-x"
    left.mkdir(parents=True)
    (left / "0.safetensors").touch()
    model = loaded("sd15", BY_LEAF)
    assert not left.exists() and len(offload_folders("unet")) == 1 and model.memory == BY_LEAF


def test_a_full_disk_is_said_before_it_is_full(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("sd15")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 0))
    with pytest.raises(ModelError, match=r"disk_offload needs .* MiB in the cache folder"):
        apply_memory(model, BY_LEAF)
    assert not is_offloaded(model.pipe.unet)


def test_weights_that_no_file_can_hold_are_refused(loaded: Load) -> None:
    """Such as those of a model that torchao stored in fewer bits."""
    quantization = pytest.importorskip("torchao.quantization")
    model = loaded("flux")
    quantization.quantize_(model.pipe.transformer, quantization.Int8WeightOnlyConfig(version=2))
    with pytest.raises(ModelError, match="quantised weights cannot be streamed from disk"):
        apply_memory(model, held_by("leaf_offload", "disk_offload"))
    assert not offload_folders() and pictures(model).shape


def test_weights_come_back_laid_out_as_they_were() -> None:
    """Or a UNet, whose channels lie last on a GPU, would take other kernels from then on."""
    module = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(8, 8, 1)).requires_grad_(False)
    module.to(memory_format=torch.channels_last)
    before = {name: (weight.clone(), weight.stride()) for name, weight in module.named_parameters()}
    disk_weights.put_on_disk(module, "unet").leave(module.parameters())
    disk_weights.bring_back(module)
    for name, weight in module.named_parameters():
        assert torch.equal(weight, before[name][0]) and weight.stride() == before[name][1]
