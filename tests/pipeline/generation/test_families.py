"""Every family against the plain call of its diffusers pipeline."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import a_few
from tiny_requests import NO_NEGATIVE_PROMPT, family_request

from pipeline.errors import Interrupted, JobFailure
from pipeline.generation.generate import generate_batch, generate_bundle
from pipeline.loading.load import load
from pipeline.memory.device.apply import apply_memory
from pipeline.memory.device.embedding_cache import EmbeddingCache
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings
from pipeline.weights.families import FAMILIES

pytestmark = pytest.mark.slow

PROMPTS = ("a red house", "a blue boat in sea")
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)
A_FEW_FAMILIES = pytest.mark.parametrize("family", a_few(FAMILIES))

Tiny = Callable[[str], Path]


@functools.cache
def loaded(folder: Path, dtype: Any = "float32") -> LoadedModel:
    return load(identify(str(folder))[0], MemorySettings(dtype=dtype), "cpu")


def made(model: LoadedModel, requests: list[ImageRequest]) -> list[GeneratedImage]:
    outcomes = generate_batch(model, requests)
    assert all(isinstance(outcome, GeneratedImage) for outcome in outcomes), outcomes
    return outcomes  # type: ignore[return-value]


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3"])
def test_as_many_layers_are_left_out_as_the_pipeline_can(tiny: Tiny, family: str) -> None:
    model = loaded(tiny(family))
    most = model.files.max_clip_skip
    assert most is not None
    for prompt in (PROMPTS[0], "a (red:1.2) house"):
        can, cannot = (
            generate_batch(model, [family_request(model, prompt, clip_skip=most + more)], remember=False)[0]
            for more in (0, 1)
        )
        assert isinstance(can, GeneratedImage) and isinstance(cannot, JobFailure)


def plainly(folder: Path, family: str, requests: list[ImageRequest]) -> Any:
    """uint8 (n, height, width, 3) as a careful user of diffusers gets them."""
    import diffusers
    import torch

    pipe = _plain_pipeline(folder)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    first = requests[0]
    options: dict[str, Any] = {"guidance_scale": first.guidance_scale}
    if FAMILIES[family].guidance == "true_cfg":
        options = {"true_cfg_scale": first.guidance_scale}
    if family not in NO_NEGATIVE_PROMPT:
        options["negative_prompt"] = [request.negative_prompt for request in requests]
    if family in ("pixart_sigma", "sana"):
        options |= {"use_resolution_binning": False, "clean_caption": False}
    assert isinstance(pipe, getattr(diffusers, FAMILIES[family].pipeline_class))
    pictures = pipe(
        prompt=[request.prompt for request in requests],
        generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
        num_inference_steps=first.steps,
        width=first.width,
        height=first.height,
        output_type="np",
        **options,
    ).images
    return (pictures * 255).round().astype(np.uint8)


@functools.cache
def _plain_pipeline(folder: Path) -> Any:
    import warnings

    import diffusers
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False)
    return pipe


@pytest.fixture
def staged(tiny: Tiny) -> Iterator[Callable[[str], LoadedModel]]:
    """A family's model held in stages, and as before afterwards."""
    changed: list[LoadedModel] = []

    def held(family: str) -> LoadedModel:
        model = loaded(tiny(family))
        changed.append(model)
        apply_memory(model, MemorySettings(techniques=("staged", "drop_encoders")))
        model.embeddings = EmbeddingCache()
        return model

    yield held
    for model in changed:
        apply_memory(model, MemorySettings())


@EVERY_FAMILY
def test_same_bits_as_the_plain_pipeline(tiny: Tiny, family: str) -> None:
    model = loaded(tiny(family))
    for request in (family_request(model), family_request(model, PROMPTS[1], 2, width=64, height=96)):
        if family == "sana":
            request = replace(request, height=64)
        (ours,) = made(model, [request])
        (picture,) = plainly(tiny(family), family, [request])
        np.testing.assert_array_equal(ours.pixels, picture)
        assert ours.pixels.std() > 5, "a picture of something"
        assert ours.pipeline_class == FAMILIES[family].pipeline_class


@EVERY_FAMILY
def test_without_guidance_too(tiny: Tiny, family: str) -> None:
    model = loaded(tiny(family))
    request = family_request(model, guidance_scale=0.0, negative_prompt="")
    (ours,) = made(model, [request])
    plain = replace(request, guidance_scale=1.0) if FAMILIES[family].guidance == "true_cfg" else request
    (picture,) = plainly(tiny(family), family, [plain])
    np.testing.assert_array_equal(ours.pixels, picture)


@EVERY_FAMILY
def test_a_batch_is_as_the_plain_batch_but_for_rounding(tiny: Tiny, family: str) -> None:
    model = loaded(tiny(family))
    requests = [family_request(model, prompt, seed) for seed, prompt in enumerate((*PROMPTS, PROMPTS[0]))]
    ours, pictures = made(model, requests), plainly(tiny(family), family, requests)
    difference = np.abs(np.stack([image.pixels for image in ours]).astype(int) - pictures)
    assert difference.max() <= 1 and difference.mean() < 0.01


@EVERY_FAMILY
def test_a_picture_of_a_batch_is_remade_in_a_batch_of_its_copies(tiny: Tiny, family: str) -> None:
    model = loaded(tiny(family))
    requests = [family_request(model, prompt, seed) for seed, prompt in enumerate((*PROMPTS, PROMPTS[0]))]
    for request, image in zip(requests, made(model, requests), strict=True):
        copies = made(model, [request] * image.batch_size)
        assert copies[0].batch_size == image.batch_size
        np.testing.assert_array_equal(copies[image.batch_index].pixels, image.pixels)


@EVERY_FAMILY
def test_in_stages_the_same_bits(staged: Callable[[str], LoadedModel], tiny: Tiny, family: str) -> None:
    requests = [family_request(loaded(tiny(family)), prompt, seed) for seed, prompt in enumerate(PROMPTS)]
    before = [made(loaded(tiny(family)), [request])[0] for request in requests]
    model = staged(family)
    order: list[str] = []
    outcomes = dict(generate_bundle(model, [[one] for one in requests], on_work=lambda stage, _: order.append(stage)))
    assert [stage for stage, _ in groupby(order)] == ["encode", "denoise", "decode"]
    for place, image in enumerate(before):
        staged_image = outcomes[place]
        assert isinstance(staged_image, GeneratedImage)
        np.testing.assert_array_equal(staged_image.pixels, image.pixels)
        assert staged_image.memory.techniques == ("staged", "drop_encoders")
    assert model.dropped == {name for name in model.pipe.components if name.startswith("text_encoder")}
    assert all(model.pipe.components[name] is None for name in model.dropped)


@EVERY_FAMILY
def test_noise_is_recorded_and_of_each_seed(tiny: Tiny, family: str) -> None:
    import torch

    model = loaded(tiny(family))
    one, two = made(model, [family_request(model, seed=7), family_request(model, seed=8)])
    drawn = torch.randn(one.noise_shape, generator=torch.Generator("cpu").manual_seed(7), dtype=torch.float32)
    assert one.noise_sha256 == hashlib.sha256(drawn.numpy().tobytes()).hexdigest() != two.noise_sha256
    assert one.noise_shape[0] == 1 and not np.array_equal(one.pixels, two.pixels)


@A_FEW_FAMILIES
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_makes_the_same_picture(tiny: Tiny, family: str, dtype: str) -> None:
    (full,) = made(loaded(tiny(family)), [family_request(loaded(tiny(family)))])
    half = loaded(tiny(family), dtype)
    (image,) = made(half, [family_request(half)])
    assert image.noise_sha256 == full.noise_sha256
    assert np.abs(image.pixels.astype(int) - full.pixels).mean() < 4
    assert all(part is not None for name, part in half.pipe.components.items() if name.startswith("text_encoder"))


@A_FEW_FAMILIES
def test_interrupted_between_steps(tiny: Tiny, family: str) -> None:
    model = loaded(tiny(family))
    steps: list[int] = []
    denoiser = getattr(model.pipe, model.files.denoiser)
    hook = denoiser.register_forward_hook(lambda *_: steps.append(1))
    try:
        with pytest.raises(Interrupted):
            list(generate_bundle(model, [[family_request(model, steps=40)]], should_stop=lambda: len(steps) >= 4))
    finally:
        hook.remove()
    assert 4 <= len(steps) <= 6


@A_FEW_FAMILIES
def test_what_a_prompt_was_cut_to_is_recorded(tiny: Tiny, family: str) -> None:
    model = loaded(tiny(family))
    short, long = made(model, [family_request(model, "cat"), family_request(model, "word " * 600)])
    assert [one.truncated for one in short.prompt_tokens] == [0] * len(short.prompt_tokens)
    assert {one.encoder for one in short.prompt_tokens} == {
        name for name in model.pipe.components if name.startswith("text_encoder")
    }
    for few, many in zip(short.prompt_tokens, long.prompt_tokens, strict=True):
        assert 3 <= few.tokens <= 4 and many.tokens >= 2400
        assert (many.truncated > 0) == (family not in ("sd15", "sdxl"))


@pytest.mark.parametrize("family", ["flux", "flux2_klein", "qwen_image", "chroma"])
def test_a_size_that_diffusers_rounds_is_a_failure(tiny: Tiny, family: str) -> None:
    model = loaded(tiny(family))
    (outcome,) = generate_batch(model, [family_request(model, width=40)])
    assert isinstance(outcome, JobFailure) and "made 32 x 32 pixels instead of 40 x 32" in str(outcome)


def test_a_negative_prompt_works_where_the_plain_call_takes_none(tiny: Tiny) -> None:
    model = loaded(tiny("flux2_klein"))
    without, against = made(model, [family_request(model), family_request(model, negative_prompt="fog")])
    assert not np.array_equal(without.pixels, against.pixels)


def test_a_pipeline_that_hides_how_it_encodes_gets_plain_texts(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.generation import encode, phases

    for module in (phases, encode):
        monkeypatch.setattr(module, "text_interface", lambda _: None)
    model = loaded(tiny("sd15"))
    request = family_request(model)
    apply_memory(model, MemorySettings(techniques=("staged", "drop_encoders")))
    try:
        (ours,) = made(model, [request])
    finally:
        apply_memory(model, MemorySettings())
    np.testing.assert_array_equal(ours.pixels, plainly(tiny("sd15"), "sd15", [request])[0])
    assert ours.prompt_tokens == ()


def test_sizes_that_are_drawn_are_those_that_families_say(tiny: Tiny) -> None:
    for name, family in FAMILIES.items():
        model = loaded(tiny(name))
        side = 3 * family.size_multiple
        (image,) = made(model, [family_request(model, width=side, height=4 * family.size_multiple)])
        assert image.pixels.shape == (4 * family.size_multiple, side, 3)
