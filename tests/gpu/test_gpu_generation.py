"""The embedded model on a GPU: the same pictures as on a CPU, as far as arithmetic allows, and exact remakes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.generation.generate import generate_batch
from pipeline.generation.timing import BatchTiming
from pipeline.loading.load import load
from pipeline.registry.model_settings import identify
from pipeline.request import DType, GeneratedImage, ImageRequest, MemorySettings

REPO = Path(__file__).resolve().parents[2]
PROMPTS = ("a red house in hills at sunset", "a blue boat in sea at night", "mountains at dawn")


def made(device: str, dtype: DType, prompts: tuple[str, ...] = PROMPTS) -> list[GeneratedImage]:
    settings, folder = identify("demo")
    memory = MemorySettings(dtype=dtype)
    requests = [
        ImageRequest(prompt, "", 7, 20, 5.0, folder.width, folder.height, "DDIM", None, settings, memory)
        for prompt in prompts
    ]
    outcomes = generate_batch(load(settings, memory, device), requests)
    assert all(isinstance(outcome, GeneratedImage) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, GeneratedImage)]


def psnr(one: GeneratedImage, other: GeneratedImage) -> float:
    error = np.mean((one.pixels.astype(float) - other.pixels.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def test_a_seed_means_the_same_picture_on_cpu_and_gpu() -> None:
    for cpu, gpu in zip(made("cpu", "float32"), made("cuda", "float32"), strict=True):
        assert cpu.noise_sha256 == gpu.noise_sha256
        assert psnr(cpu, gpu) > 35


def test_half_precision_starts_from_the_same_noise() -> None:
    for full, half in zip(made("cuda", "float32"), made("cuda", "bfloat16"), strict=True):
        assert full.noise_sha256 == half.noise_sha256
        assert psnr(full, half) > 20


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_bundle_twice_is_bit_equal(dtype: DType) -> None:
    for first, second in zip(made("cuda", dtype), made("cuda", dtype), strict=True):
        assert np.array_equal(first.pixels, second.pixels)


def test_memory_and_device_are_recorded() -> None:
    (image,) = made("cuda", "bfloat16", PROMPTS[:1])
    assert image.peak_vram_bytes is not None
    assert image.peak_vram_bytes > 1_000_000
    assert image.runtime["device"] == "cuda"
    assert image.runtime["gpu"]


def test_what_a_batch_takes_is_read_off_the_gpus_own_clock() -> None:
    import torch

    device = torch.device("cuda")
    timing, matrix = BatchTiming(device), torch.ones(8192, 8192, device=device)
    torch.cuda.synchronize()
    began = time.perf_counter()
    with timing.timed("denoise"):
        for _ in range(20):
            matrix = matrix @ matrix
    given = time.perf_counter() - began
    torch.cuda.synchronize()
    done = time.perf_counter() - began
    denoised, decoded = timing.seconds()
    assert decoded == 0 and given < denoised < 1.1 * done, "the work counts, and not only handing it over"


def test_a_run_on_the_gpu_is_remade_to_the_pixel(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    run = [sys.executable, str(REPO / "run.py"), "prompts=demo", "engine.device=cuda", f"output.dir={outputs}"]
    assert subprocess.run(run, cwd=tmp_path, check=False).returncode == 0
    (summary,) = outputs.glob("runs/*/summary.json")
    assert json.loads(summary.read_text())["peak_vram_bytes"] > 0
    for image in sorted(outputs.rglob("*.png"))[:3]:
        again = [sys.executable, "-m", "jobs", "reproduce", str(image), "--check", "--output-dir", str(outputs)]
        assert subprocess.run(again, cwd=REPO, check=False).returncode == 0
