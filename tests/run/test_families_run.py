"""Every family through the whole program: one plan, each model loaded once, each picture made again to the pixel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image

from jobs.archive.reproduce import EXIT_EQUAL, reproduce
from jobs.planning.memory_levels import levels
from jobs.running.main import main
from pipeline.weights.families import FAMILIES

SIDES = {"sana": 64}
Tiny = Callable[[str], Path]


def config_for(source: Path, out: Path, *, side: int = 32, **changes: Any) -> dict[str, Any]:
    return {
        "prompts": {"lines": ["a red house", "a boat at night"], "negative_prompt": "fog"},
        "model": {"source": str(source)},
        "memory": {"level": "auto"},
        "sampling": {"steps": 2, "guidance_scale": 3.0, "width": side, "height": side},
        "engine": {"device": "cpu", "cpu_threads": 1},
        "output": {"dir": str(out)},
        "quiet": True,
        **changes,
    }


def rows(out: Path, columns: str) -> list[tuple[Any, ...]]:
    source = f"read_parquet('{out}/manifest/parts/*.parquet')"
    return duckdb.sql(f"select {columns} from {source} where status = 'done' order by job_id").fetchall()


def summary(out: Path) -> dict[str, Any]:
    (path,) = out.glob("runs/*/summary.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_every_family_is_made_and_remade(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    configs = [config_for(tiny(family), out, side=SIDES.get(family, 32), seeds=[1, 2]) for family in FAMILIES]
    assert main(configs, []) == 0
    found = summary(out)
    assert (found["made"], found["failed"]) == (4 * len(FAMILIES), 0)
    assert found["model_loads"] == found["model_loads_minimum"] == len(FAMILIES)
    made = rows(out, "architecture, path, width, height")
    assert {one[0] for one in made} == {family.pipeline_class for family in FAMILIES.values()}
    one_each = {architecture: path for architecture, path, *_ in made}
    for architecture, path in one_each.items():
        assert reproduce(out / path, check=True, output_dir=out, model=None) == EXIT_EQUAL, architecture
    for _, path, width, height in made:
        with Image.open(out / path) as picture:
            assert picture.size == (width, height)


def write_lora(tiny: Tiny, family: str, file: Path, seed: int) -> str:
    from build_tiny_models import write_lora as write

    folder = tiny(family)
    write(folder / FAMILIES[family].denoiser, file, seed)
    return str(file)


@pytest.mark.slow
def test_models_and_loras_sweep_with_one_load_and_one_encoding_each(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    configs = []
    for family in ("sd15", "sdxl", "flux"):
        loras = [write_lora(tiny, family, tmp_path / family / f"{seed}.safetensors", seed) for seed in (1, 2)]
        axis = [[], *([{"source": lora, "weight": 0.7}] for lora in loras), [{"source": lora} for lora in loras]]
        configs.append(config_for(tiny(family), out, grid={"adapters.loras": axis}))
    assert main(configs, []) == 0
    found = summary(out)
    assert (found["made"], found["model_loads"]) == (24, 3)
    made = rows(out, "model, prompt, loras, lora_weights, pixels_sha256, record_json, path")
    assert len({one[4] for one in made}) == 24  # every LoRA changes the picture
    for _, _, loras, _, _, record_json, _ in made:
        record = json.loads(record_json)
        assert [lora["name"] for lora in record["loras"]] == loras
        assert all(lora["matched"] > 0 and lora["unmatched"] == 0 for lora in record["loras"])
    with_both = [one[-1] for one in made if len(one[2]) == 2]
    for path in with_both[:3]:
        assert reproduce(out / path, check=True, output_dir=out, model=None) == EXIT_EQUAL


@pytest.mark.slow
def test_exact_techniques_make_the_same_picture_as_none(tiny: Tiny, tmp_path: Path) -> None:
    pixels = {}
    for name in ("none", "ultra"):
        level = levels()[name]
        out = tmp_path / name
        configs = [
            config_for(tiny(family), out, side=64, memory={**level, "quality": "exact"}, batch_size=1)
            for family in ("sdxl", "flux", "sana")
        ]
        assert main(configs, []) == 0
        pixels[name] = rows(out, "architecture, prompt, pixels_sha256")
        techniques = {technique for (found,) in rows(out, "techniques") for technique in found}
        assert ("drop_encoders" in techniques) == (name == "ultra")
    assert pixels["none"] == pixels["ultra"] and len(pixels["none"]) == 6


@pytest.mark.slow
def test_pictures_from_pictures_are_an_axis_and_are_remade(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
    config = config_for(
        tiny("sd15"),
        out,
        grid={"init.image": f"glob({tmp_path}/*.png)", "init.strength": [0.5, 1.0]},
        sampling={"steps": 4, "guidance_scale": 3.0, "width": 32, "height": 32},
    )
    assert main([config], []) == 0
    made = rows(out, "task, init_image, path, pixels_sha256")
    assert len(made) == 12 and {one[0] for one in made} == {"img2img"}
    assert {one[1] for one in made} == {"0", "1", "2"} and len({one[3] for one in made}) == 12
    assert reproduce(out / made[0][2], check=True, output_dir=out, model=None) == EXIT_EQUAL
