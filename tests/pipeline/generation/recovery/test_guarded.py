"""Memory that runs out at each stage: what is tried again, what is given up for it, and what is remembered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_requests import request_for

from pipeline.errors import JobFailure, ModelError, OutOfMemory
from pipeline.generation import phases
from pipeline.generation.decode import Undecoded
from pipeline.generation.generate import generate_batch, generate_bundle
from pipeline.generation.recovery import fallbacks, guarded
from pipeline.generation.recovery.known_failures import KnownFailures
from pipeline.loading.load import load
from pipeline.memory.device import apply
from pipeline.memory.device.embedding_cache import EmbeddingCache
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.pool import Pool
from pipeline.memory.planning.history import FallbackHistory
from pipeline.registry.model_settings import identify
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings, SpeedSettings
from pipeline.system.units import size_text

pytestmark = pytest.mark.slow

PROMPTS = ("a red house", "a blue boat", "a car")
EXACT = MemorySettings(exact=True)


@pytest.fixture
def model(tiny_sd: Path) -> LoadedModel:
    return load(identify(str(tiny_sd))[0], EXACT, "cpu")


@pytest.fixture(autouse=True)
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """FallbackHistory and embeddings of this test alone; called, it forgets what is only in this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    processes: list[FallbackHistory] = []

    def start_process() -> None:
        processes[:] = [FallbackHistory(tmp_path / "memory.sqlite")]

    start_process()
    monkeypatch.setattr(guarded, "history", lambda: processes[0])
    yield start_process


def requests_for(model: LoadedModel, count: int, memory: MemorySettings = EXACT) -> list[ImageRequest]:
    prompts = (PROMPTS[seed % len(PROMPTS)] for seed in range(count))
    return [request_for(model, prompt, seed, steps=2, memory=memory) for seed, prompt in enumerate(prompts)]


def images(outcomes: list[GeneratedImage | JobFailure]) -> list[GeneratedImage]:
    assert all(isinstance(outcome, GeneratedImage) for outcome in outcomes), outcomes
    return outcomes  # type: ignore[return-value]


@pytest.fixture
def out_of_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, Callable[[int, int], bool]], list[int]]:
    """Makes a class of modules run out of memory where `fault(rows, calls so far)`; returns the rows of all calls."""

    def inject(kind: type, fault: Callable[[int, int], bool]) -> list[int]:
        import torch

        rows: list[int] = []
        forward: Any = kind.forward

        def failing(self: Any, first: Any = None, *arguments: Any, **options: Any) -> Any:
            tensor = first if first is not None else options["input_ids"]
            rows.append(tensor.shape[0])
            if fault(rows[-1], len(rows)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(self, *(() if first is None else (first,)), *arguments, **options)

        monkeypatch.setattr(kind, "forward", failing)
        return rows

    return inject


Inject = Callable[[type, Callable[[int, int], bool]], list[int]]


def test_encoding_gives_way_to_stages(model: LoadedModel, out_of_memory: Inject) -> None:
    before = images(generate_batch(model, requests_for(model, 2)))
    model.embeddings = EmbeddingCache()
    calls = out_of_memory(type(model.pipe.text_encoder), lambda _, call: call == 1)
    after = images(generate_batch(model, requests_for(model, 2)))
    assert len(calls) == 1 + 3, "the failed one, two prompts, one negative prompt"
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert (one.memory.techniques, other.memory.techniques) == ((), ("staged", "drop_encoders"))


def test_denoising_gives_way_to_smaller_batches(
    model: LoadedModel, out_of_memory: Inject, known: Callable[[], None]
) -> None:
    rows = out_of_memory(type(model.pipe.unet), lambda rows, _: rows > 4)  # guidance takes two rows per image
    made = images(generate_batch(model, requests_for(model, 5)))
    assert [image.request.seed for image in made] == [0, 1, 2, 3, 4]
    assert [image.batch_size for image in made] == [2, 2, 2, 2, 1]
    assert rows == [10, *[4] * 4, *[2] * 2]
    known()
    for again in range(2):
        rows.clear()
        images(generate_batch(model, requests_for(model, 5)))
        assert rows == [*[4] * 4, *[2] * 2], f"remembered from run to run, bundle {again}"


def test_blocks_that_fill_the_device_become_fewer_by_a_tenth_and_stay_so(
    tiny_sd: Path, out_of_memory: Inject, known: Callable[[], None]
) -> None:
    memory = MemorySettings(exact=True, techniques=("resident_blocks",), budget_bytes=2**30)
    model = load(identify(str(tiny_sd))[0], memory, "cpu")
    before = images(generate_batch(model, requests_for(model, 2, memory)))
    calls = out_of_memory(type(model.pipe.unet), lambda _, call: call <= 2)
    after = images(generate_batch(model, requests_for(model, 2, memory)))
    assert len(calls) == 2 + 2, "the same once more, then with fewer blocks"
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert (one.memory.resident_share, other.memory.resident_share) == (1.0, 0.9)
    known()
    again = load(identify(str(tiny_sd))[0], memory, "cpu")
    assert images(generate_batch(again, requests_for(again, 2, memory)))[0].memory.resident_share == 0.9


def test_every_batch_of_a_bundle_knows_what_the_first_one_learnt(model: LoadedModel, out_of_memory: Inject) -> None:
    rows = out_of_memory(type(model.pipe.unet), lambda rows, _: rows > 4)
    requests = requests_for(model, 6)
    outcomes = dict(generate_bundle(model, [requests[:3], requests[3:]]))
    assert [images([outcomes[place]])[0].batch_size for place in range(6)] == [1] * 6
    assert rows.count(6) == 1


def test_decoding_gives_way_without_denoising_again(model: LoadedModel, out_of_memory: Inject) -> None:
    before = images(generate_batch(model, requests_for(model, 3)))
    denoised: list[int] = []
    model.pipe.unet.register_forward_hook(lambda *_: denoised.append(1))
    rows = out_of_memory(type(model.pipe.vae.decoder), lambda rows, _: rows > 1)
    after = images(generate_batch(model, requests_for(model, 3)))
    assert len(denoised) == 2 and rows == [3, 1, 1, 1]
    for one, other in zip(before, after, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1
        assert other.memory.techniques == ("vae_slicing",) and other.batch_size == 3
    rows.clear()
    images(generate_batch(model, requests_for(model, 3)))
    assert rows == [1, 1, 1]


def test_lossy_rungs_are_recorded(model: LoadedModel, out_of_memory: Inject) -> None:
    calls = out_of_memory(type(model.pipe.vae.decoder), lambda _, call: call < 3)
    (image,) = images(generate_batch(model, requests_for(model, 1, MemorySettings())))
    assert image.memory.techniques == ("vae_slicing", "vae_tiling") and len(calls) == 3


def test_when_nothing_is_left_it_fails_with_the_numbers(model: LoadedModel, out_of_memory: Inject) -> None:
    before = images(generate_batch(model, requests_for(model, 2)))
    broken = True
    out_of_memory(type(model.pipe.unet), lambda *_: broken)
    outcomes = generate_batch(model, requests_for(model, 2))
    assert [type(outcome) for outcome in outcomes] == [OutOfMemory, OutOfMemory]
    for text in ("denoise at", "1 of 32 x 32", "staged, drop_encoders", "Tried to allocate 2.00 GiB", "memory.quality"):
        assert text in str(outcomes[0])
    broken = False
    after = images([one for request in requests_for(model, 2) for one in generate_batch(model, [request])])
    for one, other in zip(before, after, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1, "the model is whole"


def test_a_picture_that_cannot_be_decoded_costs_only_itself(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, decode = requests_for(model, 3), phases.decode
    seen: list[Any] = []

    def remembering(pipe: Any, undecoded: Undecoded, device: Any) -> Any:
        seen.append(undecoded.latents)
        return decode(pipe, undecoded, device)

    monkeypatch.setattr(phases, "decode", remembering)
    generate_batch(model, requests[1:2])
    bad = seen[0][0]

    def failing(pipe: Any, undecoded: Undecoded, device: Any) -> Any:
        if any((row - bad).abs().max() < 1e-3 for row in undecoded.latents):
            raise ValueError("odd latents")
        return decode(pipe, undecoded, device)

    monkeypatch.setattr(phases, "decode", failing)
    outcomes = generate_batch(model, requests)
    assert [type(outcome) for outcome in outcomes] == [GeneratedImage, JobFailure, GeneratedImage]
    assert [images([outcomes[place]])[0].batch_index for place in (0, 2)] == [0, 2]


def test_a_prompt_that_cannot_be_encoded_costs_only_itself(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = type(model.pipe).encode_prompt

    @functools.wraps(encode)
    def failing(self: Any, *arguments: Any, **options: Any) -> Any:
        if options.get("prompt") == PROMPTS[1]:
            raise ValueError("odd prompt")
        return encode(self, *arguments, **options)

    monkeypatch.setattr(type(model.pipe), "encode_prompt", failing)
    outcomes = generate_batch(model, requests_for(model, 3))
    assert [type(outcome) for outcome in outcomes] == [GeneratedImage, JobFailure, GeneratedImage]


def test_an_impossible_technique_is_passed_over(
    model: LoadedModel, out_of_memory: Inject, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_memory = apply.apply_memory

    def refusing(model: LoadedModel, memory: MemorySettings) -> None:
        if memory.uses("drop_encoders"):
            raise ModelError("cannot be held so")
        apply_memory(model, memory)

    monkeypatch.setattr(fallbacks, "apply_memory", refusing)
    out_of_memory(type(model.pipe.unet), lambda _, call: call == 1)
    (image,) = images(generate_batch(model, requests_for(model, 1)))
    assert image.memory.techniques == ("resident_blocks",)


def test_what_was_learnt_is_for_the_same_wishes_only(model: LoadedModel, out_of_memory: Inject) -> None:
    rows = out_of_memory(type(model.pipe.unet), lambda rows, _: rows > 4)
    images(generate_batch(model, requests_for(model, 4)))
    rows.clear()
    wider = [replace(request, width=64) for request in requests_for(model, 4)]
    images(generate_batch(model, wider))
    assert rows[0] == 8, "another size is another situation"


def test_adapters_that_cannot_be_put_on_are_tried_once_per_batch(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(generate_batch(model, requests_for(model, 3)))  # so that nothing needs encoding
    tried: list[Any] = []

    def refusing(_: LoadedModel, wanted: Any) -> None:
        tried.append(wanted)
        raise JobFailure("lora x: no key matches")

    monkeypatch.setattr(phases, "apply", refusing)
    outcomes = generate_batch(model, requests_for(model, 3))
    assert [str(outcome) for outcome in outcomes] == ["lora x: no key matches"] * 3 and len(tried) == 1


def test_idle_components_go_before_anything_is_given_up(model: LoadedModel, out_of_memory: Inject) -> None:
    import torch

    own = model.pool.bytes_on_host
    model.pool.get("of another model", lambda: torch.nn.Linear(64, 64))
    model.pool.release("of another model")
    rows = out_of_memory(type(model.pipe.unet), lambda *_: model.pool.bytes_on_host > own)
    made = images(generate_batch(model, requests_for(model, 2)))
    assert rows == [4, 4, 4], "tried once more as it was"
    assert [(image.batch_size, image.memory.techniques) for image in made] == [(2, ()), (2, ())]


def test_nothing_is_learnt_where_nothing_worked(
    model: LoadedModel, out_of_memory: Inject, known: Callable[[], None]
) -> None:
    broken = True
    out_of_memory(type(model.pipe.unet), lambda *_: broken)
    assert all(isinstance(one, OutOfMemory) for one in generate_batch(model, requests_for(model, 2, MemorySettings())))
    broken = False
    for _ in range(2):
        made = images(generate_batch(model, requests_for(model, 2, MemorySettings())))
        assert [(image.batch_size, image.memory.techniques) for image in made] == [(2, ()), (2, ())]
        known()


def test_what_failed_after_something_worked_is_not_learnt(
    model: LoadedModel, out_of_memory: Inject, known: Callable[[], None]
) -> None:
    broken = True
    rows = out_of_memory(type(model.pipe.unet), lambda rows, call: rows > 4 or (broken and call > 3))
    outcomes = generate_batch(model, requests_for(model, 4))
    assert [isinstance(one, GeneratedImage) for one in outcomes] == [True, True, False, False]
    broken = False
    known()
    rows.clear()
    made = images(generate_batch(model, requests_for(model, 4)))
    assert rows == [4] * 4 and {image.memory.techniques for image in made} == {()}


def test_a_picture_that_is_remade_recalls_and_remembers_nothing(
    model: LoadedModel, out_of_memory: Inject, known: Callable[[], None]
) -> None:
    rows = out_of_memory(type(model.pipe.unet), lambda rows, _: rows > 4)
    for again in range(2):
        rows.clear()
        images(generate_batch(model, requests_for(model, 4), remember=False))
        assert rows[0] == 8, f"nothing was noted, bundle {again}"
    images(generate_batch(model, requests_for(model, 4)))
    rows.clear()
    images(generate_batch(model, requests_for(model, 4), remember=False))
    assert rows[0] == 8, "what is known is left aside"


def wider(requests: list[ImageRequest]) -> list[ImageRequest]:
    return [replace(request, width=64) for request in requests]


@pytest.mark.parametrize("staged", [False, True])
def test_other_sizes_are_made_as_planned(model: LoadedModel, out_of_memory: Inject, staged: bool) -> None:
    """Tiling, which changes pixels, stays with the size that took it: in a bundle and from bundle to bundle."""
    planned = ("staged",) if staged else ()
    apply.apply_memory(model, MemorySettings(techniques=planned))

    def only_in_tiles(*_: int) -> bool:
        return size == 64 and not model.memory.uses("vae_tiling")

    size = 64
    out_of_memory(type(model.pipe.vae.decoder), only_in_tiles)
    decode = phases.Phases._decode

    def of_size(self: phases.Phases, piece: Any, span: list[int]) -> Any:
        nonlocal size
        size = self._requests[piece.places[0]].width
        return decode(self, piece, span)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases.Phases, "_decode", of_size)
        requests = requests_for(model, 1, MemorySettings())
        tiled = (*planned, "vae_slicing", "vae_tiling")
        for _ in range(2):
            batches = [wider(requests), requests, wider(requests)]
            made = images([one for _, one in sorted(generate_bundle(model, batches), key=lambda pair: pair[0])])
            assert [image.memory.techniques for image in made] == [tiled, planned, tiled]
            (alone,) = images(generate_batch(model, requests))
            assert alone.memory.techniques == planned


def test_another_plan_counts_from_then_on(model: LoadedModel, out_of_memory: Inject) -> None:
    out_of_memory(type(model.pipe.vae.decoder), lambda rows, _: rows > 1)
    images(generate_batch(model, requests_for(model, 2)))
    assert model.memory.techniques == ("vae_slicing",)
    apply.apply_memory(model, replace(EXACT, techniques=("staged",)))
    (image,) = images(generate_batch(model, requests_for(model, 1)))
    assert image.memory.techniques == ("staged",)


def test_weights_are_not_loaded_again_from_bundle_to_bundle(model: LoadedModel, out_of_memory: Inject) -> None:
    asked = MemorySettings(off=("staged", "drop_encoders"))
    out_of_memory(type(model.pipe.unet), lambda *_: not model.memory.uses("denoiser_int8"))
    images(generate_batch(model, requests_for(model, 1, asked)))
    loads = model.pool.loads
    (image,) = images(generate_batch(model, requests_for(model, 1, asked)))
    assert image.memory.techniques == ("denoiser_int8",) and model.pool.loads == loads


def test_what_encoding_took_is_remembered(
    model: LoadedModel, tiny_sd: Path, out_of_memory: Inject, known: Callable[[], None]
) -> None:
    asked = replace(EXACT, off=("staged", "drop_encoders"))
    used = model
    calls = out_of_memory(type(model.pipe.text_encoder), lambda *_: not used.memory.uses("leaf_offload"))
    images(generate_batch(model, requests_for(model, 1, asked)))
    assert len(calls) == 1 + 2
    calls.clear()
    known()
    used = load(identify(str(tiny_sd))[0], EXACT, "cpu")
    (image,) = images(generate_batch(used, requests_for(used, 1, asked)))
    assert len(calls) == 2 and image.memory.techniques == ("leaf_offload",), "from run to run"


def test_what_decoding_as_a_stage_took_is_remembered(
    tiny_sd: Path, out_of_memory: Inject, known: Callable[[], None]
) -> None:
    staged = replace(EXACT, techniques=("staged",))
    model = load(identify(str(tiny_sd))[0], staged, "cpu")
    rows = out_of_memory(type(model.pipe.vae.decoder), lambda rows, _: rows > 1)
    images(generate_batch(model, requests_for(model, 2)))
    assert rows == [2, 1, 1]
    rows.clear()
    known()
    images(generate_batch(load(identify(str(tiny_sd))[0], staged, "cpu"), requests_for(model, 2)))
    assert rows == [1, 1]


def test_a_last_smaller_batch_uses_what_larger_ones_learnt(model: LoadedModel, out_of_memory: Inject) -> None:
    rows = out_of_memory(type(model.pipe.unet), lambda rows, _: rows > 4)
    images(generate_batch(model, requests_for(model, 8)))
    rows.clear()
    images(generate_batch(model, requests_for(model, 3)))
    assert rows == [4, 4, 2, 2]


def test_without_room_to_encode_only_new_texts_fail(model: LoadedModel, out_of_memory: Inject) -> None:
    images(generate_batch(model, requests_for(model, 1)))
    out_of_memory(type(model.pipe.text_encoder), lambda *_: True)
    requests = [replace(request, prompt=prompt) for request, prompt in zip(
        requests_for(model, 4), ("unheard of", PROMPTS[0], "nor this", PROMPTS[0]), strict=True
    )]  # fmt: skip
    outcomes = generate_batch(model, requests)
    assert [type(outcome) for outcome in outcomes] == [OutOfMemory, GeneratedImage, OutOfMemory, GeneratedImage]
    assert images(outcomes[1::2])[0].memory.techniques == ()


@pytest.mark.parametrize("by_name", [True, False])
def test_decoding_gives_way_to_halves_where_nothing_is_sliced(
    model: LoadedModel, out_of_memory: Inject, by_name: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = MemorySettings(off=("vae_slicing",) if by_name else ())
    if not by_name:
        monkeypatch.delattr("diffusers.models.autoencoders.vae.AutoencoderMixin.enable_slicing")
    rows = out_of_memory(type(model.pipe.vae.decoder), lambda rows, _: rows > 2)
    made = images(generate_batch(model, requests_for(model, 5, asked)))
    assert rows == [5, 2, 2, 1] and {image.memory.techniques for image in made} == {()}
    rows.clear()
    images(generate_batch(model, requests_for(model, 5, asked)))
    assert rows == [2, 2, 1], "remembered"


class Loads:
    """`load` as it goes where memory is short: one answer after the other, an error or None for a model."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.techniques: list[tuple[str, ...]] = []

    def __call__(self, settings: Any, memory: MemorySettings, *_: Any, **__: Any) -> Any:
        self.techniques.append(memory.techniques)
        answer = self.answers.pop(0) if self.answers else OutOfMemory("out of memory: the last one; try this")
        if answer is not None:
            raise answer
        return memory


@pytest.fixture
def load_with(tiny_sd: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    settings = identify(str(tiny_sd))[0]

    def loading(
        loads: Loads,
        asked: MemorySettings = EXACT,
        pool: Pool | None = None,
        known_failures: KnownFailures | None = None,
    ) -> Any:
        monkeypatch.setattr(guarded, "load", loads)
        pool = pool or Pool()
        return guarded.load_with_fallbacks(settings, asked, asked, "cpu", None, pool, SpeedSettings(), known_failures)

    return loading


NO_ROOM = OutOfMemory("out of memory: 7 GiB; try memory=aggressive")


def test_loading_gives_way_and_remembers(load_with: Callable[..., Any], known: Callable[[], None]) -> None:
    loads = Loads(NO_ROOM, NO_ROOM, None)
    assert load_with(loads).techniques == loads.techniques[-1] == ("staged", "drop_encoders", "resident_blocks")
    known()
    again = Loads(None)
    assert load_with(again).techniques == loads.techniques[-1] and len(again.techniques) == 1


def test_loading_drops_what_is_idle_before_it_gives_way(load_with: Callable[..., Any]) -> None:
    import torch

    pool = Pool()
    pool.get("idle", lambda: torch.nn.Linear(64, 64))
    pool.release("idle")
    loads = Loads(NO_ROOM, None)
    assert load_with(loads, pool=pool).techniques == () and loads.techniques == [(), ()]
    assert pool.bytes_on_host == 0


def test_loading_passes_over_what_cannot_be_put_on(load_with: Callable[..., Any]) -> None:
    impossible = ModelError("cannot be held so")
    loads = Loads(NO_ROOM, impossible, None)
    assert load_with(loads).techniques == ("resident_blocks",)


def test_loading_raises_what_is_wrong_with_the_model(load_with: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="torn"):
        load_with(Loads(ModelError("the file is torn")))


def test_what_worked_for_loading_may_be_gone(load_with: Callable[..., Any], known: Callable[[], None]) -> None:
    load_with(Loads(NO_ROOM, None))
    loads = Loads(ModelError("a package is gone"), None)
    assert load_with(loads).techniques == () and len(loads.techniques) == 2
    known()
    assert load_with(Loads(None)).techniques == (), "forgotten"


def test_loading_without_end_fails_with_the_first_failure_and_numbers(
    load_with: Callable[..., Any], tiny_sd: Path
) -> None:
    loads = Loads(NO_ROOM)
    with pytest.raises(OutOfMemory) as caught:
        load_with(loads)
    size = sum(file.stat().st_size for file in tiny_sd.glob("*/*.safetensors"))
    for text in ("7 GiB", f"{size_text(size)} of weights", "disk_offload", "no fallback is left", "memory.quality"):
        assert text in str(caught.value)
    assert len(set(loads.techniques)) == len(loads.techniques), "none tried twice"


def test_a_kind_for_which_nothing_helped_fails_at_once_in_the_rest_of_the_run(
    model: LoadedModel, out_of_memory: Inject
) -> None:
    rows = out_of_memory(type(model.pipe.unet), lambda *_: size == 32)
    size, requests, known_failures = 32, requests_for(model, 4), KnownFailures()
    first = [one for _, one in generate_bundle(model, [requests[:2], requests[2:]], known_failures=known_failures)]
    climbed, alone = len(rows), rows.count(2)
    assert rows.count(4) == 1 and alone > 1, "the second half and the second batch are not tried"
    rows.clear()
    again = [one for _, one in generate_bundle(model, [requests[:2], requests[2:]], known_failures=known_failures)]
    assert rows == [] and [type(one) for one in (*first, *again)] == [OutOfMemory] * 8
    assert {str(one) for one in (*first, *again)} == {str(first[0])} and "no fallback is left" in str(first[0])

    size = 64
    assert (
        len(images([one for _, one in generate_bundle(model, [wider(requests)], known_failures=known_failures)])) == 4
    )
    size = 32
    rows.clear()
    assert all(isinstance(one, OutOfMemory) for one in generate_batch(model, requests[:2])), "another run"
    assert len(rows) == climbed, "tries everything again"


def test_what_cannot_be_decoded_is_not_tried_again_in_a_run(model: LoadedModel, out_of_memory: Inject) -> None:
    apply.apply_memory(model, replace(EXACT, techniques=("staged",)))
    rows = out_of_memory(type(model.pipe.vae.decoder), lambda *_: True)
    denoised: list[int] = []
    model.pipe.unet.register_forward_hook(lambda *_: denoised.append(1))
    requests, known_failures = requests_for(model, 4), KnownFailures()
    first = [one for _, one in generate_bundle(model, [requests[:2], requests[2:]], known_failures=known_failures)]
    tried, steps = len(rows), len(denoised)
    again = [one for _, one in generate_bundle(model, [requests], known_failures=known_failures)]
    assert [type(one) for one in (*first, *again)] == [OutOfMemory] * 8
    assert len({str(one) for one in (*first, *again)}) == 1
    assert (len(rows), len(denoised)) == (tried, steps)


def test_texts_for_which_nothing_helped_are_not_tried_again_in_a_run(model: LoadedModel, out_of_memory: Inject) -> None:
    known_failures = KnownFailures()
    images(generate_batch(model, requests_for(model, 1)))  # its texts are known from then on
    calls = out_of_memory(type(model.pipe.text_encoder), lambda *_: True)
    requests = [replace(request, prompt=prompt) for request, prompt in zip(
        requests_for(model, 3), ("unheard of", PROMPTS[0], "nor this"), strict=True
    )]  # fmt: skip
    for bundle_number in range(2):
        calls.clear()
        outcomes = dict(generate_bundle(model, [requests], known_failures=known_failures))
        kinds = [type(outcomes[place]) for place in range(3)]
        assert kinds == [OutOfMemory, GeneratedImage, OutOfMemory] and bool(calls) == (bundle_number == 0)


def test_what_came_out_once_is_not_given_up(model: LoadedModel, out_of_memory: Inject) -> None:
    broken, known_failures = False, KnownFailures()
    rows = out_of_memory(type(model.pipe.unet), lambda *_: broken)
    requests = requests_for(model, 1)
    for broken in (False, True, True, False):
        rows.clear()
        ((_, outcome),) = generate_bundle(model, [requests], known_failures=known_failures)
        assert isinstance(outcome, OutOfMemory) == broken and rows, "memory that others take may come back"


def test_a_model_that_cannot_be_loaded_is_not_tried_again_in_a_run(load_with: Callable[..., Any]) -> None:
    known_failures, messages = KnownFailures(), []
    for expected in (True, False):
        loads = Loads(NO_ROOM)
        with pytest.raises(OutOfMemory) as caught:
            load_with(loads, known_failures=known_failures)
        messages.append(str(caught.value))
        assert bool(loads.techniques) == expected
    assert messages[0] == messages[1] and "no fallback is left" in messages[0]
    with pytest.raises(OutOfMemory):
        load_with(loads := Loads(NO_ROOM), known_failures=KnownFailures())
    assert loads.techniques, "another run"


CARD = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
HOST = RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried")


@pytest.mark.parametrize(
    ("device", "failure", "left"),
    [("cuda", CARD, {"on the host"}), ("cuda", HOST, set()), ("cpu", CARD, set()), ("mps", CARD, set())],
    ids=["card", "host of a card", "cpu", "mps"],
)
def test_only_what_takes_of_the_memory_that_ran_out_has_to_go(
    device: str, failure: Exception, left: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a card of its own memory, idle components on the host help nobody by going; where all is one they do."""
    import torch

    pool = Pool()
    for name in ("on the host", "on the device"):
        pool.get(name, lambda: torch.nn.Linear(64, 64))
        pool.release(name)
    pool._entries["on the device"].module.to("meta")  # which stands for a device here: it is no CPU
    tried: list[int] = []

    def work() -> None:
        tried.append(1)
        raise failure

    monkeypatch.setattr(guarded, "recover", lambda _: None)
    model: Any = SimpleNamespace(pool=pool, device=torch.device(device), memory=MemorySettings())
    assert isinstance(guarded.attempted(model, work), OutOfMemory)
    assert len(tried) == 2 and {*pool._entries} == left
    guarded.attempted(model, work)
    assert len(tried) == 3, "not once more where nothing went"


def test_a_model_is_held_otherwise_without_what_is_idle(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    model.pool.get("of another model", lambda: torch.nn.Linear(64, 64))
    model.pool.release("of another model")
    apply_memory, tried = apply.apply_memory, list[str]()

    def holds(model: LoadedModel, memory: MemorySettings) -> None:
        tried.append("hold")
        if "of another model" in model.pool._entries or memory.uses("drop_encoders"):
            raise OutOfMemory("out of memory: 7 GiB")
        apply_memory(model, memory)

    monkeypatch.setattr(guarded, "apply_memory", holds)
    assert guarded.could_apply(model, replace(EXACT, techniques=("staged",)))
    assert len(tried) == 2 and model.memory.techniques == ("staged",)
    assert not guarded.could_apply(model, replace(EXACT, techniques=("staged", "drop_encoders")))
    assert len(tried) == 3
