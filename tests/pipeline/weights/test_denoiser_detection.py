"""Denoisers are known by the names and shapes of their tensors: every family, and no other model taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from published_weights import (
    PUBLISHED,
    diffusers_shapes,
    original_shapes,
    prefixed,
    published_shapes,
    write_header,
)

from pipeline.errors import ModelError
from pipeline.weights.adapter_detection import detect_adapter
from pipeline.weights.denoiser_detection import detect, prediction_markers
from pipeline.weights.families import FAMILIES
from pipeline.weights.inspection import inspect_file

KNOWN = {
    "sd15": ("sd15", "Stable Diffusion 1.x", 768),
    "sd21": ("sd15", "Stable Diffusion 2.x", 1024),
    "sdxl": ("sdxl", "Stable Diffusion XL", 2048),
    "sd3": ("sd3", "Stable Diffusion 3 medium", 1536),
    "sd35_medium": ("sd3", "Stable Diffusion 3.5 medium", 1536),
    "sd35_large": ("sd3", "Stable Diffusion 3.5 large", 2432),
    "flux_dev": ("flux", "FLUX.1 dev", 3072),
    "flux_schnell": ("flux", "FLUX.1 schnell", 3072),
    "flux2_klein": ("flux2_klein", "FLUX.2 klein 4B", 3072),
    "chroma": ("chroma", "Chroma", 3072),
    "qwen_image": ("qwen_image", "Qwen-Image", 3072),
    "z_image": ("z_image", "Z-Image", 3840),
    "sana": ("sana", "Sana", 2240),
    "pixart_sigma": ("pixart_sigma", "PixArt-Sigma", 1152),
    "lumina2": ("lumina2", "Lumina-Image 2.0", 2304),
}
REFUSED = {
    "sdxl_inpaint": "Stable Diffusion XL, made for inpainting",
    "sdxl_refiner": "refiner of Stable Diffusion XL",
    "flux_fill": "FLUX.1 Fill",
    "flux2_dev": "FLUX.2 dev",
    "pixart_alpha": "PixArt-Alpha",
}
PARAMETERS = {  # of the published weights that are not of the size which the family's entry has
    "sd21": 0.866e9,
    "sd3": 2.028e9,
    "sd35_large": 8.057e9,
    "flux_schnell": 11.89e9,
}


def test_every_published_model_of_the_tables_is_tested() -> None:
    assert {*KNOWN, *REFUSED} == {*PUBLISHED}
    assert {family for family, *_ in KNOWN.values()} == {*FAMILIES}


@pytest.mark.parametrize("layout", ["diffusers", "original"])
@pytest.mark.parametrize("model", KNOWN)
def test_published_denoiser_is_known_by_its_header(model: str, layout: str, tmp_path: Path) -> None:
    family, label, width = KNOWN[model]
    shapes = published_shapes(model) if layout == "diffusers" else original_shapes(model)
    bare = inspect_file(write_header(tmp_path / "bare.safetensors", shapes))
    comfy = inspect_file(
        write_header(tmp_path / "comfy.safetensors", prefixed(shapes, "model.diffusion_model."), "BF16")
    )
    assert (bare.prefix, comfy.prefix) == ("", "model.diffusion_model.")
    assert (bare.dtype, comfy.dtype) == ("float16", "bfloat16")
    for facts in (bare, comfy):
        assert (facts.kind, facts.family, facts.label, facts.attention_width) == ("denoiser", family, label, width)
        assert facts.layout == ("diffusers" if model == "qwen_image" else layout)
        expected = PARAMETERS.get(model, FAMILIES[family].parameters[FAMILIES[family].denoiser])
        assert facts.parameters == pytest.approx(expected, rel=0.01)
        (denoiser,) = facts.components
        assert denoiser.name == FAMILIES[family].denoiser
        assert denoiser.class_name == PUBLISHED[model][0]
        assert denoiser.file_bytes == facts.path.stat().st_size - _header_bytes(facts.path)


@pytest.mark.parametrize("model", REFUSED)
def test_other_models_of_the_same_makers_are_refused_by_name(model: str, tmp_path: Path) -> None:
    for shapes in (published_shapes(model), original_shapes(model)):
        with pytest.raises(ModelError, match=REFUSED[model]):
            inspect_file(write_header(tmp_path / "other.safetensors", shapes))


@pytest.mark.parametrize("model", [model for model in PUBLISHED if PUBLISHED[model][0] != "PixArtTransformer2DModel"])
def test_the_original_names_are_those_that_diffusers_converts(model: str) -> None:
    """The names above are right: diffusers' own converter makes every tensor of its class from them, and no other."""
    import torch
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    class_name, configuration = PUBLISHED[model]
    prefix = "model.diffusion_model." if class_name == "UNet2DConditionModel" else ""
    checkpoint = {prefix + name: torch.empty(shape, device="meta") for name, shape in original_shapes(model).items()}
    convert = SINGLE_FILE_LOADABLE_CLASSES[class_name]["checkpoint_mapping_fn"]
    converted = convert(checkpoint, config={"layers_per_block": 2, **configuration})
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == published_shapes(model)


@pytest.mark.campaign
def test_no_other_denoiser_of_diffusers_is_taken_for_a_known_family() -> None:
    import diffusers

    ours = {family.denoiser_class for family in FAMILIES.values()}
    seen = 0
    for name in dir(diffusers):
        if not _is_denoiser(name) or name in ours:
            continue
        try:
            shapes = diffusers_shapes(name)
        except (TypeError, ValueError, RuntimeError):  # classes that cannot be made from their defaults
            continue
        seen += 1
        assert [known for known in detect(shapes) if known.family] == [], name
    assert seen > 50


def _is_denoiser(name: str) -> bool:
    return name.endswith(("TransformerModel", "Transformer1DModel", "Transformer2DModel", "Transformer3DModel")) or (
        name.endswith(("UNet", "ControlNetModel", "UNet2DModel")) and not name.startswith("Flax")
    )


def test_files_of_no_family_are_refused_with_their_keys_and_never_taken_for_sd15(tmp_path: Path) -> None:
    path = write_header(tmp_path / "odd.safetensors", {"foo": (2, 2), "bar.weight": (3,)})
    with pytest.raises(ModelError, match=r"odd.safetensors: is of no family that is known here.*foo, bar.weight"):
        inspect_file(path)
    unet = {name: shape for name, shape in published_shapes("sd15").items() if "attn2" not in name}
    with pytest.raises(ModelError, match="no family that is known here"):
        inspect_file(write_header(tmp_path / "unet.safetensors", unet))
    wide = {
        name: (shape[0], 4096) if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) else shape
        for name, shape in published_shapes("sd15").items()
    }
    with pytest.raises(ModelError, match="cross attention 4096 wide"):
        inspect_file(write_header(tmp_path / "wide.safetensors", wide))


@pytest.mark.parametrize("layout", ["diffusers", "original"])
@pytest.mark.parametrize("model", PUBLISHED)
def test_a_header_with_the_right_names_and_no_such_shapes_ends_nothing(model: str, layout: str) -> None:
    names = original_shapes(model) if layout == "original" else published_shapes(model)
    for shape in ((), (4,)):
        assert detect(dict.fromkeys(names, shape))


@pytest.mark.parametrize(
    "names",
    [
        ("controlnet_x_embedder.weight", "transformer_blocks.0.attn.to_q.weight"),
        ("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"),
    ],
)
def test_neither_does_one_of_an_adapter(names: tuple[str, ...]) -> None:
    for shape in ((), (4,)):
        found = detect_adapter(dict.fromkeys(names, shape))
        assert found and found.attention_width is None and found.image_width is None


def test_files_with_keys_of_two_families_are_refused_with_both_names(tmp_path: Path) -> None:
    mixed = original_shapes("flux_schnell") | original_shapes("sd3")
    with pytest.raises(ModelError, match=r"mixes families.*Stable Diffusion 3.*FLUX.1 schnell"):
        inspect_file(write_header(tmp_path / "mixed.safetensors", mixed))


@pytest.mark.parametrize(
    ("keys", "metadata", "expected"),
    [
        ((), {}, (None, False)),
        (("v_pred",), {}, ("v_prediction", False)),
        (("v_pred", "ztsnr"), {}, ("v_prediction", True)),
        ((), {"modelspec.prediction_type": "v"}, ("v_prediction", False)),
        ((), {"modelspec.predict_key": "epsilon"}, ("epsilon", False)),
        ((), {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"}, ("v_prediction", True)),
        ((), {"ss_v_parameterization": "False"}, (None, False)),
    ],
)
def test_markers_tell_what_was_trained_to_be_predicted(
    keys: tuple[str, ...], metadata: dict[str, str], expected: tuple[str | None, bool], tmp_path: Path
) -> None:
    assert prediction_markers(keys, metadata) == expected
    shapes = original_shapes("sdxl") | dict.fromkeys(keys, (0,))
    facts = inspect_file(write_header(tmp_path / "xl.safetensors", shapes, metadata=metadata))
    assert (facts.prediction_type, facts.zero_snr) == expected


def test_stable_diffusion_2_says_that_its_prediction_type_cannot_be_told(tmp_path: Path) -> None:
    facts = inspect_file(write_header(tmp_path / "sd2.safetensors", original_shapes("sd21")))
    assert facts.prediction_type is None
    assert "model.prediction_type" in facts.notes[0]


def _header_bytes(path: Path) -> int:
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")
