"""Bundles against the plain diffusers pipelines, and what happens when a model or a device fails."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import write_checked_sd
from tiny_requests import request_for

from pipeline.errors import BadPixels, DeviceLost, Interrupted, JobFailure
from pipeline.generation.encode import encode
from pipeline.generation.generate import generate_batch, generate_bundle
from pipeline.generation.phase_seconds import PhaseSeconds
from pipeline.loading.load import load
from pipeline.memory.device.apply import apply_memory
from pipeline.memory.device.embedding_cache import EmbeddingCache
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings, PromptTokens

PROMPTS = ("a red house", "a blue boat in sea")


@functools.cache
def loaded(folder: Path, dtype: Any = "float32") -> LoadedModel:
    return load(identify(str(folder))[0], MemorySettings(dtype=dtype), "cpu")


@pytest.fixture
def model(tiny_sd: Path) -> LoadedModel:
    one = loaded(tiny_sd)
    one.embeddings = EmbeddingCache()
    return one


def images(model: LoadedModel, requests: list[ImageRequest]) -> list[GeneratedImage]:
    outcomes = generate_batch(model, requests)
    assert all(isinstance(outcome, GeneratedImage) for outcome in outcomes), outcomes
    return outcomes  # type: ignore[return-value]


class PlainPipeline:
    """What a careful user of diffusers writes."""

    def __init__(self, pipeline_class: str, folder: Path, scheduler: str) -> None:
        import diffusers
        import torch

        self.pipe = getattr(diffusers, pipeline_class).from_pretrained(folder, local_files_only=True)
        self.pipe.scheduler = getattr(diffusers, scheduler).from_config(self.pipe.scheduler.config)
        self.pipe.set_progress_bar_config(disable=True)
        for component in self.pipe.components.values():
            if isinstance(component, torch.nn.Module):
                component.requires_grad_(False)

    def pictures(self, requests: list[ImageRequest], **texts: Any) -> Any:
        """uint8, (n, height, width, 3)."""
        import torch

        pictures = self.pipe(
            generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
            num_inference_steps=requests[0].steps,
            guidance_scale=requests[0].guidance_scale,
            width=requests[0].width,
            height=requests[0].height,
            output_type="np",
            **texts,
        ).images
        return (pictures * 255).round().astype(np.uint8)

    def embeddings(self, requests: list[ImageRequest]) -> dict[str, Any]:
        """The arguments for prompts that were encoded one by one."""
        import torch

        encoded = []
        for request in requests:
            texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
            options = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
            encoded.append(self.pipe.encode_prompt(**texts, **options))
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        return {name: torch.cat(tensors) for name, tensors in zip(names, zip(*encoded, strict=True), strict=False)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "pipeline_class", "name", "scheduler"),
    [
        ("sd", "StableDiffusionPipeline", "DDIM", "DDIMScheduler"),
        ("sd", "StableDiffusionPipeline", "Euler a", "EulerAncestralDiscreteScheduler"),
        ("sdxl", "StableDiffusionXLPipeline", "Euler", "EulerDiscreteScheduler"),
    ],
)
def test_same_bits_as_the_plain_pipeline(
    tiny_models: Path, folder: str, pipeline_class: str, name: str, scheduler: str
) -> None:
    model = loaded(tiny_models / folder)
    plain = PlainPipeline(pipeline_class, tiny_models / folder, scheduler)
    requests = [request_for(model, prompt, seed, scheduler=name) for seed, prompt in enumerate(PROMPTS)]

    (alone,) = images(model, requests[:1])
    (picture,) = plain.pictures(requests[:1], prompt=PROMPTS[0], negative_prompt="fog")
    np.testing.assert_array_equal(alone.pixels, picture)

    # In a batch, a text encoded with its neighbours may differ in the last bits; ours is always encoded alone.
    ours, pictures = images(model, requests), plain.pictures(requests, **plain.embeddings(requests))
    np.testing.assert_array_equal([image.pixels for image in ours], pictures)
    assert pictures.shape == (2, 32, 32, 3) and not np.array_equal(*pictures)
    assert [image.pipeline_class for image in ours] == [pipeline_class] * 2
    assert [image.scheduler_class for image in ours] == [scheduler] * 2


def test_image_of_a_batch_is_remade_in_a_batch_of_its_copies(model: LoadedModel) -> None:
    requests = [request_for(model, prompt, seed) for seed, prompt in enumerate((*PROMPTS, "fog"))]
    bundle = images(model, requests)
    assert [(image.batch_size, image.batch_index) for image in bundle] == [(3, 0), (3, 1), (3, 2)]
    for index, request in enumerate(requests):
        padded = images(model, [request] * 3)
        np.testing.assert_array_equal(padded[index].pixels, bundle[index].pixels)


def test_every_text_is_encoded_once(model: LoadedModel) -> None:
    encoded: list[int] = []
    hook = model.pipe.text_encoder.register_forward_hook(lambda *_: encoded.append(1))
    try:
        first = images(model, [request_for(model, prompt) for prompt in (*PROMPTS, PROMPTS[0])])
        again = images(model, [request_for(model, prompt, seed=9) for prompt in PROMPTS])
    finally:
        hook.remove()
    assert len(encoded) == 3  # two prompts, one negative prompt
    np.testing.assert_array_equal(first[0].pixels, first[2].pixels)
    assert not np.array_equal(first[0].pixels, again[0].pixels)


@pytest.mark.slow
def test_noise_is_the_same_in_every_precision(tiny_sd: Path) -> None:
    import torch

    drawn = torch.randn((1, 4, 16, 16), generator=torch.Generator("cpu").manual_seed(7), dtype=torch.float32)
    expected = hashlib.sha256(drawn.numpy().tobytes()).hexdigest()
    for dtype in ("float32", "bfloat16"):
        model = loaded(tiny_sd, dtype)
        alone, *_ = images(model, [request_for(model, seed=7)])
        _, second = images(model, [request_for(model, seed=8), request_for(model, seed=7)])
        assert (alone.noise_sha256, second.noise_sha256) == (expected, expected)
        assert alone.noise_shape == (1, 4, 16, 16)
    half, full = (images(loaded(tiny_sd, dtype), [request_for(model)])[0] for dtype in ("bfloat16", "float32"))
    assert np.abs(half.pixels.astype(int) - full.pixels).mean() < 8  # the same picture, but for rounding


@pytest.mark.parametrize("scheduler", ["Euler a", "DPM++ 2M SDE"])
@pytest.mark.slow
def test_noise_added_on_the_way_is_drawn_in_float32_too(
    scheduler: str, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.utils import torch_utils

    draw, drawn = torch_utils.randn_tensor, []

    def watched(*shape: Any, **options: Any) -> Any:
        drawn.append((str(options["dtype"]), str(options["device"])))
        return draw(*shape, **options)

    monkeypatch.setattr(torch_utils, "randn_tensor", watched)
    model = loaded(tiny_sd, "bfloat16")
    images(model, [request_for(model, scheduler=scheduler, steps=4)] * 2)
    assert len(drawn) >= 1 + 4, "the start, and once per step"
    assert set(drawn) == {("torch.float32", "cpu")}


def test_interrupt_is_seen_between_steps(model: LoadedModel) -> None:
    steps: list[int] = []
    hook = model.pipe.unet.register_forward_hook(lambda *_: steps.append(1))
    try:
        with pytest.raises(Interrupted):
            list(generate_bundle(model, [[request_for(model, steps=50)] * 2], lambda: len(steps) >= 3))
    finally:
        hook.remove()
    assert len(steps) == 3


def test_clip_skip_takes_an_earlier_layer(model: LoadedModel) -> None:
    import torch

    (normal,), (skipped,) = images(model, [request_for(model)]), images(model, [request_for(model, clip_skip=1)])
    assert not np.array_equal(normal.pixels, skipped.pixels)
    encoder, tokenizer = model.pipe.text_encoder, model.pipe.tokenizer
    tokens = tokenizer([PROMPTS[0]], padding="max_length", max_length=32, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        states = encoder(tokens.input_ids, output_hidden_states=True).hidden_states
        expected = encoder.final_layer_norm(states[-2])
        used = encode(model, request_for(model, clip_skip=1)).positive
    assert used is not None and torch.equal(used.tensors["prompt_embeds"], expected)


def test_guidance_of_one_needs_no_negative_prompt(model: LoadedModel) -> None:
    foggy, clear = (request_for(model, guidance_scale=1.0, negative_prompt=text) for text in ("fog", ""))
    np.testing.assert_array_equal(images(model, [foggy])[0].pixels, images(model, [clear])[0].pixels)
    assert len(model.embeddings._memory) == 1


@pytest.mark.parametrize("folder", ["sd_nan", "sd_black"])
def test_unusable_pictures_are_failures(tiny_models: Path, folder: str) -> None:
    model = loaded(tiny_models / folder)
    outcomes = generate_batch(model, [request_for(model, seed=seed) for seed in range(2)])
    assert [type(outcome) for outcome in outcomes] == [BadPixels, BadPixels]
    assert "memory.dtype=float32" in str(outcomes[0])


Fault = Callable[[int, dict[str, Any]], Exception | None]


@pytest.fixture
def failing(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], list[int]]:
    """Makes the pipeline call raise what `fault(batch size, arguments)` says; returns the sizes that were tried."""

    def fail(fault: Fault) -> list[int]:
        sizes: list[int] = []
        call = type(model.pipe).__call__

        @functools.wraps(call)
        def replacement(self: Any, **arguments: Any) -> Any:
            sizes.append(len(arguments["generator"]))
            error = fault(sizes[-1], arguments)
            if error:
                raise error
            return call(self, **arguments)

        monkeypatch.setattr(type(model.pipe), "__call__", replacement)
        return sizes

    return fail


@pytest.mark.slow
def test_failing_request_costs_only_itself(model: LoadedModel, failing: Callable[[Fault], list[int]]) -> None:
    import torch

    bad = request_for(model, "bad")
    embedding = encode(model, bad).positive.tensors["prompt_embeds"]  # type: ignore[union-attr]

    def fault(_: int, arguments: dict[str, Any]) -> Exception | None:
        rows = arguments["prompt_embeds"]
        return ValueError("odd prompt\nmore") if any(torch.equal(row, embedding[0]) for row in rows) else None

    failing(fault)
    requests = [request_for(model, seed=1), request_for(model, seed=2), bad, request_for(model, seed=3)]
    outcomes = generate_batch(model, requests)
    kinds = [GeneratedImage, GeneratedImage, JobFailure, GeneratedImage]
    assert [type(outcome) for outcome in outcomes] == kinds and str(outcomes[2]) == "ValueError: odd prompt"


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronous",
        "CUDA error: device-side assert triggered",
        "unspecified launch failure",
    ],
)
def test_lost_device_ends_the_process(model: LoadedModel, failing: Callable[[Fault], list[int]], text: str) -> None:
    sizes = failing(lambda *_: RuntimeError(text))
    with pytest.raises(DeviceLost, match="no longer answers"):
        generate_batch(model, [request_for(model), request_for(model, seed=2)])
    assert sizes == [2]  # no second try: another kernel on this context may give wrong pictures


def test_pictures_come_batch_by_batch(model: LoadedModel) -> None:
    batches = [[request_for(model, seed=seed) for seed in seeds] for seeds in ((0, 1), (2,), (3, 4))]
    begun: list[list[int]] = []
    phases = PhaseSeconds()

    def note(stage: str, places: Sequence[int]) -> None:
        if stage == "decode":
            begun.append(list(places))

    outcomes = generate_bundle(model, batches, phases=phases, on_work=note, predicted_peak_bytes=7)
    seen = [(next(outcomes)[0], list(begun)) for _ in range(5)]
    first, second, third = [0, 1], [2], [3, 4]
    assert seen == [
        (0, [first]),
        (1, [first]),
        (2, [first, second]),
        (3, [first, second, third]),
        (4, [first, second, third]),
    ]
    assert next(outcomes, None) is None
    assert min(phases.encode, phases.denoise, phases.decode) > 0


def test_who_is_worked_at_is_told(model: LoadedModel) -> None:
    apply_memory(model, replace(model.memory, techniques=("staged",)))
    batches = [[request_for(model), request_for(model, PROMPTS[1])], [request_for(model, "fog")]]
    told: dict[tuple[str, tuple[int, ...]], None] = {}  # an ordered set: the same may be said twice
    try:
        made = list(generate_bundle(model, batches, on_work=lambda stage, at: told.setdefault((stage, tuple(at)))))
    finally:
        apply_memory(model, MemorySettings())
    assert len(made) == 3
    assert list(told) == [
        *(("encode", (place,)) for place in range(3)),
        ("denoise", (0, 1)),
        ("denoise", (2,)),
        ("decode", (0, 1)),
        ("decode", (2,)),
    ]


def test_what_is_known_of_a_picture_is_complete(model: LoadedModel) -> None:
    (image,) = (one for _, one in generate_bundle(model, [[request_for(model)]], predicted_peak_bytes=7))
    assert isinstance(image, GeneratedImage)
    assert image.predicted_peak_bytes == 7 and image.memory == model.memory and image.seconds > 0
    assert set(image.stage_peaks) == {"encode", "denoise", "decode"}
    assert all(peaks["rss"] > 0 for peaks in image.stage_peaks.values())
    assert image.prompt_tokens == (PromptTokens("text_encoder", len("aredhouse"), 0),)
    assert image.flagged is None and image.lora_matches == ()
    assert {"attention_backend", "channels_last", "compile"} <= set(image.runtime)


def test_a_stop_keeps_what_is_denoised(model: LoadedModel) -> None:
    apply_memory(model, replace(model.memory, techniques=("staged",)))
    batches = [[request_for(model, seed=seed, steps=3)] for seed in range(3)]
    steps: list[int] = []
    hook = model.pipe.unet.register_forward_hook(lambda *_: steps.append(1))
    made: list[int] = []
    try:
        with pytest.raises(Interrupted):
            for place, outcome in generate_bundle(model, batches, lambda: len(steps) >= 5):
                assert isinstance(outcome, GeneratedImage)
                made.append(place)
    finally:
        hook.remove()
        apply_memory(model, MemorySettings())
    assert made == [0]


@pytest.mark.parametrize("flags", [False, True])
def test_a_flagged_picture_is_black_and_a_picture(tiny_sd: Path, tmp_path: Path, flags: bool) -> None:
    folder = write_checked_sd(tiny_sd, tmp_path / "checked", flags=flags)
    model = load(identify(str(folder), safety_checker=True)[0], MemorySettings(), "cpu")
    one, two = images(model, [request_for(model), request_for(model, seed=2)])
    assert (one.flagged, two.flagged) == (flags, flags)
    assert one.pixels.any() == two.pixels.any() == (not flags)


@pytest.mark.parametrize("scheduler", ["Euler a", "DPM++ 2M SDE", "DPM++ SDE"])
def test_noise_on_the_way_is_each_images_own(model: LoadedModel, scheduler: str) -> None:
    requests = [request_for(model, seed=seed, scheduler=scheduler) for seed in (3, 4)]
    together = images(model, requests)
    for request, image in zip(requests, together, strict=True):
        (alone,) = images(model, [request])
        assert np.abs(alone.pixels.astype(int) - image.pixels).max() <= 1
    assert np.abs(together[0].pixels.astype(int) - together[1].pixels).mean() > 5
