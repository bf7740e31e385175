"""What each stage finds on the device, and what it took."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from held_models import Load, held_by, images, pictures

from pipeline.memory.device import stages
from pipeline.memory.device.apply import apply_memory
from pipeline.memory.device.block_streaming import BlockStreaming
from pipeline.memory.device.loaded_components import components, encoders
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.pool import Pool
from pipeline.memory.device.quantization import true_bytes
from pipeline.memory.device.stages import INTERVAL_S, KEPT_BYTES, measured, stage
from pipeline.memory.planning.estimate import Shape

STAGES: tuple[Any, ...] = ("encode", "denoise", "decode")
CPU = torch.device("cpu")


def present(model: LoadedModel) -> set[str]:
    return {name for name, module in components(model).items() if model.pool.is_on_device(module)}


def test_with_staged_each_stage_has_what_it_needs_and_no_more(loaded: Load) -> None:
    model = loaded("sdxl", held_by("staged"))
    assert present(model) == set()
    found = {}
    for name in STAGES:
        with stage(model, name):
            found[name] = present(model)
    assert found == {"encode": {"text_encoder", "text_encoder_2"}, "denoise": {"unet"}, "decode": {"vae"}}
    with stage(model, "denoise", extra=("vae",)):
        assert present(model) == {"unet", "vae"}


@pytest.mark.parametrize(("technique", "there"), [("staged", [{"unet"}, set()]), ("vae_slicing", [])])
def test_between_stages_of_a_tight_plan_the_allocator_gives_its_pieces_back(
    technique: str, there: list[set[str]], loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After what goes and before what comes."""
    model, emptied = loaded("sdxl", held_by(technique)), list[set[str]]()
    with stage(model, "denoise"):
        pass
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(present(model)))
    for name in ("denoise", "decode"):
        with stage(model, name):  # type: ignore[arg-type]
            pass
    assert emptied == there


@pytest.mark.parametrize(("technique", "may_stay"), [("staged", 0), ("leaf_offload", 0), ("vae_slicing", KEPT_BYTES)])
def test_on_the_cpu_a_stage_begins_with_little_that_another_left(
    technique: str, may_stay: int, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing of it where memory is short."""
    model, told = loaded("sd15", held_by(technique)), list[int]()
    monkeypatch.setattr(model, "device", torch.device("cpu"))
    monkeypatch.setattr(stages, "give_back_freed", lambda beyond_bytes: told.append(beyond_bytes))
    for name in STAGES:
        with stage(model, name):
            pass
    assert told == [may_stay] * len(STAGES)


def test_without_it_everything_stays_there(loaded: Load) -> None:
    model = loaded("sdxl")
    for name in STAGES:
        with stage(model, name):
            assert present(model) == {"text_encoder", "text_encoder_2", "unet", "vae"}


@pytest.mark.parametrize("technique", ["leaf_offload", "block_offload", "resident_blocks"])
def test_what_is_streamed_shares_the_device_with_nothing(technique: str, loaded: Load) -> None:
    model = loaded("sd15", held_by(technique, budget_bytes=1))
    for name, there in (("encode", set()), ("denoise", set()), ("decode", {"vae"})):
        with stage(model, name):  # type: ignore[arg-type]
            assert present(model) == there


def test_resident_blocks_are_there_while_denoising(loaded: Load) -> None:
    model = loaded("sd15", held_by("resident_blocks"))
    streaming = model.pipe.unet.block_streaming
    seen = []
    for name in STAGES:
        with stage(model, name):
            seen.append(streaming.entered)
    assert seen == [False, True, False]


def test_the_shape_of_a_batch_decides_how_many_blocks_stay(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.memory.planning import estimate

    model = loaded("sd15", held_by("resident_blocks"))
    streaming: BlockStreaming = model.pipe.unet.block_streaming
    size = true_bytes(streaming.blocks[0])
    asked: list[Shape] = []

    def room(sizes: Any, memory: Any, shape: Shape, kind: str, role: str) -> int:
        asked.append(shape)
        return 0 if shape.width > 512 else 10 * sum(map(true_bytes, streaming.blocks))

    monkeypatch.setattr(estimate, "resident_bytes", room)
    left = []
    for width in (256, 1024, 256):
        with stage(model, "denoise", shape=Shape(width, 512, 2, True)):
            left.append(len(streaming.streamed))
    assert left == [0, len(streaming.blocks), 0] and size > 0
    assert [(shape.width, shape.batch) for shape in asked] == [(256, 2), (1024, 2), (256, 2)]


@pytest.mark.slow
def test_dropped_encoders_are_gone_and_come_back(loaded: Load) -> None:
    pool = Pool()
    model = loaded("sdxl", held_by("drop_encoders"), pool)
    alive = [weakref.ref(components(model)[name]) for name in encoders(model)]
    assert len(alive) == 2
    with stage(model, "encode"):
        assert encoders(model) == ["text_encoder", "text_encoder_2"]
    assert encoders(model) == [] and model.dropped == {"text_encoder", "text_encoder_2"}
    assert [ref() for ref in alive] == [None, None]
    for name in ("denoise", "decode"):
        with stage(model, name):  # type: ignore[arg-type]
            assert encoders(model) == []
    loads = pool.loads
    with stage(model, "encode"):
        assert encoders(model) == ["text_encoder", "text_encoder_2"] and not model.dropped
    assert pool.loads == loads + 2


@pytest.mark.slow
def test_dropped_encoders_come_back_with_their_hooks(loaded: Load) -> None:
    from pipeline.memory.device.offload_hooks import is_offloaded

    for technique in ("leaf_offload", "model_offload"):
        model = loaded("sd15", held_by("drop_encoders", technique))
        for _ in range(2):
            alive = weakref.ref(model.pipe.text_encoder) if model.pipe.text_encoder is not None else None
            with stage(model, "encode"):
                assert is_offloaded(model.pipe.text_encoder), technique
            assert model.pipe.text_encoder is None
            assert alive is None or alive() is None, technique


def test_an_encoder_that_another_model_uses_is_not_freed(loaded: Load) -> None:
    pool = Pool()
    one, other = loaded("sd15", held_by("drop_encoders"), pool), loaded("sd15", pool=pool)
    encoder = other.pipe.text_encoder
    assert one.pipe.text_encoder is encoder
    with stage(one, "encode"):
        pass
    assert one.pipe.text_encoder is None and other.pipe.text_encoder is encoder
    with stage(one, "encode"):
        assert one.pipe.text_encoder is encoder


@pytest.mark.slow
def test_nothing_is_encoded_twice_for_what_was_dropped(loaded: Load) -> None:
    pool = Pool()
    model = loaded("sd15", held_by("drop_encoders", "staged"), pool)
    before = pictures(model)
    loads = pool.loads
    np.testing.assert_array_equal(pictures(model), before)
    assert pool.loads == loads and model.dropped == {"text_encoder"}


@pytest.mark.slow
def test_encoders_that_were_never_needed_are_dropped_too(loaded: Load) -> None:
    """Embeddings are on disk from an earlier run, so nothing is encoded."""
    model = loaded("sd15", held_by("drop_encoders"))
    with stage(model, "denoise", extra=("text_encoder",)):
        assert encoders(model) == ["text_encoder"], "a pipeline that encodes inside its call"
    with stage(model, "denoise"):
        assert encoders(model) == []
    with stage(model, "denoise", extra=("text_encoder",)):
        assert encoders(model) == ["text_encoder"]


def test_views_lose_what_the_pipeline_loses(loaded: Load) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    model = loaded("sd15", held_by("drop_encoders"))
    model.views["img2img"] = view = StableDiffusionImg2ImgPipeline(
        **model.pipe.components, requires_safety_checker=False
    )
    with stage(model, "encode"):
        pass
    assert view.text_encoder is None
    apply_memory(model, held_by("fp8_storage"))
    with stage(model, "encode"):
        pass
    assert view.text_encoder is model.pipe.text_encoder is not None
    assert view.unet is model.pipe.unet


def test_the_pipeline_knows_where_it_runs_whatever_lies_elsewhere(loaded: Load) -> None:
    """diffusers takes the device of the first component; with `staged` that one is on the host. meta plays the GPU."""
    model = loaded("sd15", held_by("staged"))
    model.device = torch.device("meta")
    with stage(model, "denoise"):
        assert model.pipe.unet.device.type == "meta" and model.pipe.vae.device.type == "cpu"
        assert model.pipe.device.type == "cpu", "what would be taken otherwise"
        assert model.pipe._execution_device == torch.device("meta")


@pytest.mark.slow
def test_every_stage_tells_what_it_took(loaded: Load) -> None:
    model = loaded("sd15")
    with pytest.raises(ValueError, match="on the way"), stage(model, "denoise"):
        ballast = torch.ones(60 * 2**20 // 4)
        raise ValueError("on the way")
    del ballast
    assert model.stage_peaks["denoise"]["rss"] > 60 * 2**20
    for image in images(model):
        assert set(image.stage_peaks) == {"encode", "denoise", "decode"}
        assert all(set(peaks) == {"rss"} and peaks["rss"] > 50 * 2**20 for peaks in image.stage_peaks.values())


def test_a_peak_between_two_looks_ends_is_seen() -> None:
    with measured(CPU) as before:
        pass
    with measured(CPU) as peaks:
        ballast = torch.ones(200 * 2**20 // 4)
        time.sleep(5 * INTERVAL_S)
        del ballast
    assert peaks["rss"] - before["rss"] > 150 * 2**20
    assert not any(thread.name == "memory monitor" for thread in threading.enumerate())
