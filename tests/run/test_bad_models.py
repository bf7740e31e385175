"""Bad weights, adapters, pictures and memory settings: one clear line each, all before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_tiny_models import write_lora
from PIL import Image

from jobs.running.main import main

Tiny = Callable[[str], Path]
Case = Callable[[Tiny, Path], dict[str, Any]]


def faults(capfd: pytest.CaptureFixture[str], out: Path, source: Any, **changes: Any) -> list[str]:
    """What a batch with these changes is refused with; nothing has been started or left behind then."""
    config = {
        "prompts": {"lines": ["a house"]},
        "model": {"source": str(source), **changes.pop("model", {})},
        "memory": {"level": "auto", **changes.pop("memory", {})},
        "sampling": {"steps": 2, "width": 32, "height": 32, **changes.pop("sampling", {})},
        "engine": {"device": changes.pop("device", "cpu")},
        "output": {"dir": str(out)},
        **changes,
    }
    capfd.readouterr()  # what libraries say when a test itself is the first to import them
    assert main([config], []) == 2
    assert not out.exists() or not list(out.iterdir())
    lines: list[str] = capfd.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in lines)
    return lines


def lora(tiny: Tiny, family: str, folder: Path) -> str:
    file = folder / "a_lora.safetensors"
    write_lora(tiny(family) / ("unet" if family in ("sd15", "sdxl") else "transformer"), file, 0)
    return str(file)


def picture(folder: Path) -> str:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "picture.png")
    return str(folder / "picture.png")


def huge(folder: Path) -> str:
    Image.new("1", (9000, 9000)).save(folder / "huge.png")
    return str(folder / "huge.png")


ADAPTERS: dict[str, tuple[Case, str]] = {
    "LoRA of another family": (
        lambda tiny, tmp: {"adapters": {"loras": [{"source": lora(tiny, "flux", tmp)}]}},
        "was made for FLUX.1",
    ),
    "LoRA of another width": (
        lambda tiny, tmp: {"adapters": {"loras": [{"source": lora(tiny, "sdxl", tmp)}]}},
        "was made for a model of width",
    ),
    "LoRA that is gone": (
        lambda _, tmp: {"adapters": {"loras": [{"source": str(tmp / "gone.safetensors")}]}},
        "no such file",
    ),
    "model as a LoRA": (
        lambda tiny, _: {"adapters": {"loras": [{"source": str(tiny("sd15"))}]}},
        "adapters.loras[0]",
    ),
    "denoiser as a ControlNet": (
        lambda tiny, tmp: {
            "adapters": {"controlnets": [{"source": str(tiny("sd15") / "unet"), "image": picture(tmp)}]}
        },
        "not a ControlNet",
    ),
    "no picture": (lambda _, tmp: {"init": {"image": str(tmp / "gone.png")}}, "no such file"),
    "text as a picture": (lambda _, tmp: {"init": {"image": __file__}}, "is no picture"),
    "huge picture": (lambda _, tmp: {"init": {"image": huge(tmp)}}, "more than 67 million"),
    "no step left": (
        lambda _, tmp: {"init": {"image": picture(tmp), "strength": 0.3}},
        "leaves none; raise strength or steps",
    ),
    "a picture in the grid": (
        lambda _, tmp: {"grid": {"init.image": [picture(tmp), str(tmp / "gone.png")]}},
        "gone.png",
    ),
    "VAE of another family": (
        lambda tiny, _: {"model": {"vae": str(tiny("flux") / "vae")}},
        "decodes latents of",
    ),
    "another family than the profile's": (lambda *_: {"model": {"family": "flux"}}, "the profile is for FLUX.1"),
    "no safety checker": (lambda *_: {"model": {"safety_checker": True}}, "has no safety checker"),
    "unknown scheduler": (lambda *_: {"sampling": {"scheduler": "eulr"}}, "did you mean 'Euler'?"),
    "unfit scheduler": (lambda *_: {"sampling": {"scheduler": "FlowMatch Euler"}}, "does not suit"),
    "more steps than timesteps": (
        lambda *_: {"sampling": {"scheduler": "DDIM", "steps": 1000}},
        "sampling.steps: DDIM cannot take 1,000 steps",
    ),
    "unknown option of the scheduler": (
        lambda *_: {"sampling": {"scheduler_options": {"spacing": 1}}},
        "takes no option 'spacing'",
    ),
    "step cache where there is none": (lambda *_: {"sampling": {"step_cache": "first_block"}}, "is not available for"),
    "guidance of a distilled model": (
        lambda *_: {"model": {"distilled": True, "sampling": {"guidance_scale": 0}}, "sampling": {"guidance_scale": 5}},
        "is distilled and works with 0 alone (got 5)",
    ),
    "two offloads": (
        lambda *_: {"memory": {"techniques": {"model_offload": True, "leaf_offload": True}}},
        "keep one of them",
    ),
    "lossy and exact": (
        lambda *_: {"memory": {"quality": "exact", "techniques": {"denoiser_int8": True}}},
        "memory.quality=exact forbids",
    ),
    "four bits on a CPU": (lambda *_: {"memory": {"techniques": {"denoiser_int4": True}}}, "works on cuda, not on cpu"),
    "a package is missing": (
        lambda *_: {"memory": {"techniques": {"denoiser_int4": True}}},
        "pip install 'darkroom[bitsandbytes]'",
    ),
    "tiny VAE of nowhere": (lambda *_: {"memory": {"techniques": {"tiny_vae": True}}}, "give memory.tiny_vae=FOLDER"),
    "too small a budget": (
        lambda *_: {"memory": {"budget_gb": 0.01}},
        "the smallest that would do is memory.budget_gb=",
    ),
    "no GPU": (lambda *_: {"device": "cuda"}, "there is no usable NVIDIA GPU"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_one_clear_line(
    name: str, tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    case, expected = ADAPTERS[name]
    lines = faults(capfd, tmp_path / "out", tiny("sd15"), **case(tiny, tmp_path))
    assert any(expected in line for line in lines), lines
    assert len(lines) <= 2


def test_a_size_that_a_family_would_round_silently_is_refused(
    tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (line,) = faults(capfd, tmp_path / "out", tiny("flux"), sampling={"width": 40})
    assert line == "sampling.width: must be a multiple of 16 for FLUX.1, for instance 32 or 48 (got 40)"


def test_a_family_without_loras_says_so(tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    adapters = {"loras": [{"source": lora(tiny, "sd15", tmp_path)}]}
    (line,) = faults(capfd, tmp_path / "out", tiny("pixart_sigma"), adapters=adapters)
    assert line == "adapters.loras[0]: lora a_lora: diffusers loads no LoRAs for PixArt-Sigma; leave it out"


def test_a_tiny_vae_of_another_family_is_refused(tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from diffusers import AutoencoderTiny

    AutoencoderTiny(
        latent_channels=16,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(tmp_path / "taef1")
    memory = {"tiny_vae": str(tmp_path / "taef1"), "techniques": {"tiny_vae": True}}
    (line,) = faults(capfd, tmp_path / "out", tiny("sd15"), memory=memory)
    assert "decodes latents of 16 channels, and" in line
    (line,) = faults(capfd, tmp_path / "out", tiny("sd15"), memory={**memory, "tiny_vae": str(tiny("sd15") / "vae")})
    assert "expected the folder of an AutoencoderTiny" in line


def test_a_remote_model_is_planned_for_by_its_published_sizes_and_never_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    remote = {"family": "flux", "sampling": {"width": 1024, "height": 1024}}
    source, sampling = "hf:black-forest-labs/FLUX.1-dev", {"width": 1024, "height": 1024}
    (line,) = faults(capfd, tmp_path / "out", source, model=remote, sampling=sampling)
    assert "'hf:black-forest-labs/FLUX.1-dev': not on this machine; fetch it with: darkroom models download " in line
    config = {
        "prompts": {"lines": ["a house"]},
        "model": {"source": source, **remote},
        "memory": {"level": "auto", "budget_gb": 8},
        "engine": {"device": "cpu"},
        "output": {"dir": str(tmp_path / "out")},
        "dry_run": True,
    }
    assert main([config], []) == 0
    said = capfd.readouterr().out
    assert "of 8.0 GiB" in said and "FLUX.1-dev is not on this machine; its sizes are those published" in said
    assert "resident_blocks" in said.split("on a card of this size")[1]
    config["memory"] = {"level": "auto", "budget_gb": 8, "quality": "exact", "host_gb": 2}
    assert main([config], []) == 0
    card = capfd.readouterr().out.split(
        "on a card of this size (there is none here), with 2.0 GiB of main memory free"
    )[1]
    assert "disk_offload" in card
