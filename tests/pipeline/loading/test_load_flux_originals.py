"""FLUX.1 and Chroma by their authors' own tensor names, at their width: diffusers' converter has 3072 written into it.

One double and one single block of the real size, in bfloat16, half to one gigabyte; everything else is tiny.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from published_weights import RENAMED, diffusers_shapes, original_shapes, renamed_by, write_header
from safetensors.torch import load_file, save_file
from tiny_checkpoints import write_checkpoint

from pipeline.errors import ModelError
from pipeline.loading.load import load
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.quantization import true_bytes
from pipeline.memory.planning.sizes import Sizes
from pipeline.registry.model_settings import identify
from pipeline.request import MemorySettings
from pipeline.weights.inspection import inspect_file, inspect_model

Tiny = Callable[[str], Path]
Tensors = dict[str, torch.Tensor]

pytestmark = pytest.mark.slow

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "FLUX.1 dev": ("flux", "FluxTransformer2DModel", {"guidance_embeds": True}),
    "FLUX.1 schnell": ("flux", "FluxTransformer2DModel", {"guidance_embeds": False}),
    "Chroma": ("chroma", "ChromaTransformer2DModel", {}),
}
WIDE = {
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "axes_dims_rope": [16, 56, 56],
    "num_layers": 1,
    "num_single_layers": 1,
}
ONE_BELOW_THE_OTHER = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "proj_mlp")
"""Queries, keys, values, then the way in of the MLP: the order of `qkv` and `linear1` in the authors' `layers.py`."""


@pytest.fixture
def folder_of(tiny: Tiny, tmp_path: Path) -> Callable[[str], Path]:
    """A folder in which the wide transformer is described, and its weights are not."""

    def folder(label: str) -> Path:
        family, _, changes = MODELS[label]
        copy = Path(shutil.copytree(tiny(family), tmp_path / label.replace(" ", "_")))
        for weights in (copy / "transformer").glob("*.safetensors"):
            weights.unlink()
        path = copy / "transformer" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | WIDE | changes))
        return copy

    return folder


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The place of a large file, which is gone when the test is over."""
    path = tmp_path / "wide.safetensors"
    yield path
    path.unlink()


def weights_for(folder: Path) -> Tensors:
    """Weights for that transformer by diffusers' names, every tensor another one and all of them small."""
    config = json.loads((folder / "transformer" / "config.json").read_text())
    options = {name: value for name, value in config.items() if not name.startswith("_")}
    torch.manual_seed(0)
    return {
        name: torch.empty(shape, dtype=torch.bfloat16).uniform_(-0.02, 0.02)
        for name, shape in diffusers_shapes(config["_class_name"], **options).items()
    }


def originals(tensors: Tensors, class_name: str) -> Tensors:
    """The same by their authors' names."""
    groups: dict[str, list[str]] = {}
    for name in tensors:
        groups.setdefault(renamed_by(name, RENAMED[class_name]), []).append(name)
    made: Tensors = {}
    for new, names in groups.items():
        names.sort(key=lambda name: next((i for i, part in enumerate(ONE_BELOW_THE_OTHER) if f".{part}." in name), 0))
        made[new] = torch.cat([tensors[name] for name in names]) if len(names) > 1 else tensors[names[0]]
        if new.startswith("final_layer.adaLN_modulation.1."):
            scale, shift = made[new].chunk(2)
            made[new] = torch.cat([shift, scale])  # the authors' modulation gives the shift first
    return made


def load_wide(file: Path, folder: Path) -> LoadedModel:
    return load(identify(str(file), config=str(folder))[0], MemorySettings(dtype="bfloat16"), "cpu")


def draw(model: LoadedModel) -> Any:
    with torch.inference_mode():
        return model.pipe(
            "a cat",
            num_inference_steps=1,
            height=32,
            width=32,
            max_sequence_length=16,
            output_type="np",
            generator=torch.Generator().manual_seed(7),
        ).images


@pytest.mark.parametrize(
    ("label", "prefix"),
    [
        ("FLUX.1 dev", ""),
        pytest.param("FLUX.1 schnell", "model.diffusion_model.", marks=pytest.mark.campaign),
        pytest.param("Chroma", "", marks=pytest.mark.campaign),
        pytest.param("Chroma", "model.diffusion_model.", marks=pytest.mark.campaign),
    ],
)
def test_the_authors_file_becomes_the_transformer_tensor_by_tensor(
    folder_of: Callable[[str], Path], file: Path, label: str, prefix: str
) -> None:
    folder = folder_of(label)
    tensors = weights_for(folder)
    save_file({prefix + name: t for name, t in originals(tensors, MODELS[label][1]).items()}, file)

    facts = inspect_file(file)
    assert (facts.kind, facts.family, facts.label, facts.layout) == ("denoiser", MODELS[label][0], label, "original")
    assert (facts.prefix, facts.blocks, facts.attention_width) == (prefix, 1, 3072)
    assert facts.guidance_embedded is MODELS[label][2].get("guidance_embeds")

    model = load_wide(file, folder)
    loaded = model.pipe.transformer.state_dict()
    assert loaded.keys() == tensors.keys()
    assert [name for name in tensors if not torch.equal(loaded[name], tensors[name])] == []
    assert draw(model).std() > 0.01


@pytest.mark.campaign
def test_a_whole_checkpoint_in_float8_brings_its_encoders_and_vae(
    folder_of: Callable[[str], Path], tiny: Tiny, tmp_path: Path, file: Path
) -> None:
    """As ComfyUI's users share FLUX.1 dev; it is computed with, and counted, in 16 bits."""
    folder = folder_of("FLUX.1 dev")
    tensors = {name: t.to(torch.float8_e4m3fn) for name, t in weights_for(folder).items()}
    rest = load_file(write_checkpoint(tiny("flux"), tmp_path / "rest.safetensors", without="transformer"))
    own = {f"model.diffusion_model.{n}": t for n, t in originals(tensors, "FluxTransformer2DModel").items()}
    save_file(own | rest, file)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()  # so that nothing can be taken from there
    model = load_wide(file, folder)
    assert (model.files.layout, model.files.label) == ("checkpoint", "FLUX.1 dev")
    loaded = model.pipe.transformer.state_dict()
    assert [name for name in tensors if not torch.equal(loaded[name], tensors[name].to(torch.bfloat16))] == []
    t5 = load_file(next((tiny("flux") / "text_encoder_2").glob("*.safetensors")))
    assert torch.equal(model.pipe.text_encoder_2.state_dict()["shared.weight"], t5["shared.weight"].bfloat16())
    denoiser = Sizes.from_files(model.files).largest("denoiser")
    assert denoiser is not None and denoiser.held_bytes(model.memory) == true_bytes(model.pipe.transformer)
    assert draw(model).std() > 0.01


def test_dev_and_schnell_are_not_taken_for_each_other(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    for label, model, other in (
        ("FLUX.1 dev", "flux_dev", "FLUX.1 schnell"),
        ("FLUX.1 schnell", "flux_schnell", "FLUX.1 dev"),
    ):
        own, wrong = folder_of(label), folder_of(other)
        for config in (own / "transformer" / "config.json", wrong / "transformer" / "config.json"):
            config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 19, "num_single_layers": 38}))
        header = write_header(tmp_path / f"{model}.safetensors", original_shapes(model), "BF16")
        assert inspect_model(header, own).label == label
        with pytest.raises(ModelError, match=rf"is {label}, but .* says guidance_embeds"):
            inspect_model(header, wrong)
        shutil.rmtree(own)
        shutil.rmtree(wrong)
