"""What a plan counts for adapters: those that a picture wants, and those that other pictures leave on the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from jobs.manifest.job_states import JobStates
from jobs.planning.plan import Plan
from jobs.planning.validation import validate

RANK = 2**14
NUMBERS = RANK * (32 + 32)


def write_lora(path: Path, value: float) -> Path:
    """On one layer of a tiny UNet, and large for it."""
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_{}.weight"
    tensors = {
        stem.format("down"): np.full((RANK, 32), value, np.float32),
        stem.format("up"): np.full((32, RANK), value, np.float32),
    }
    save_file(tensors, path)
    return path


@pytest.fixture
def peaks(tiny_sd: Path, tmp_path: Path) -> Callable[..., dict[tuple[str, ...], int]]:
    """Predicted bytes of denoising by the LoRAs that are wanted, for configurations of one batch."""

    def planned(*configs: dict[str, Any]) -> dict[tuple[str, ...], int]:
        common = {
            "prompts": {"lines": ["a house"]},
            "model": {"source": str(tiny_sd)},
            "memory": {"level": "auto"},
            "sampling": {},
            "engine": {"device": "cpu"},
            "output": {"dir": str(tmp_path / "out")},
            "dry_run": True,
        }
        batch = validate([{**common, **config} for config in configs], [])
        found = {}
        for expansion, plan in zip(batch.expansions, batch.plans, strict=True):
            for _, likeness, adapters, _ in expansion.iter_keys():
                names = tuple(sorted(lora.name for lora in adapters.loras))
                found[names] = dict(plan.fit(likeness, adapters).stage_bytes)["denoise"]
        return found

    return planned


def test_a_grid_over_two_loras_counts_both_since_both_stay(peaks: Callable[..., Any], tmp_path: Path) -> None:
    one, two = (str(write_lora(tmp_path / f"{name}.safetensors", value)) for name, value in (("one", 1), ("two", 2)))
    none = peaks({})[()]
    alone = peaks({"adapters": {"loras": [{"source": one}]}})["one",]
    grid = peaks({"grid": {"adapters.loras": [[], [{"source": one}], [{"source": two}]]}})
    assert alone - none > 4 * NUMBERS
    assert grid["one",] == grid["two",] == alone + 4 * NUMBERS
    assert grid[()] == none + 2 * 4 * NUMBERS, "left by the others"
    together = peaks({"adapters": {"loras": [{"source": one}, {"source": two}]}})
    assert together == {("one", "two"): alone + 4 * NUMBERS}


def test_a_sweep_by_configurations_counts_like_a_grid(peaks: Callable[..., Any], tmp_path: Path) -> None:
    one, two = (str(write_lora(tmp_path / f"{name}.safetensors", value)) for name, value in (("one", 1), ("two", 2)))
    swept = peaks(*({"adapters": {"loras": [{"source": source}]}} for source in (one, two)))
    assert swept == peaks({"grid": {"adapters.loras": [[{"source": one}], [{"source": two}]]}})


def test_the_weight_of_a_lora_does_not_count(peaks: Callable[..., Any], tmp_path: Path) -> None:
    source = str(write_lora(tmp_path / "one.safetensors", 1))
    one = {"adapters": {"loras": [{"source": source}]}}
    assert peaks({**one, "grid": {"adapters.loras.0.weight": [0.5, 1]}}) == peaks(one)


def test_of_large_loras_only_the_wanted_one_counts(
    peaks: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.memory.planning.sizes.IDLE_LORA_BYTES", NUMBERS)
    one, two = (str(write_lora(tmp_path / f"{name}.safetensors", value)) for name, value in (("one", 1), ("two", 2)))
    grid = peaks({"grid": {"adapters.loras": [[{"source": one}], [{"source": two}]]}})
    assert grid["one",] == grid["two",] == peaks({"adapters": {"loras": [{"source": one}]}})["one",]


def test_pictures_with_other_weights_of_a_lora_do_not_count_as_alike(tiny_sd: Path, tmp_path: Path) -> None:
    """A compiled model would have to be compiled again for them."""
    source = str(write_lora(tmp_path / "one.safetensors", 1))
    config = {
        "prompts": {"lines": ["a house"]},
        "model": {"source": str(tiny_sd)},
        "memory": {"level": "auto"},
        "sampling": {},
        "engine": {"device": "cpu"},
        "output": {"dir": str(tmp_path / "out")},
        "seeds": [1, 2, 3],
        "adapters": {"loras": [{"source": source}]},
        "grid": {"adapters.loras.0.weight": [0.5, 1]},
        "dry_run": True,
    }
    batch = validate([config], [])
    plan = Plan(batch.expansions, JobStates(), batch.plans)
    assert [bundle.images_alike for bundle in plan.bundles()] == [3, 3]
