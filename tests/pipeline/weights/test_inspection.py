"""Folders and single files that make pictures: what they hold, and one clear line for what is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published_weights import original_shapes, prefixed, published_shapes, write_header

from pipeline.errors import ModelError
from pipeline.registry.model_settings import identify, weight_files
from pipeline.weights.families import FAMILIES
from pipeline.weights.inspection import inspect_file, inspect_model
from pipeline.weights.shipped import SHIPPED

Tiny = Callable[[str], Path]


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "mine"))


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def denoiser_file(folder: Path) -> Path:
    name = "unet" if (folder / "unet").is_dir() else "transformer"
    return folder / name / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("family", FAMILIES)
def test_folder_of_every_family_is_described(family: str, tiny: Tiny) -> None:
    folder = tiny(family)
    files = inspect_model(folder)
    known = FAMILIES[family]
    assert (files.family, files.layout, files.pipeline_class) == (family, "folder", known.pipeline_class)
    assert files.denoiser == known.denoiser
    assert files.latent_channels == known.latent_channels
    assert {component.name for component in files.components} == {*known.parameters}
    denoiser = files.component(known.denoiser)
    assert denoiser is not None and denoiser.class_name == known.denoiser_class
    for component in files.components:
        header = component.files[0].read_bytes()[:8]
        assert component.file_bytes == component.files[0].stat().st_size - 8 - int.from_bytes(header, "little")
        assert component.dtype == "float32"
        assert component.file_bytes >= 4 * component.parameters > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_lone_denoiser_of_every_family_takes_the_rest_from_a_folder(family: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = tiny(family)
    name = FAMILIES[family].denoiser
    file = Path(shutil.copy(folder / name / "diffusion_pytorch_model.safetensors", tmp_path / "mine.safetensors"))
    with pytest.raises(ModelError, match=rf"holds only {name}; give model\.config=FOLDER"):
        inspect_model(file)
    rest = copy(folder, tmp_path)
    (rest / name / "diffusion_pytorch_model.safetensors").unlink()
    alone, whole = inspect_model(file, rest), inspect_model(folder)
    assert (alone.layout, alone.family, alone.config) == ("denoiser", family, rest)
    assert {c.name: c.parameters for c in alone.components} == {c.name: c.parameters for c in whole.components}
    denoiser = alone.component(name)
    assert denoiser is not None and denoiser.files == (file,)
    assert alone.files[0] == file and rest / name / "config.json" in alone.files


def test_distilled_models_say_that_guidance_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    assert not inspect_model(tiny("flux")).guidance_distilled
    klein = copy(tiny("flux2_klein"), tmp_path)
    for distilled in (False, True):
        edit(klein / "model_index.json", is_distilled=distilled)
        assert inspect_model(klein).guidance_distilled is distilled
    schnell = Path(shutil.copytree(tiny("flux"), tmp_path / "schnell"))
    edit(schnell / "transformer" / "config.json", guidance_embeds=False)
    assert inspect_model(schnell).guidance_distilled


def test_prediction_type_and_zero_snr_of_a_folder_are_those_of_its_scheduler(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("sdxl"), tmp_path)
    assert (inspect_model(folder).prediction_type, inspect_model(folder).zero_snr) == ("epsilon", False)
    edit(folder / "scheduler/scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert (inspect_model(folder).prediction_type, inspect_model(folder).zero_snr) == ("v_prediction", True)
    assert inspect_model(tiny("sana")).prediction_type is None


def test_quantisation_that_a_configuration_speaks_of_is_told(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("flux"), tmp_path)
    said = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    edit(folder / "transformer/config.json", quantization_config=said)
    files = inspect_model(folder)
    assert files.quantization == "bitsandbytes nf4"
    assert [c.quantization for c in files.components if c.name != "transformer"] == [None] * 3


def nested(kind: str) -> dict[str, Any]:
    """As torchao's settings are written since 0.15."""
    return {"default": {"_data": {"group_size": None}, "_type": kind, "_version": 2}}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (nested("Int8WeightOnlyConfig"), "torchao int8"),
        (nested("Int8DynamicActivationInt8WeightConfig"), "torchao int8"),
        ("int8_weight_only", "torchao int8"),
        ("int8wo", "torchao int8"),
        (nested("Float8WeightOnlyConfig"), "torchao"),
        (nested("Int4WeightOnlyConfig"), "torchao"),
        (None, "torchao"),
    ],
)
def test_what_torchao_stored_as_int8_is_told(tiny: Tiny, tmp_path: Path, said: Any, told: str) -> None:
    folder = copy(tiny("flux"), tmp_path)
    edit(folder / "transformer/config.json", quantization_config={"quant_method": "torchao", "quant_type": said})
    assert inspect_model(folder).quantization == told


def shard(folder: Path) -> dict[str, str]:
    """Split the weights of a component in two, with an index; returns its map from tensor to file."""
    from safetensors.torch import load_file, save_file

    whole = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    parts = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    placed = {name: parts[index % 2] for index, name in enumerate(sorted(tensors))}
    for part in parts:
        save_file({name: tensors[name] for name in tensors if placed[name] == part}, folder / part)
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    return placed


def test_shards_are_one_component(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("z_image"), tmp_path)
    shard(folder / "transformer")
    one, two = inspect_model(tiny("z_image")).component("transformer"), inspect_model(folder).component("transformer")
    assert one is not None and two is not None and len(two.files) == 2
    assert (one.parameters, one.file_bytes) == (two.parameters, two.file_bytes)
    assert inspect_file(folder / "transformer").label == "Z-Image"


def test_missing_shard_and_missing_tensor_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("z_image"), tmp_path)
    placed = shard(folder / "transformer")
    index = folder / "transformer/diffusion_pytorch_model.safetensors.index.json"
    edit(index, weight_map=placed | {"lost.weight": next(iter(placed.values()))})
    with pytest.raises(ModelError, match=r"lacks the tensor 'lost\.weight', which .*index\.json places there"):
        inspect_model(folder)
    edit(index, weight_map=placed)
    (folder / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"transformer/ lacks diffusion_pytorch_model-00002-of-00002.safetensors"):
        inspect_model(folder)
    index.unlink()
    with pytest.raises(ModelError, match="transformer/ has 1 of 2 parts"):
        inspect_model(folder)
    index.write_text("{}")
    with pytest.raises(ModelError, match=r"index\.json cannot be read"):
        inspect_model(folder)


def test_damaged_weights_of_a_component_are_named_with_model_and_folder(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("flux"), tmp_path)
    os.truncate(denoiser_file(folder), 1000)
    with pytest.raises(ModelError, match=r"^model mine: transformer/diffusion_pytorch_model\.safetensors: "):
        inspect_model(folder)


def test_weights_that_no_library_loads_are_passed_over(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("sd15"), tmp_path)
    shutil.copy(denoiser_file(folder), folder / "unet" / "backup.safetensors")
    shutil.copy(denoiser_file(folder), folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors")
    assert [len(component.files) for component in inspect_model(folder).components] == [1, 1, 1]
    assert identify(str(folder))[0].sha256 == identify(str(tiny("sd15")))[0].sha256


def test_folder_that_mixes_families_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("flux"), tmp_path)
    edit(folder / "model_index.json", transformer=["diffusers", "SD3Transformer2DModel"])
    with pytest.raises(ModelError, match="mixes families: FluxPipeline denoises with FluxTransformer2DModel"):
        inspect_model(folder)
    shutil.rmtree(folder)
    folder = copy(tiny("flux"), tmp_path)
    shutil.copy(denoiser_file(tiny("chroma")), denoiser_file(folder))
    with pytest.raises(ModelError, match=r"speaks of FLUX\.1, but transformer/ holds the weights of Chroma"):
        inspect_model(folder)


def test_component_that_the_index_leaves_out_is_named(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("sd3"), tmp_path)
    edit(folder / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    assert inspect_model(folder).component("text_encoder_3") is None  # SD3 runs without its T5
    edit(folder / "model_index.json", vae=[None, None])
    with pytest.raises(ModelError, match=r"model_index.json has no vae, which Stable Diffusion 3\.5 needs"):
        inspect_model(folder)


def test_folder_of_another_pipeline_is_described_by_its_index(tiny: Tiny, tmp_path: Path) -> None:
    folder = copy(tiny("sd15"), tmp_path)
    edit(folder / "model_index.json", _class_name="HoloPipeline", unet=["diffusers", "HoloModel"])
    files = inspect_model(folder)
    assert (files.family, files.label, files.pipeline_class) == (None, "Holo", "HoloPipeline")


def checkpoint(path: Path, family: str = "sd15", without: str = "nothing", **markers: tuple[int, ...]) -> Path:
    """A full checkpoint in the authors' layout, of the published shapes."""
    shapes = prefixed(original_shapes(family), "model.diffusion_model.") | {
        "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
        "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
        "model_ema.decay": (),
    }
    if family == "sdxl":
        shapes["conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight"] = (77, 768)
        shapes["conditioner.embedders.1.model.positional_embedding"] = (77, 1280)
    else:
        shapes["cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"] = (77, 768)
    kept = {name: shape for name, shape in shapes.items() if not name.startswith(without)}
    return write_header(path, kept | markers)


@pytest.mark.parametrize("family", SHIPPED)
def test_full_checkpoint_needs_no_folder_where_its_configuration_is_shipped(family: str, tmp_path: Path) -> None:
    files = inspect_model(checkpoint(tmp_path / "mine.safetensors", family))
    assert (files.layout, files.family, files.config) == ("checkpoint", family, SHIPPED[family])
    assert {component.name for component in files.components} == {*FAMILIES[family].parameters}
    assert (files.width, files.height) == (FAMILIES[family].size,) * 2
    assert files.prediction_type == "epsilon"
    assert files.max_clip_skip == (12 if family == "sd15" else 11)
    unet = files.component("unet")
    assert unet is not None and unet.parameters == pytest.approx(FAMILIES[family].parameters["unet"], rel=0.01)


def test_markers_of_a_checkpoint_decide_over_the_shipped_configuration(tmp_path: Path) -> None:
    files = inspect_model(checkpoint(tmp_path / "mine.safetensors", "sdxl", v_pred=(0,), ztsnr=(0,)))
    assert (files.prediction_type, files.zero_snr) == ("v_prediction", True)


def test_stable_diffusion_2_is_not_given_the_configuration_of_1(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Stable Diffusion 2\.x of 1024 wide attention.*describes 768"):
        inspect_model(checkpoint(tmp_path / "mine.safetensors", "sd21"))


def test_checkpoint_without_its_text_encoder_needs_a_folder(tmp_path: Path) -> None:
    path = write_header(tmp_path / "unet.safetensors", prefixed(original_shapes("sdxl"), "model.diffusion_model."))
    with pytest.raises(ModelError, match=r"holds only unet; give model\.config=FOLDER"):
        inspect_model(path)


def test_checkpoint_without_its_vae_takes_the_one_that_is_given(tiny: Tiny, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "novae.safetensors", without="first_stage_model.")
    with pytest.raises(ModelError, match=r"holds only unet, text_encoder; give model\.vae=PATH, or model\.config"):
        inspect_model(path)
    files = inspect_model(path, supplied=("vae",))
    assert (files.layout, files.config) == ("denoiser", SHIPPED["sd15"])
    assert [component.name for component in files.components] == ["unet", "text_encoder"]


def test_folder_beside_a_file_must_be_of_the_same_model(tiny: Tiny, tmp_path: Path) -> None:
    flux = denoiser_file(tiny("flux"))
    with pytest.raises(ModelError, match=r"is FLUX\.1 dev, but model\.config=sd3 is Stable Diffusion 3"):
        inspect_model(flux, tiny("sd3"))
    schnell = copy(tiny("flux"), tmp_path)
    edit(schnell / "transformer/config.json", guidance_embeds=False)
    with pytest.raises(ModelError, match=r"is FLUX\.1 dev, but mine/transformer says guidance_embeds false"):
        inspect_model(flux, schnell)
    big = write_header(tmp_path / "big.safetensors", published_shapes("flux_dev"))
    with pytest.raises(ModelError, match=r"FLUX\.1 dev of 19 blocks, but flux/ describes 2"):
        inspect_model(big, tiny("flux"))
    with pytest.raises(ModelError, match=r"model\.config must be a diffusers folder"):
        inspect_model(big, flux)
    (schnell / "text_encoder/model.safetensors").unlink()
    with pytest.raises(ModelError, match="text_encoder/ has no weights"):
        inspect_model(flux, schnell)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 1280)}, "a LoRA"),
        ({"emb_params": (4, 768)}, "an embedding"),
        ({"decoder.conv_in.weight": (512, 4, 3, 3), "decoder.mid.block_1.conv1.weight": (512, 512, 3, 3)}, "a VAE"),
        ({"text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768)}, "a text encoder"),
    ],
)
def test_file_that_makes_no_pictures_by_itself_says_what_it_is(
    shapes: dict[str, tuple[int, ...]], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=f"makes no pictures by itself: it is {words}"):
        inspect_model(write_header(tmp_path / "mine.safetensors", shapes))


def test_layouts_and_quantisations_that_are_not_loaded_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    pixart = write_header(tmp_path / "pixart.safetensors", original_shapes("pixart_sigma"))
    with pytest.raises(ModelError, match="PixArt-Sigma in its authors' own layout"):
        inspect_model(pixart, tiny("pixart_sigma"))
    scaled = write_header(tmp_path / "flux.safetensors", original_shapes("flux_dev") | {"scaled_fp8": (0,)}, "F8_E4M3")
    with pytest.raises(ModelError, match=r"quantised as scaled float8.*as GGUF"):
        inspect_model(scaled, tiny("flux"))


def test_files_to_read_ahead_are_the_weights_of_file_folder_and_vae(tiny: Tiny, tmp_path: Path) -> None:
    flux, vae = denoiser_file(tiny("flux")), tiny("z_image") / "vae"
    settings, _ = identify(str(flux), config=str(tiny("flux")), vae=str(vae))
    assert {file.name for file in weight_files(settings)} == {
        "model.safetensors",
        "diffusion_pytorch_model.safetensors",
    }
    assert set(weight_files(settings)) == {
        flux,
        vae / "diffusion_pytorch_model.safetensors",
        tiny("flux") / "text_encoder/model.safetensors",
        tiny("flux") / "text_encoder_2/model.safetensors",
    }
