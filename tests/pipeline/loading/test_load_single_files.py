"""Loading single files: full checkpoints, lone denoisers and VAEs, GGUF; each as the folder of the same weights."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import write_checkpoint, write_denoiser, write_gguf, write_vae

from pipeline.errors import ModelError
from pipeline.loading.load import load
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.pool import Pool
from pipeline.memory.device.quantization import quantized_as, true_bytes
from pipeline.registry.model_settings import identify
from pipeline.request import MemorySettings
from pipeline.weights.families import FAMILIES
from pipeline.weights.shipped import SHIPPED

pytestmark = pytest.mark.slow

Tiny = Callable[[str], Path]
CHECKPOINTS = ("sd15", "sdxl", "sd3", "flux", "chroma", "z_image")


def load_tiny(
    source: Path,
    config: Path | None = None,
    memory: MemorySettings | None = None,
    pool: Pool | None = None,
    **options: Any,
) -> LoadedModel:
    settings, _ = identify(str(source), config=str(config) if config else None, **options)
    return load(settings, memory or MemorySettings(), "cpu", pool=pool)


def weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    modules = {name: part for name, part in model.pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}


def assert_same_weights(one: LoadedModel, other: LoadedModel) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert different == []


def draw(model: LoadedModel) -> Any:
    side = 64 if model.files.family == "sana" else 32
    generator = torch.Generator().manual_seed(7)
    with torch.inference_mode():
        return model.pipe(
            "a cat", num_inference_steps=2, height=side, width=side, output_type="np", generator=generator
        ).images


def assert_same_picture(one: LoadedModel, other: LoadedModel) -> None:
    """But for the last bits: on a CPU they depend on where in its file a tensor lies."""
    assert abs(draw(one) - draw(other)).max() < 1e-5


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks the network for anything ends the test."""

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"the network was asked for {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def folder_of(tiny: Tiny, tmp_path: Path) -> Tiny:
    """Tiny folders. SD 3.5's first CLIP gets the projection that its checkpoints leave out, the identity."""

    def folder(family: str) -> Path:
        if family != "sd3":
            return tiny(family)
        copy = Path(shutil.copytree(tiny("sd3"), tmp_path / "sd3"))
        file = copy / "text_encoder" / "model.safetensors"
        tensors = load_file(file)
        tensors["text_projection.weight"] = torch.eye(32)
        save_file(tensors, file, metadata={"format": "pt"})
        return copy

    return folder


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_checkpoint_is_the_folder_in_one_file(folder_of: Tiny, tmp_path: Path, family: str) -> None:
    folder = folder_of(family)
    one = load_tiny(write_checkpoint(folder, tmp_path / "one.safetensors"), folder)
    assert one.files.layout == "checkpoint"
    assert_same_weights(one, load_tiny(folder))


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_checkpoint_makes_the_picture_of_the_folder(tiny: Tiny, tmp_path: Path, family: str) -> None:
    one = load_tiny(write_checkpoint(tiny(family), tmp_path / "one.safetensors"), tiny(family))
    assert_same_picture(one, load_tiny(tiny(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lone_denoiser_takes_the_rest_from_the_folder(tiny: Tiny, tmp_path: Path, family: str) -> None:
    folder = Path(shutil.copytree(tiny(family), tmp_path / "rest"))
    file = write_denoiser(folder, tmp_path / "denoiser.safetensors")
    for own in (folder / FAMILIES[family].denoiser).glob("*.safetensors"):
        own.unlink()  # so that it cannot be taken from there
    model = load_tiny(file, folder)
    assert model.files.layout == "denoiser"
    assert_same_weights(model, load_tiny(tiny(family)))


@pytest.mark.parametrize("family", ["flux", "qwen_image", "z_image"])
def test_the_prefix_of_other_programs_does_not_matter(tiny: Tiny, tmp_path: Path, family: str) -> None:
    plain = load_file(write_denoiser(tiny(family), tmp_path / "plain.safetensors"))
    file = tmp_path / "prefixed.safetensors"
    save_file({f"model.diffusion_model.{name}": tensor for name, tensor in plain.items()}, file)
    assert_same_weights(load_tiny(file, tiny(family)), load_tiny(tiny(family)))


def test_the_rest_is_shared_with_the_folder(tiny: Tiny, tmp_path: Path) -> None:
    pool = Pool()
    folder = load_tiny(tiny("flux"), pool=pool)
    lone = load_tiny(write_denoiser(tiny("flux"), tmp_path / "flux.safetensors"), tiny("flux"), pool=pool)
    assert pool.loads == 5, "four components, and the second denoiser"
    assert lone.pipe.text_encoder_2 is folder.pipe.text_encoder_2 and lone.pipe.vae is folder.pipe.vae


def test_the_components_of_one_file_are_loaded_once(tiny: Tiny, tmp_path: Path) -> None:
    pool, file = Pool(), write_checkpoint(tiny("sdxl"), tmp_path / "sdxl.safetensors")
    first, second = load_tiny(file, tiny("sdxl"), pool=pool), load_tiny(file, tiny("sdxl"), pool=pool)
    assert pool.loads == 4 and second.pipe.unet is first.pipe.unet
    assert first.pipe.text_encoder is not first.pipe.text_encoder_2


def test_single_files_are_frozen_and_carry_no_device_map(tiny: Tiny, tmp_path: Path) -> None:
    model = load_tiny(write_checkpoint(tiny("sd15"), tmp_path / "sd15.safetensors"), tiny("sd15"))
    for part in (model.pipe.unet, model.pipe.vae, model.pipe.text_encoder):
        assert not part.training and not any(parameter.requires_grad for parameter in part.parameters())
        assert "hf_device_map" not in vars(part), "which offloading would take for a placement"
    assert model.pipe.safety_checker is None and not model.pipe.config.requires_safety_checker


def test_quantising_a_single_file_does_quantise(tiny: Tiny, tmp_path: Path) -> None:
    """diffusers' own `quantization_config` silently does nothing here."""
    file = write_checkpoint(tiny("sd15"), tmp_path / "sd15.safetensors")
    full, small = (
        load_tiny(file, tiny("sd15"), MemorySettings(techniques=techniques)) for techniques in ((), ("denoiser_int8",))
    )
    assert quantized_as(small.pipe.unet) == "int8" and true_bytes(small.pipe.unet) < true_bytes(full.pipe.unet)


def test_a_checkpoint_is_loaded_in_the_type_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    file = write_checkpoint(tiny("sdxl"), tmp_path / "sdxl.safetensors")
    pipe = load_tiny(file, tiny("sdxl"), MemorySettings(dtype="float16")).pipe
    assert pipe.unet.dtype == pipe.text_encoder_2.dtype == torch.float16 and pipe.vae.dtype == torch.float32


@pytest.mark.parametrize(
    ("markers", "prediction", "spacing"),
    [(("v_pred",), "v_prediction", "leading"), (("v_pred", "ztsnr"), "v_prediction", "trailing")],
)
def test_the_scheduler_follows_the_markers_of_the_checkpoint(
    tiny: Tiny, tmp_path: Path, markers: tuple[str, ...], prediction: str, spacing: str
) -> None:
    extra = {name: torch.tensor([]) for name in markers}
    model = load_tiny(write_checkpoint(tiny("sdxl"), tmp_path / "v.safetensors", extra), tiny("sdxl"))
    config = model.own_scheduler.config
    assert (config.prediction_type, config.timestep_spacing) == (prediction, spacing)
    assert config.rescale_betas_zero_snr is ("ztsnr" in markers)
    by_hand = load_tiny(Path(model.settings.source), tiny("sdxl"), prediction_type="epsilon")
    assert by_hand.own_scheduler.config.prediction_type == "epsilon", "the user has the last word"


def test_a_lone_vae_of_one_file_is_taken(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("sdxl"), tmp_path / "other"))
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 0.5 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    vae = write_vae(folder, tmp_path / "half.vae.safetensors")
    assert_same_weights(load_tiny(tiny("sdxl"), vae=str(vae)), load_tiny(folder))


def test_a_file_that_lacks_tensors_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    """diffusers would leave them without storage and say nothing."""
    tensors = load_file(write_checkpoint(tiny("sd15"), tmp_path / "whole.safetensors"))
    del tensors["model.diffusion_model.out.2.bias"]
    save_file(tensors, tmp_path / "holed.safetensors")
    with pytest.raises(ModelError, match=r"holed\.safetensors does not hold all of the unet that sd15/ describes"):
        load_tiny(tmp_path / "holed.safetensors", tiny("sd15"))


def test_a_file_that_lacks_a_tensor_of_a_text_encoder_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    tensors = load_file(write_checkpoint(tiny("sdxl"), tmp_path / "whole.safetensors"))
    del tensors["conditioner.embedders.1.model.ln_final.bias"]
    save_file(tensors, tmp_path / "holed.safetensors")
    with pytest.raises(ModelError, match=r"does not hold all of the text_encoder_2 .*final_layer_norm.bias is missing"):
        load_tiny(tmp_path / "holed.safetensors", tiny("sdxl"))


@pytest.mark.parametrize(("family", "architecture"), [("flux", "flux"), ("z_image", "lumina2"), ("sdxl", "sdxl")])
def test_a_gguf_denoiser_is_kept_quantised_and_draws_nearly_the_same(
    tiny: Tiny, tmp_path: Path, family: str, architecture: str
) -> None:
    file = write_gguf(tiny(family), tmp_path / "small.gguf", architecture)
    small, full = load_tiny(file, tiny(family)), load_tiny(tiny(family))
    name = FAMILIES[family].denoiser
    assert small.files.quantization == "Q8_0"
    assert true_bytes(getattr(small.pipe, name)) < true_bytes(getattr(full.pipe, name))
    difference = abs(draw(small) - draw(full)).max()
    assert 0 < difference < 0.05


def test_a_gguf_is_not_quantised_a_second_time(tiny: Tiny, tmp_path: Path) -> None:
    file = write_gguf(tiny("flux"), tmp_path / "flux.gguf", "flux")
    with pytest.raises(ModelError, match=r"transformer is stored as Q8_0 already; leave out denoiser_int8"):
        load_tiny(file, tiny("flux"), MemorySettings(techniques=("denoiser_int8",)))


def test_a_gguf_without_its_package_names_the_extra(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tiny("flux"), tmp_path / "flux.gguf", "flux")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(ModelError, match=r"the package gguf is missing: pip install 'darkroom\[gguf\]'"):
        load_tiny(file, tiny("flux"))


@pytest.fixture
def shipped_tiny(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A checkpoint with CLIP's whole vocabulary, its configuration shipped as the real ones are; and its folder."""
    from pipeline.weights.shipped import CLIP_VOCABULARY

    folder = Path(shutil.copytree(tiny("sd15"), tmp_path / "folder"))
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    config |= {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config))
    file = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    (name,) = [name for name in tensors if "token_embedding" in name]
    tensors[name] = torch.randn(49408, 32, generator=torch.Generator().manual_seed(0))
    save_file(tensors, file, metadata={"format": "pt"})
    shipped = Path(shutil.copytree(folder, tmp_path / "shipped"))
    for path in [*shipped.rglob("*.safetensors"), *(shipped / "tokenizer").glob("[vm]*")]:
        path.unlink()
    for vocabulary in CLIP_VOCABULARY.glob("*.*"):
        shutil.copy(vocabulary, folder / "tokenizer")
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    (shipped / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    monkeypatch.setitem(SHIPPED, "sd15", shipped)
    return write_checkpoint(folder, tmp_path / "alone.safetensors"), folder


def test_a_checkpoint_needs_nothing_but_itself(shipped_tiny: tuple[Path, Path]) -> None:
    file, folder = shipped_tiny
    alone, whole = load_tiny(file), load_tiny(folder)
    assert_same_weights(alone, whole)
    assert_same_picture(alone, whole)


def test_a_checkpoint_without_its_vae_takes_the_one_given(shipped_tiny: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = shipped_tiny
    file = write_checkpoint(folder, tmp_path / "no_vae.safetensors", without="vae")
    with pytest.raises(ModelError, match=r"no_vae\.safetensors: .*model\.vae=PATH"):
        load_tiny(file)
    whole = load_tiny(folder)
    assert_same_weights(load_tiny(file, vae=str(folder / "vae")), whole)
    lone = write_vae(folder, tmp_path / "lone.safetensors")
    assert_same_weights(load_tiny(file, vae=str(lone)), whole)
