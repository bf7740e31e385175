"""The Python API beyond a prompt: adapters, precision and memory, with records as complete as a run's."""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.archive.reproduce import EXIT_EQUAL, reproduce
from jobs.running.main import main
from pipeline import ConfigError, ControlNet, IpAdapter, Lora, Picture, Pipeline, read_record
from pipeline.api import pipeline as python_api
from pipeline.memory.planning.techniques import TECHNIQUES
from pipeline.weights.families import FAMILIES
from pipeline.weights.hashes import file_hash

sys.path.insert(0, str(Path(__file__).parent / "adapters"))  # adapter_files

Tiny = Callable[[str], Path]
PROMPT = "a red house"
SMALL: dict[str, Any] = {"seed": 3, "steps": 2, "guidance_scale": 3.0, "width": 32, "height": 32}


@pytest.fixture(scope="module")
def sd15(tiny: Tiny) -> Path:
    return tiny("sd15")


@pytest.fixture(scope="module")
def loras(sd15: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from build_tiny_models import write_lora

    folder = tmp_path_factory.mktemp("loras")
    paths = [folder / f"{name}.safetensors" for name in ("style", "light")]
    for seed, path in enumerate(paths):
        write_lora(sd15 / FAMILIES["sd15"].denoiser, path, seed)
    return paths


@pytest.fixture(scope="module")
def pipeline(sd15: Path) -> Pipeline:
    return Pipeline(str(sd15), device="cpu")


def test_loras_are_put_on_and_taken_off(pipeline: Pipeline, loras: list[Path]) -> None:
    plain = pipeline.generate(PROMPT, **SMALL)
    styled = pipeline.generate(PROMPT, **SMALL, loras=[(loras[0], 0.8)])
    both = pipeline.generate(PROMPT, **SMALL, loras=[(str(loras[0]), 0.8), Lora(loras[1], name="lamp")])
    again = pipeline.generate(PROMPT, **SMALL, loras=[(loras[0], 0.0)])
    assert np.array_equal(plain.image.pixels, again.image.pixels)
    assert len({picture.image.pixels.tobytes() for picture in (plain, styled, both)}) == 3
    written = both.record().loras
    assert [(one.name, one.sha256, one.weight) for one in written] == [
        ("style", file_hash(loras[0]), 0.8),
        ("lamp", file_hash(loras[1]), 1.0),
    ]
    assert all((one.matched or 0) > 0 and one.unmatched == 0 for one in written)


def test_a_saved_picture_with_loras_is_made_again(pipeline: Pipeline, loras: list[Path], tmp_path: Path) -> None:
    path = pipeline.generate(PROMPT, **SMALL, loras=[(loras[0], 0.8), (loras[1], 0.3)]).save(tmp_path)
    assert reproduce(path, check=True, output_dir=tmp_path, model=None) == EXIT_EQUAL


@pytest.mark.slow
def test_a_picture_from_pictures_is_made_again(sd15: Path, tmp_path: Path) -> None:
    from adapter_files import write_controlnet, write_ip_adapter, write_picture

    pipeline = Pipeline(str(sd15), device="cpu")
    plain = pipeline.generate(PROMPT, **SMALL)
    unet = pipeline._current.model.pipe.unet  # type: ignore[union-attr]
    controlnet = write_controlnet(tmp_path / "controlnet", unet)
    ip_adapter = write_ip_adapter(tmp_path / "ip", unet)
    picture = write_picture(tmp_path / "picture.png")
    made = pipeline.generate(
        PROMPT,
        **SMALL | {"steps": 4},
        controlnets=[ControlNet(controlnet, image=picture, strength=0.7)],
        ip_adapters=[IpAdapter(ip_adapter, image=picture)],
        init_image=picture,
        strength=0.5,
    )
    record = made.record()
    assert [one.strength for one in record.controlnets] == [0.7] and len(record.ip_adapters) == 1
    assert record.init is not None and record.init.strength == 0.5
    assert not np.array_equal(made.image.pixels, plain.image.pixels)
    saved = made.save(tmp_path / "out")
    assert reproduce(saved, check=True, output_dir=tmp_path, model=None) == EXIT_EQUAL


@pytest.mark.slow
def test_the_record_is_that_of_a_run(sd15: Path, loras: list[Path], tmp_path: Path) -> None:
    prompt = f"{PROMPT}, for the first time"  # what other tests encode is on disk, too
    config = {
        "prompts": {"lines": [prompt]},
        "model": {"source": str(sd15)},
        "memory": {"level": "ultra", "quality": "exact", "techniques": {"staged": True, "drop_encoders": True}},
        "sampling": {key: value for key, value in SMALL.items() if key != "seed"},
        "seeds": [3],
        "adapters": {"loras": [{"source": str(loras[0]), "weight": 0.8}]},
        "engine": {"device": "cpu"},
        "batch_size": 1,
        "output": {"dir": str(tmp_path / "run")},
        "quiet": True,
    }
    assert main([config], []) == 0
    (from_run,) = (tmp_path / "run").rglob("*.png")
    with Pipeline(str(sd15), device="cpu", memory="ultra", quality="exact") as pipeline:
        saved = pipeline.generate(prompt, **SMALL, loras=[(loras[0], 0.8)]).save(tmp_path / "api")
    ours, theirs = (json.loads(read_record(path).to_json()) for path in (saved, from_run))
    assert ours["job"].pop("id") == theirs["job"].pop("id")
    assert {*ours["measured"]} == {*theirs["measured"]}
    # The text was on disk by then, as drop_encoders keeps it.
    assert {*theirs["measured"]["stages"]} - {*ours["measured"]["stages"]} == {"encode"}
    assert ours["measured"]["predicted_peak_bytes"] == theirs["measured"]["predicted_peak_bytes"] > 0
    for record in (ours, theirs):
        for key in ("id", "created", "job", "measured"):
            del record[key]
        del record["runtime"]["cpu_threads"], record["memory"]["budget_bytes"]  # what is free changes from run to run
    assert ours == theirs


def test_levels_and_techniques_are_asked_for_by_name(sd15: Path) -> None:
    with Pipeline(str(sd15), device="cpu", memory="ultra", techniques={"drop_encoders": False}) as pipeline:
        record = pipeline.generate(PROMPT, **SMALL).record()
    assert (record.memory.level, record.memory.asked, record.memory.off) == ("ultra", ["staged"], ["drop_encoders"])
    assert "drop_encoders" not in record.memory.techniques


def test_the_same_picture_in_any_memory(pipeline: Pipeline, sd15: Path) -> None:
    expected = pipeline.generate(PROMPT, **SMALL).image.pixels
    with Pipeline(str(sd15), device="cpu", memory="ultra") as small:
        assert np.array_equal(small.generate(PROMPT, **SMALL).image.pixels, expected)


def test_precision_is_asked_for(sd15: Path) -> None:
    with Pipeline(str(sd15), device="cpu", dtype="bfloat16") as pipeline:
        record = pipeline.generate(PROMPT, **SMALL).record()
    assert record.memory.dtype == "bfloat16" and "half_precision" in record.memory.techniques


@pytest.mark.slow
def test_a_budget_that_no_plan_fits_says_which_would_do(sd15: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not fit into 154 MiB ") as refused:
        Pipeline(str(sd15), device="cpu", budget_gb=0.15).generate(PROMPT, **SMALL)
    least = float(str(refused.value).rpartition("the smallest that would do is memory.budget_gb=")[2])
    with Pipeline(str(sd15), device="cpu", budget_gb=least) as pipeline:
        pipeline.generate(PROMPT, **SMALL)
    with Pipeline(str(sd15), device="cpu", budget_gb=2) as pipeline:
        assert pipeline.generate(PROMPT, **SMALL).record().memory.budget_bytes == 2 * 2**30


def test_a_model_is_held_anew_where_another_plan_is_chosen(sd15: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = python_api.choose

    def tight_for_large(asked: Any, sizes: Any, shape: Any, *rest: Any) -> Any:
        found = choose(asked, sizes, shape, *rest)
        more = ("drop_encoders",) if shape.width > 32 else ()
        return replace(found, memory=replace(found.memory, techniques=more))

    monkeypatch.setattr(python_api, "choose", tight_for_large)
    with Pipeline(str(sd15), device="cpu") as pipeline:
        small, large, again = (pipeline.generate(PROMPT, **SMALL | {"width": side}) for side in (32, 64, 32))
        loads = pipeline._current.model.pool.loads  # type: ignore[union-attr]
    assert [one.image.memory.techniques for one in (small, large, again)] == [(), ("drop_encoders",), ()]
    assert np.array_equal(small.image.pixels, again.image.pixels)
    assert loads <= 4  # three components, and the encoder that had been dropped at most once more


def test_closing_frees_the_model(sd15: Path) -> None:
    pipeline = Pipeline(str(sd15), device="cpu", techniques={"leaf_offload": True})  # hooks are cycles
    pipeline.generate(PROMPT, **SMALL)
    unet = weakref.ref(pipeline._current.model.pipe.unet)  # type: ignore[union-attr]
    pipeline.close()
    assert unet() is None
    assert isinstance(pipeline.generate(PROMPT, **SMALL), Picture)


def test_adapters_at_fault_are_named_by_their_place(pipeline: Pipeline, tiny: Tiny, tmp_path: Path) -> None:
    from build_tiny_models import write_lora

    write_lora(tiny("flux") / "transformer", tmp_path / "flux.safetensors", 0)
    with pytest.raises(ConfigError) as caught:
        pipeline.generate(
            PROMPT, **SMALL, loras=[(tmp_path / "flux.safetensors", 1.0), "nowhere.safetensors"], init_image="no.png"
        )
    first, second, third = caught.value.faults
    assert first.startswith("loras[0]: lora flux: was made for FLUX.1")
    assert second.startswith("loras[1]: lora 'nowhere.safetensors': no such file")
    assert third.startswith("init: image 'no.png': no such file")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"device": "gpu"}, "device: must be one of auto, cpu, cuda, mps (got 'gpu')"),
        ({"dtype": "half"}, "dtype: must be one of auto, float32, float16, bfloat16 (got 'half')"),
        ({"memory": "tiny"}, "memory: must be one of auto, none, balanced, aggressive, ultra (got 'tiny')"),
        ({"quality": "best"}, "quality: must be one of any, exact (got 'best')"),
        ({"budget_gb": 0}, "budget_gb: must be a number above 0, up to 4096 (got 0)"),
        ({"techniques": {"vae_tyling": True}}, "techniques: must be one of denoiser_int8, "),
        ({"techniques": {"staged": "yes"}}, "techniques['staged']: must be True or False (got 'yes')"),
        ({"techniques": ["staged"]}, "techniques: must be names with True or False"),
        ({"quality": "exact", "techniques": {"vae_tiling": True}}, "vae_tiling changes pixels, which memory.quality"),
        ({"techniques": {"tiny_vae": True}}, "tiny_vae needs the folder of one that fits the model"),
    ],
)
def test_bad_memory_settings_are_named(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(**{"device": "cpu", **arguments})
    (fault,) = caught.value.faults
    assert expected in fault
    assert "half_precision" not in fault and len(TECHNIQUES) > 10


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"loras": "style.safetensors"}, "loras: must be a list, also of one (got 'style.safetensors')"),
        ({"loras": [Lora("a", name=5)]}, "loras[0]: name: must be text (got 5)"),  # type: ignore[arg-type]
        ({"loras": ("style.safetensors", 0.8)}, "loras[1]: must be a path (got 0.8)"),
        ({"loras": [("style.safetensors", 11)]}, "loras[0]: weight: must be a number from -10 to 10 (got 11)"),
        ({"loras": [("a", 1.0, "b", "c")]}, "loras[0]: must be a Lora, or a tuple with its values in order"),
        ({"controlnets": ["canny"]}, "controlnets[0]: must be a ControlNet, or a tuple with its values in order"),
        (
            {"controlnets": [ControlNet("canny", "a.png", start=0.5, end=0.5)]},
            "controlnets[0]: start must lie before end (got 0.5 and 0.5)",
        ),
        ({"ip_adapters": [IpAdapter("a", "b.png", scale=3)]}, "ip_adapters[0]: scale: must be a number from 0 to 2"),
        ({"init_image": "a.png", "strength": 0}, "strength: must be a number above 0, up to 1 (got 0)"),
    ],
)
def test_bad_adapters_are_named(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(device="cpu").generate(PROMPT, **arguments)
    (fault,) = caught.value.faults
    assert fault.startswith(expected)
