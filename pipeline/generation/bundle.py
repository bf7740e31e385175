"""The phases of a bundle, and what becomes of a picture when one of them fails."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.errors import Interrupted, JobFailure, OutOfMemory
from pipeline.generation.decode import Undecoded, decode, developed
from pipeline.generation.denoise import Denoised, denoise
from pipeline.generation.encode import together
from pipeline.generation.guidance import is_guided
from pipeline.generation.recovery.attempts import attempted, exhausted
from pipeline.generation.recovery.fallbacks import Fallbacks, Strategy
from pipeline.generation.recovery.known_failures import KnownFailures
from pipeline.generation.recovery.next_fallback import Where
from pipeline.generation.result import Conditions, generated_image
from pipeline.generation.stopwatch import BatchTiming, TimingWriter
from pipeline.generation.text_interface import text_interface
from pipeline.generation.texts import Texts
from pipeline.loading.load import check_mapped
from pipeline.memory.planning.estimate import Stage
from pipeline.memory.planning.techniques import ordered
from pipeline.request import GeneratedImage, ImageRequest, MemorySettings
from pipeline.weights.families import FAMILIES

if TYPE_CHECKING:
    from pipeline.memory.device.loaded_model import LoadedModel

Outcomes = Iterator[tuple[int, GeneratedImage | JobFailure]]


@dataclass(slots=True)
class _Piece:
    """Pictures that went through the denoiser together: their places, what came out, and how it was made."""

    strategy: Strategy
    places: list[int]
    denoised: Denoised
    conditions: Conditions
    timing: BatchTiming


class Bundle:
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
        self._waiting: deque[_Piece] = deque()
        self._fallbacks = Fallbacks(model, remember=remember, known_failures=known_failures)
        self._timings = TimingWriter(model, remember=remember)
        self._texts = Texts(model, self._requests, self._fallbacks, should_stop, on_work, lambda: self._timed("encode"))

    def pictures(self) -> Outcomes:
        """Everything, in the order in which it is done."""
        self._model.stage_peaks.clear()
        yield from self._texts.encode_all()
        try:
            yield from self._make_all()
        finally:
            self._timings.save()

    def _make_all(self) -> Outcomes:
        try:
            for batch in self._batches:
                encoded = [place for place in batch if place in self._texts.prompts]
                if encoded:
                    yield from self._make(encoded)
        except Interrupted:
            yield from self._decode_waiting()
            raise
        yield from self._decode_waiting()

    def _make(self, batch: list[int]) -> Outcomes:
        """Denoise a batch, in as many pieces as it takes, and decode it unless that is a stage of its own."""
        from pipeline.adapters import apply

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
            yield from self._decode_waiting()  # held as it is
            self._fallbacks.resume(strategy)
        size = strategy.now.batch or len(batch)
        family = FAMILIES.get(self._model.files.family or "")
        # Where both texts of a picture go through one pass, a mask is there in any case and padding changes nothing.
        texts = together(batch, self._texts.prompts, masks_count=family is None or not family.doubles_batch)
        pieces = deque(part for piece in texts for part in _parts(piece, size))
        while pieces:
            places = pieces.popleft()
            self._on_work("denoise", places)
            piece = attempted(self._model, lambda places=places: self._denoise(strategy, places))  # type: ignore[misc]
            if isinstance(piece, JobFailure):
                after = self._after(piece, "denoise", places, strategy)
                if isinstance(after, JobFailure):
                    if self._fallbacks.why_not(first, "denoise") is not None:
                        places.extend(place for rest in pieces for place in rest)
                        pieces.clear()
                    yield from ((place, after) for place in places)
                else:
                    pieces.extendleft(reversed(after))
                continue
            self._fallbacks.denoised(strategy, first)
            self._waiting.append(piece)
            if not self._model.memory.uses("staged"):
                yield from self._decode_waiting()
                self._fallbacks.resume(strategy)
        self._fallbacks.settled(strategy)

    def _denoise(self, strategy: Strategy, places: list[int]) -> _Piece:
        from pipeline.adapters import apply
        from pipeline.loading.compiling import as_compiled
        from pipeline.loading.speed import prepare, step_cache
        from pipeline.memory.device.stages import stage
        from pipeline.memory.planning.estimate import Shape

        model, requests = self._model, [self._requests[place] for place in places]
        first = requests[0]
        shape = Shape(first.width, first.height, len(places), is_guided(model.pipe, first.guidance_scale))
        encodes_itself = text_interface(model.pipe) is None
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
        conditions = Conditions(
            batch_size=len(places),
            memory=self._as_encoded(places[0]),
            seconds_each=(time.perf_counter() - started) / len(places) + self.seconds["encode"] / len(self._requests),
            speed=facts,
            lora_matches=model.lora_matches,
            predicted_peak_bytes=self._predicted_peak_bytes,
            stage_peaks={name: dict(peaks) for name, peaks in model.stage_peaks.items()},
        )
        return _Piece(strategy, places, denoised, conditions, timing)

    def _as_encoded(self, place: int) -> MemorySettings:
        """How the model is held now, but for the encoders: as they were when the text was encoded."""
        now = {name for name in self._model.memory.techniques if not name.startswith("encoder_")}
        return replace(self._model.memory, techniques=ordered(now | {*self._texts.techniques[place]}))

    def _decode_waiting(self) -> Outcomes:
        while self._waiting:
            piece = self._waiting.popleft()
            strategy, first = piece.strategy, self._requests[piece.places[0]]
            hopeless = self._fallbacks.why_not(first, "decode")
            if hopeless is not None:
                yield from ((place, hopeless) for place in piece.places)
                continue
            self._fallbacks.resume(strategy)
            spans = deque(_parts(list(range(len(piece.places))), strategy.now.decoded or len(piece.places)))
            while spans:
                span = spans.popleft()
                self._on_work("decode", [piece.places[index] for index in span])
                outcome = attempted(self._model, lambda span=span, piece=piece: self._decode(piece, span))  # type: ignore[misc]
                if not isinstance(outcome, JobFailure):
                    self._fallbacks.made(strategy, first)
                    yield from outcome
                    continue
                if isinstance(piece.denoised.result, Undecoded):
                    piece.denoised.result.to_host()
                piece.timing.sound = False
                after = self._after(outcome, "decode", [piece.places[index] for index in span], strategy)
                if isinstance(after, JobFailure):
                    if self._fallbacks.why_not(first, "decode") is not None:
                        span.extend(index for rest in spans for index in rest)
                        spans.clear()
                    yield from ((piece.places[index], after) for index in span)
                    continue
                indices = iter(span)
                spans.extendleft(reversed([[next(indices) for _ in part] for part in after]))
            self._fallbacks.settled(strategy)
            requests, compiled = [self._requests[place] for place in piece.places], piece.conditions.speed["compile"]
            self._timings.note(piece.timing, requests, compiled=compiled != "no")

    def _decode(self, piece: _Piece, span: list[int]) -> list[tuple[int, GeneratedImage | JobFailure]]:
        import torch

        from pipeline.memory.device.stages import stage

        started, result = time.perf_counter(), piece.denoised.result
        if isinstance(result, Undecoded):
            with self._timed("decode"), stage(self._model, "decode"), piece.timing.timed("decode"):
                decoded = decode(self._model.pipe, result.rows(span[0], span[-1] + 1), self._model.device)
        else:
            decoded = developed(torch.from_numpy(result[span[0] : span[-1] + 1]))
        check_mapped(self._model)
        seconds = (time.perf_counter() - started) / len(span)
        peaks = {name: dict(peaks) for name, peaks in self._model.stage_peaks.items() if name == "decode"}
        conditions = piece.conditions.decoded(self._model.memory, seconds, peaks)
        made: list[tuple[int, GeneratedImage | JobFailure]] = []
        for row, index in enumerate(span):
            place = piece.places[index]
            embedding = self._texts.prompts[place].positive
            image = generated_image(
                self._requests[place],
                index,
                decoded,
                row,
                piece.denoised,
                conditions,
                device=self._model.device,
                tokens=embedding.tokens if embedding else (),
            )
            made.append((place, image))
        return made

    def _after(
        self, failure: JobFailure, where: Where, places: list[int], strategy: Strategy
    ) -> list[list[int]] | JobFailure:
        """What to try after a failure, the same or smaller parts; or the failure, where nothing is left to try."""
        if isinstance(failure, OutOfMemory):
            requests = [self._requests[place] for place in places]
            size = self._fallbacks.fall_back(requests[0].memory, where, len(places), strategy)
            if size is not None:
                return _parts(places, size)
            failure = exhausted(self._model, failure, where, requests)
            self._fallbacks.give_up(where, requests[0], failure)
            return failure
        return _parts(places, len(places) // 2) if len(places) > 1 else failure

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - started


def _parts(places: list[int], size: int) -> list[list[int]]:
    return [places[start : start + size] for start in range(0, len(places), size)]
