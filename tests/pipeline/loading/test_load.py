"""Loading folders: every family as diffusers loads it, component by component, shared, in the right type."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import write_tiny_sd

from pipeline.errors import ModelError, OutOfMemory
from pipeline.loading.load import load, load_component
from pipeline.loading.precision import component_dtype
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.pool import Pool
from pipeline.memory.device.quantization import quantized_as, true_bytes
from pipeline.memory.planning.memory_request import requested_memory
from pipeline.memory.planning.sizes import Sizes
from pipeline.registry.model_settings import identify
from pipeline.request import MemorySettings
from pipeline.weights.families import FAMILIES

Tiny = Callable[[str], Path]


def load_tiny(
    source: Path, memory: MemorySettings | None = None, pool: Pool | None = None, **options: Any
) -> LoadedModel:
    return load(identify(str(source), **options)[0], memory or MemorySettings(), "cpu", pool=pool)


def modules(pipe: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks the network for anything ends the test."""

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"the network was asked for {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.FluxPosEmbed. is deprecated:FutureWarning")  # of the plain pipeline
def test_every_family_is_loaded_as_diffusers_loads_it(tiny: Tiny, family: str) -> None:
    import diffusers

    model = load_tiny(tiny(family))
    plain = diffusers.DiffusionPipeline.from_pretrained(tiny(family), dtype=torch.float32, local_files_only=True)
    assert type(model.pipe) is type(plain) and type(model.pipe).__name__ == FAMILIES[family].pipeline_class
    assert {n: type(c) for n, c in model.pipe.components.items()} == {n: type(c) for n, c in plain.components.items()}
    options = {k: v for k, v in plain.config.items() if isinstance(v, bool | int | float) and k != "add_watermarker"}
    assert {name: model.pipe.config[name] for name in options} == options
    for name, module in modules(plain).items():
        own, wanted = modules(model.pipe)[name].state_dict(), module.state_dict()
        assert own.keys() == wanted.keys()
        assert all(torch.equal(own[key], wanted[key]) for key in wanted), name
        assert not modules(model.pipe)[name].training
        assert not any(p.requires_grad for p in modules(model.pipe)[name].parameters())
    assert model.own_scheduler.config == plain.scheduler.config


def test_a_folder_of_no_known_family_works_through_its_index(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("sd15"), tmp_path / "pag")
    edit(folder / "model_index.json", _class_name="StableDiffusionPAGPipeline")
    model = load_tiny(folder)
    assert type(model.pipe).__name__ == "StableDiffusionPAGPipeline" and model.files.family is None


def test_two_models_share_what_is_the_same_in_both(tiny: Tiny, tmp_path: Path) -> None:
    other = write_tiny_sd(tmp_path / "other", seed=1)
    for name in ("vae", "text_encoder"):
        shutil.copytree(tiny("sd15") / name, other / name, dirs_exist_ok=True)
    # What the programs that saved them left behind makes no difference.
    edit(other / "vae" / "config.json", _diffusers_version="0.20.0", _name_or_path="/somewhere/else")
    edit(other / "text_encoder" / "config.json", transformers_version="4.30.0", torch_dtype="float16")
    pool = Pool()
    first, second = load_tiny(tiny("sd15"), pool=pool), load_tiny(other, pool=pool)
    assert first.pipe.vae is second.pipe.vae and first.pipe.text_encoder is second.pipe.text_encoder
    assert first.pipe.unet is not second.pipe.unet
    assert pool.loads == 4


@pytest.mark.slow
def test_other_weights_types_and_quantisations_are_not_shared(tiny: Tiny, tmp_path: Path) -> None:
    pool = Pool()
    plain = load_tiny(tiny("sd15"), pool=pool)
    half = load_tiny(tiny("sd15"), MemorySettings(dtype="bfloat16"), pool)
    small = load_tiny(tiny("sd15"), MemorySettings(techniques=("denoiser_int8",)), pool)
    assert plain.pipe.unet.dtype == torch.float32 and half.pipe.unet.dtype == torch.bfloat16
    assert quantized_as(small.pipe.unet) == "int8" and quantized_as(plain.pipe.unet) is None
    assert small.pipe.vae is plain.pipe.vae and small.pipe.text_encoder is plain.pipe.text_encoder
    scaled = copy(tiny("sd15"), tmp_path / "scaled")
    edit(scaled / "vae" / "config.json", scaling_factor=0.5)
    assert load_tiny(scaled, pool=pool).pipe.vae is not plain.pipe.vae


def test_encoders_and_denoiser_are_quantised_separately(tiny: Tiny) -> None:
    model = load_tiny(tiny("flux"), MemorySettings(techniques=("encoder_int8",)))
    kinds = {name: quantized_as(module) for name, module in modules(model.pipe).items()}
    assert kinds == {"text_encoder": "int8", "text_encoder_2": "int8", "transformer": None, "vae": None}


@pytest.mark.slow
def test_float16_has_exceptions(tiny: Tiny) -> None:
    half = MemorySettings(dtype="float16")
    flux = modules(load_tiny(tiny("flux"), half).pipe)
    assert flux["transformer"].dtype == flux["text_encoder"].dtype == torch.float16
    assert flux["text_encoder_2"].dtype == torch.bfloat16, "T5"
    sdxl = modules(load_tiny(tiny("sdxl"), half).pipe)
    assert sdxl["vae"].dtype == torch.float32 and sdxl["unet"].dtype == torch.float16
    assert load_tiny(tiny("sd15"), half).pipe.vae.dtype == torch.float16
    sana = load_tiny(tiny("sana"), half)
    held = modules(sana.pipe)
    assert held["vae"].dtype == torch.float32, "cards without bfloat16 have no convolutions in it"
    assert held["text_encoder"].dtype == torch.bfloat16 and held["transformer"].dtype == torch.float16
    assert true_bytes(held["vae"]) == next(
        one.held_bytes(half) for one in Sizes.from_files(sana.files).components if one.name == "vae"
    )


def test_a_repaired_vae_of_sdxl_stays_in_float16() -> None:
    pipeline = "StableDiffusionXLPipeline"
    assert component_dtype("AutoencoderKL", pipeline, {"force_upcast": False}, "float16") == "float16"
    assert component_dtype("AutoencoderKL", pipeline, {}, "float16") == "float32", "the class's default is true"
    assert component_dtype("AutoencoderKL", pipeline, {}, "bfloat16") == "bfloat16"


def test_one_component_is_loaded_again_as_memory_says(tiny: Tiny) -> None:
    model = load_tiny(tiny("sd15"))
    unet = model.pipe.unet
    model.memory = MemorySettings(techniques=("denoiser_int8",))
    again = load_component(model, "unet")
    assert quantized_as(again) == "int8" and model.pipe.unet is unet
    model.memory = MemorySettings()
    assert load_component(model, "unet") is unet, "still in the pool"


def test_the_tiny_vae_takes_the_place_of_the_own_one(tiny: Tiny, tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    AutoencoderTiny(encoder_block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8)).save_pretrained(
        tmp_path / "taesd"
    )
    memory = requested_memory("none", "float32", {"tiny_vae": True}, "cpu", tiny_vae=str(tmp_path / "taesd"))
    model = load_tiny(tiny("sd15"), memory)
    assert type(model.pipe.vae) is AutoencoderTiny
    model.memory = MemorySettings()
    assert type(load_component(model, "vae")).__name__ == "AutoencoderKL"


def test_another_vae_is_loaded_instead_of_the_own_one(tiny: Tiny, tmp_path: Path) -> None:
    other = write_tiny_sd(tmp_path / "other", seed=5)
    model = load_tiny(tiny("sd15"), vae=str(other / "vae"))
    wanted = load_tiny(other).pipe.vae.state_dict()
    assert all(torch.equal(wanted[name], tensor) for name, tensor in model.pipe.vae.state_dict().items())


def test_a_vae_that_is_none_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match="vae unet: is no VAE, but Stable Diffusion"):
        load_tiny(tiny("sd15"), vae=str(tiny("sd15") / "unet"))


@pytest.fixture
def with_checker(tiny: Tiny, tmp_path: Path) -> Path:
    """A Stable Diffusion folder with a tiny safety checker."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessorPil

    folder = copy(tiny("sd15"), tmp_path / "checked")
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(vision_config={**vision, "image_size": 32, "patch_size": 16}, projection_dim=8)
    StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
    CLIPImageProcessorPil(size=32, crop_size=32).save_pretrained(folder / "feature_extractor")
    edit(
        folder / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    return folder


def test_the_safety_checker_runs_only_when_asked_for(with_checker: Path) -> None:
    assert load_tiny(with_checker).pipe.safety_checker is None
    pipe = load_tiny(with_checker, safety_checker=True).pipe
    assert type(pipe.safety_checker).__name__ == "StableDiffusionSafetyChecker"
    assert pipe.config.requires_safety_checker and pipe.feature_extractor is not None
    assert not any(parameter.requires_grad for parameter in pipe.safety_checker.parameters())


def test_a_safety_checker_that_is_not_there_is_one_line(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match=r"sdxl: has no safety checker; leave model\.safety_checker at false"):
        load_tiny(tiny("sdxl"), safety_checker=True)


def test_sdxl_gets_no_watermark_even_where_its_package_is_there(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl as module

    monkeypatch.setattr(module, "is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(module, "StableDiffusionXLWatermarker", object, raising=False)
    assert load_tiny(tiny("sdxl")).pipe.watermark is None


def test_the_prediction_type_can_be_set_by_hand(tiny: Tiny) -> None:
    assert load_tiny(tiny("sd15")).own_scheduler.config.prediction_type == "epsilon"
    model = load_tiny(tiny("sd15"), prediction_type="v_prediction")
    assert model.own_scheduler.config.prediction_type == "v_prediction"
    assert model.pipe.scheduler is model.own_scheduler


def test_classes_that_the_libraries_lack_are_named(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("sd15"), tmp_path / "future")
    edit(folder / "model_index.json", tokenizer=["transformers", "HoloTokenizer"])
    with pytest.raises(ModelError, match=r"tokenizer is a HoloTokenizer, which transformers .* does not have; a newer"):
        load_tiny(folder)
    edit(folder / "model_index.json", _class_name="AutoencoderKL", tokenizer=["transformers", "CLIPTokenizer"])
    with pytest.raises(ModelError, match="has no pipeline AutoencoderKL; a newer diffusers may"):
        load_tiny(folder)


@pytest.mark.parametrize("name", ["unet", "text_encoder"])
def test_weights_that_lack_a_tensor_are_refused_not_drawn_at_random(tiny: Tiny, tmp_path: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy(tiny("sd15"), tmp_path / "holed")
    (file,) = (folder / name).glob("*.safetensors")
    tensors = load_file(file)
    (gone,) = [key for key in tensors if key.endswith(("conv_in.bias", "final_layer_norm.bias"))]
    del tensors[gone]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"holed: {name}/ lacks 1 of its tensors, the first is .*; fetch"):
        load_tiny(folder)


def test_a_stored_quantisation_names_the_extra_that_reads_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    folder = copy(tiny("sd15"), tmp_path / "nf4")
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    edit(folder / "unet" / "config.json", quantization_config=config)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(
        ModelError, match=r"unet is stored as bitsandbytes nf4, .* pip install 'darkroom\[bitsandbytes\]'"
    ):
        load_tiny(folder)


def test_a_load_that_fails_leaves_nothing_in_use(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("sd15"), tmp_path / "broken")
    edit(folder / "unet" / "config.json", block_out_channels=[32, 48])
    pool = Pool()
    with pytest.raises(ModelError, match=r"broken: unet cannot be loaded: "):
        load_tiny(folder, pool=pool)
    assert pool.bytes_on_host > 0, "what was loaded before is kept for the next model"
    pool.clear()
    assert pool.bytes_on_host == 0


def test_memory_that_runs_out_while_loading_is_said_to_be_that(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import CLIPTextModel

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(CLIPTextModel, "from_pretrained", refuse)
    with pytest.raises(OutOfMemory, match="out of memory"):
        load_tiny(tiny("sd15"))


def test_a_folder_with_zero_snr_keeps_its_own_spacing(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("sd15"), tmp_path / "zero")
    edit(folder / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True, timestep_spacing="linspace")
    config = load_tiny(folder).own_scheduler.config
    assert config.rescale_betas_zero_snr and config.timestep_spacing == "linspace"


SILENT = """
import sys
from pipeline.loading.load import load
from pipeline.registry.model_settings import identify
from pipeline.request import MemorySettings
for source in sys.argv[1:]:
    load(identify(source)[0], MemorySettings(techniques=("denoiser_int8",)), "cpu")
"""


@pytest.mark.slow
def test_loading_prints_nothing(tiny: Tiny) -> None:
    command = [sys.executable, "-c", SILENT, str(tiny("sd15")), str(tiny("chroma")), str(tiny("flux2_klein"))]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
