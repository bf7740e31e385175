"""The phases of a bundle: encode its texts, denoise batch by batch, decode; a failed picture never stops the others."""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, TypeVar

from pipeline.adapters.apply import apply
from pipeline.errors import Interrupted, JobFailure, OutOfMemory
from pipeline.generation.decode import Undecoded, decode, developed
from pipeline.generation.denoise import denoise
from pipeline.generation.encode import together
from pipeline.generation.guidance import is_guided
from pipeline.generation.recovery.fallbacks import Fallbacks, Strategy
from pipeline.generation.recovery.guarded import attempted
from pipeline.generation.recovery.known_failures import KnownFailures
from pipeline.generation.recovery.next_fallback import Where
from pipeline.generation.result import DenoisedBatch, generated_image
from pipeline.generation.text_interface import text_interface
from pipeline.generation.texts import Texts
from pipeline.generation.timing import BatchTiming, TimingWriter
from pipeline.loading.compiling import as_compiled
from pipeline.loading.load import check_mapped
from pipeline.loading.speed import prepare, step_cache
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.stages import stage
from pipeline.memory.planning.estimate import Shape, Stage
from pipeline.memory.planning.techniques import ordered
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings
from pipeline.weights.families import FAMILIES

_log = logging.getLogger("darkroom.generation")

Done = TypeVar("Done")
Outcomes = Iterator[tuple[int, GeneratedImage | JobFailure]]


class Phases:
    """See `pipeline.generation.generate.generate_bundle`. `seconds` are those spent in each phase so far."""

    def __init__(
        self,
        model: LoadedModel,
        batches: Sequence[Sequence[ImageRequest]],
        should_stop: Callable[[], bool],
        on_work: Callable[[Stage, Sequence[int]], None],
        predicted_peak_bytes: int | None,
        images_per_shape: int,
        remember: bool,
        known_failures: KnownFailures,
    ) -> None:
        self.seconds = {"encode": 0.0, "denoise": 0.0, "decode": 0.0}
        self._model, self._should_stop, self._on_work = model, should_stop, on_work
        self._predicted_peak_bytes, self._images_per_shape = predicted_peak_bytes, images_per_shape
        self._requests = [request for batch in batches for request in batch]
        places = iter(range(len(self._requests)))
        self._batches = [[next(places) for _ in batch] for batch in batches]
        self._waiting: deque[DenoisedBatch] = deque()
        self._fallbacks = Fallbacks(model, remember=remember, known_failures=known_failures)
        self._timings = TimingWriter(model, remember=remember)
        self._texts = Texts(model, self._requests, self._fallbacks, should_stop, on_work, lambda: self._timed("encode"))

    def pictures(self) -> Outcomes:
        """All pictures, in the order in which they are finished."""
        self._model.stage_peaks.clear()
        yield from self._texts.encode_all()
        try:
            for batch in self._batches:
                encoded = [place for place in batch if place in self._texts.prompts]
                if encoded:
                    yield from self._make(encoded)
        except Interrupted:
            yield from self._decode_waiting()
            raise
        else:
            yield from self._decode_waiting()
        finally:
            self._timings.save()

    def _make(self, batch: list[int]) -> Outcomes:
        """Denoise a batch, in as many parts as it takes, and decode it unless that is a stage of its own."""
        first = self._requests[batch[0]]
        hopeless = self._fallbacks.why_not(first, "denoise", "decode")
        if hopeless is not None:
            yield from ((place, hopeless) for place in batch)
            return
        self._on_work("denoise", batch)
        adapters = first.adapters
        failure = attempted(self._model, lambda: apply(self._model, adapters))
        if failure is not None and not isinstance(failure, OutOfMemory):  # no part of the batch would fare better
            yield from ((place, failure) for place in batch)
            return
        strategy = self._fallbacks.strategy([self._requests[place] for place in batch])
        if not self._fallbacks.is_applied(strategy):
            yield from self._decode_waiting()  # with the techniques that are applied now
            self._fallbacks.resume(strategy)
        size = strategy.now.batch or len(batch)
        family = FAMILIES.get(self._model.files.family or "")
        # Where both texts of a picture go through one pass, a mask is there in any case and padding changes nothing.
        alike = together(batch, self._texts.prompts, masks_count=family is None or not family.doubles_batch)
        parts = [part for places in alike for part in _parts(places, size)]
        for places, outcome in self._in_parts(parts, "denoise", strategy, lambda part: self._denoise(strategy, part)):
            if isinstance(outcome, JobFailure):
                yield from ((place, outcome) for place in places)
                continue
            self._fallbacks.denoised(strategy, first)
            self._waiting.append(outcome)
            if not self._model.memory.uses("staged"):
                yield from self._decode_waiting()
                self._fallbacks.resume(strategy)
        self._fallbacks.settled(strategy)

    def _decode_waiting(self) -> Outcomes:
        while self._waiting:
            batch = self._waiting.popleft()
            strategy, first = batch.strategy, self._requests[batch.places[0]]
            hopeless = self._fallbacks.why_not(first, "decode")
            if hopeless is not None:
                yield from ((place, hopeless) for place in batch.places)
                continue
            self._fallbacks.resume(strategy)
            parts = _parts(batch.places, strategy.now.decoded or len(batch.places))
            decode_part = functools.partial(self._decode, batch)
            for places, outcome in self._in_parts(parts, "decode", strategy, decode_part, batch.decoding_failed):
                if isinstance(outcome, JobFailure):
                    yield from ((place, outcome) for place in places)
                else:
                    self._fallbacks.made(strategy, first)
                    yield from outcome
            self._fallbacks.settled(strategy)
            requests = [self._requests[place] for place in batch.places]
            self._timings.note(batch.timing, requests, compiled=batch.speed["compile"] != "no")

    def _in_parts(
        self,
        parts: Sequence[list[int]],
        stage: Literal["denoise", "decode"],
        strategy: Strategy,
        work: Callable[[list[int]], Done],
        on_failure: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[list[int], Done | JobFailure]]:
        """Work on places part by part; yields each part with what came of it.

        One that fails is tried again after a fallback, or in smaller parts, until the failure is that of one picture.
        """
        waiting = deque(parts)
        while waiting:
            part = waiting.popleft()
            self._on_work(stage, part)
            outcome = attempted(self._model, functools.partial(work, part))
            if isinstance(outcome, JobFailure):
                on_failure()
                after = self._after(outcome, stage, part, strategy)
                if not isinstance(after, JobFailure):
                    waiting.extendleft(reversed(after))
                    continue
                outcome = after
                if self._fallbacks.why_not(self._requests[part[0]], stage) is not None:  # the others would fail alike
                    part = [*part, *(place for rest in waiting for place in rest)]
                    waiting.clear()
            yield part, outcome

    def _denoise(self, strategy: Strategy, places: list[int]) -> DenoisedBatch:
        model, requests = self._model, [self._requests[place] for place in places]
        first = requests[0]
        shape = Shape(first.width, first.height, len(places), is_guided(model.pipe, first.guidance_scale))
        encodes_itself = text_interface(model.pipe.__class__) is None
        extra = [name for name in model.pipe.components if name.startswith("text_encoder")] if encodes_itself else []
        started, timing = time.perf_counter(), BatchTiming(model.device)
        with self._timed("denoise"):
            apply(model, first.adapters)
            with stage(model, "denoise", extra, shape):
                facts = prepare(model, self._images_per_shape)
                with step_cache(model, first.step_cache):
                    prompts = [self._texts.prompts[place] for place in places]
                    with timing.timed("denoise"):
                        denoised = as_compiled(
                            model, facts, lambda: denoise(model, requests, prompts, self._should_stop)
                        )
        if model.memory.uses("staged") and isinstance(denoised.result, Undecoded):
            denoised.result.to_host()
        return DenoisedBatch(
            strategy=strategy,
            places=places,
            denoised=denoised,
            timing=timing,
            memory=self._as_encoded(places[0]),
            seconds_each=(time.perf_counter() - started) / len(places) + self.seconds["encode"] / len(self._requests),
            speed=facts,
            lora_matches=model.lora_matches,
            predicted_peak_bytes=self._predicted_peak_bytes,
            stage_peaks={name: dict(peaks) for name, peaks in model.stage_peaks.items()},
        )

    def _as_encoded(self, place: int) -> MemorySettings:
        """The model's techniques now; those of the encoders as they were when the text was encoded."""
        now = {name for name in self._model.memory.techniques if not name.startswith("encoder_")}
        return replace(self._model.memory, techniques=ordered(now | {*self._texts.techniques[place]}))

    def _decode(self, batch: DenoisedBatch, places: list[int]) -> list[tuple[int, GeneratedImage | JobFailure]]:
        import torch

        started, result = time.perf_counter(), batch.denoised.result
        start = batch.places.index(places[0])
        if isinstance(result, Undecoded):
            with self._timed("decode"), stage(self._model, "decode"), batch.timing.timed("decode"):
                decoded = decode(self._model.pipe, result.rows(start, start + len(places)), self._model.device)
        else:
            decoded = developed(torch.from_numpy(result[start : start + len(places)]))
        check_mapped(self._model)
        seconds = (time.perf_counter() - started) / len(places)
        peaks = {name: dict(peaks) for name, peaks in self._model.stage_peaks.items() if name == "decode"}
        made = batch.decoded(self._model.memory, seconds, peaks)
        images: list[tuple[int, GeneratedImage | JobFailure]] = []
        for row, place in enumerate(places):
            embedding = self._texts.prompts[place].positive
            tokens = embedding.tokens if embedding else ()
            image = generated_image(self._requests[place], made, start + row, decoded, row, self._model.device, tokens)
            images.append((place, image))
        return images

    def _after(
        self, failure: JobFailure, where: Where, places: list[int], strategy: Strategy
    ) -> list[list[int]] | JobFailure:
        """What to try after a failure, the same or smaller parts; or the failure, where nothing is left to try."""
        if isinstance(failure, OutOfMemory):
            requests = [self._requests[place] for place in places]
            after = self._fallbacks.fall_back(failure, requests, where, strategy)
            return after if isinstance(after, OutOfMemory) else _parts(places, after)
        if len(places) == 1:
            return failure
        _log.warning("%sing a batch of %d failed: %s; it is split in halves", where[:-1], len(places), failure)
        return _parts(places, len(places) // 2)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started


def _parts(places: list[int], size: int) -> list[list[int]]:
    return [places[start : start + size] for start in range(0, len(places), size)]
