"""`darkroom inspect`: what a model or a file of weights is, for people and for programs."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(darkroom: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    return partial(darkroom, "inspect")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A LoRA for SDXL of rank 8, with a remark of its trainer's."""
    module = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    tensors = {
        "__metadata__": {"ss_output_name": "style"},
        f"{module}.lora_down.weight": {"dtype": "F16", "shape": [8, 2048], "data_offsets": [0, 32768]},
        f"{module}.lora_up.weight": {"dtype": "F16", "shape": [640, 8], "data_offsets": [32768, 43008]},
    }
    header = json.dumps(tensors).encode()
    path = tmp_path / "style.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(43008))
    return path


def lines_of(out: str) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in out.splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs}


def test_folder_is_shown_with_a_table_of_its_components(run, tiny) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run(tiny("sdxl"))
    assert code == 0
    said = lines_of(out)
    assert said["family"] == "Stable Diffusion XL"
    assert said["pipeline"] == "StableDiffusionXLPipeline"
    assert said["precision"] == "float32"
    assert said["prediction"] == "epsilon"
    table = out.splitlines()[-5:]
    assert table[0].split() == ["component", "class", "parameters", "size", "dtype", "quantisation"]
    assert [line.split()[0] for line in table[1:]] == ["text_encoder", "text_encoder_2", "unet", "vae"]
    starts = {line.index(line.split()[1]) for line in table}
    assert len(starts) == 1  # aligned


def test_lora_is_shown_with_family_and_rank(run, lora: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run(lora, "--hash")
    said = lines_of(out)
    assert code == 0
    assert (said["kind"], said["rank"], said["width"]) == ("LoRA for Stable Diffusion XL", "8", "2,048")
    assert said["size"].startswith("43,008 bytes")
    assert said["sha256"] == hashlib.sha256(lora.read_bytes()).hexdigest()
    assert said["AutoV3"] == hashlib.sha256(bytes(43008)).hexdigest()[:12]


def test_json_holds_every_fact_with_exact_numbers(run, lora: Path, tiny) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run(lora, "--json", "--hash")
    facts = json.loads(out, parse_constant=pytest.fail)
    assert code == 0
    assert (facts["kind"], facts["family"], facts["ranks"], facts["file_bytes"]) == ("lora", "sdxl", [8], 43008)
    assert facts["tensors_sha256"] == hashlib.sha256(bytes(43008)).hexdigest()
    model = json.loads(run(tiny("flux"), "--json")[1])
    assert (model["kind"], model["family"], model["guidance_distilled"]) == ("model", "flux", False)
    assert model["components"][0]["files"] == ["text_encoder/model.safetensors"]
    assert model["parameters"] == sum(component["parameters"] for component in model["components"])


def test_lone_denoiser_and_vae_say_what_they_are(run, tiny) -> None:  # type: ignore[no-untyped-def]
    flux = lines_of(run(tiny("flux") / "transformer" / "diffusion_pytorch_model.safetensors")[1])
    assert (flux["kind"], flux["family"], flux["guidance"]) == ("denoiser", "FLUX.1 dev", "embedded")
    assert "model.config=FOLDER" in flux["needs"]
    vae = lines_of(run(tiny("flux") / "vae")[1])
    assert (vae["kind"], vae["latents"]) == ("VAE (AutoencoderKL)", "16 channels")


def test_embedded_model_is_known_by_its_name(run) -> None:  # type: ignore[no-untyped-def]
    assert lines_of(run("demo")[1])["prediction"] == "v-prediction"


def test_what_cannot_be_inspected_is_one_line_and_exit_2(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    page = tmp_path / "model.safetensors"
    page.write_text("<!DOCTYPE html><html></html>")
    for argument, words in ((page, "a web page"), (tmp_path / "gone", "no such folder"), ("hf:a/b", "this machine")):
        code, out, err = run(argument)
        assert (code, out) == (2, "")
        assert err.startswith("darkroom: ") and err.count("\n") == 1 and words in err


def test_a_folder_that_is_no_model_hears_what_one_is(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "new").mkdir()
    code, _, err = run(tmp_path / "new")
    assert (
        code == 2 and "new: holds no model; expected a diffusers folder with a model_index.json, the folder of " in err
    )
    assert err.count("\n") == 1


def test_inspecting_imports_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "jobs", "inspect", "demo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert done.returncode == 0 and "pathlib" in imported
    assert not imported & {"torch", "diffusers", "transformers", "safetensors", "gguf"}
