"""What LoRAs and IP-Adapters take: foretold by their headers, and how much of it stays when they are switched off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from adapter_files import layers_of, write_ip_adapter, write_lora, write_picture, write_tensors
from direct_calls import with_loras

import pipeline.adapters.apply_lora as lora_layers
from pipeline.adapters.apply import apply
from pipeline.adapters.identify_ip_adapter import identify_ip_adapter
from pipeline.adapters.specs import IpAdapterSpec
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.quantization import true_bytes
from pipeline.memory.planning.sizes import Sizes
from pipeline.request import Adapters, MemorySettings


def taken(model: LoadedModel) -> int:
    """True bytes of the denoiser and the text encoders."""
    names = (model.files.denoiser, *(name for name in model.pipe.components if name.startswith("text_encoder")))
    return sum(true_bytes(getattr(model.pipe, name)) for name in names)


def foretold(model: LoadedModel, adapters: Adapters, *others: Adapters) -> int:
    """What the headers say that adapters add to those."""
    sizes = Sizes.from_files(model.files)
    more = sizes.with_adapters(adapters, [lora for other in others for lora in other.loras])
    memory = MemorySettings(dtype="float32")
    before, after = ({one.name: one.held_bytes(memory) for one in of.components} for of in (sizes, more))
    return sum(after[name] - before[name] for name in before)


@pytest.mark.parametrize(("family", "form"), [("sd15", "peft"), ("sd15", "kohya"), ("sdxl", "peft"), ("flux", "peft")])
def test_a_lora_takes_what_its_header_says(
    load_tiny: Callable[..., LoadedModel], tmp_path: Path, family: str, form: str
) -> None:
    model = load_tiny(family)
    path = write_lora(
        tmp_path / "one.safetensors", layers_of(model.pipe, model.files.denoiser, "text_encoder"), form=form
    )
    adapters, before = with_loras(model, (path, 1.0)), taken(model)
    apply(model, adapters)
    assert foretold(model, adapters) == taken(model) - before > 0


def test_a_lora_on_fused_layers_takes_more_than_its_file(load_tiny: Callable[..., LoadedModel], tmp_path: Path) -> None:
    """Queries, keys and values are one layer to FLUX.1's authors and three to diffusers, each with a first matrix."""
    import torch

    model = load_tiny("flux")
    stem = "lora_unet_double_blocks_0_img_attn_qkv.lora_{}.weight"
    path = write_tensors(
        tmp_path / "fused.safetensors",
        **{stem.format("down"): torch.randn(4, 32), stem.format("up"): torch.randn(96, 4)},
    )
    adapters, before = with_loras(model, (path, 1.0)), taken(model)
    apply(model, adapters)
    assert foretold(model, adapters) == taken(model) - before == 4 * (3 * 4 * 32 + 96 * 4)


def test_the_same_lora_twice_counts_once_and_two_count_both(sd: LoadedModel, tmp_path: Path) -> None:
    layers = layers_of(sd.pipe, "unet")
    one, two = (write_lora(tmp_path / f"{seed}.safetensors", layers, seed=seed) for seed in (1, 2))
    alone = foretold(sd, with_loras(sd, (one, 1.0)))
    assert foretold(sd, with_loras(sd, (one, 1.0), (one, 0.5))) == alone
    assert foretold(sd, with_loras(sd, (one, 1.0), (two, 1.0))) == 2 * alone


def test_of_those_used_by_turns_all_stay_while_they_are_small(sd: LoadedModel, tmp_path: Path) -> None:
    layers, before = layers_of(sd.pipe, "unet"), taken(sd)
    one, two = (
        with_loras(sd, (write_lora(tmp_path / f"{seed}.safetensors", layers, seed=seed), 1.0)) for seed in (1, 2)
    )
    for adapters in (one, two):
        apply(sd, adapters)
    assert foretold(sd, two, one, two) == taken(sd) - before == 2 * foretold(sd, two)


def test_large_ones_do_not_stay_when_they_are_switched_off(
    sd: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = layers_of(sd.pipe, "unet")
    paths = [write_lora(tmp_path / f"{seed}.safetensors", layers, seed=seed) for seed in range(4)]
    each = foretold(sd, with_loras(sd, (paths[0], 1.0)))
    monkeypatch.setattr(lora_layers, "IDLE_LORA_BYTES", 2 * each)
    before = taken(sd)
    for path, on in zip(paths, (1, 2, 3, 3), strict=True):
        apply(sd, with_loras(sd, (path, 1.0)))
        assert taken(sd) - before == on * each
    monkeypatch.setattr(lora_layers, "IDLE_LORA_BYTES", each - 1)
    apply(sd, with_loras(sd, (paths[0], 1.0)))
    assert taken(sd) - before == each


def test_an_ip_adapter_counts_with_its_layers(sd: LoadedModel, tmp_path: Path) -> None:
    path, picture = write_ip_adapter(tmp_path / "ip", sd.pipe.unet), write_picture(tmp_path / "house.png")
    one = identify_ip_adapter(IpAdapterSpec(path, picture), sd.files)
    adapters, before = Adapters(ip_adapters=(one,)), taken(sd)
    apply(sd, adapters)
    assert foretold(sd, adapters) == taken(sd) - before > 0
