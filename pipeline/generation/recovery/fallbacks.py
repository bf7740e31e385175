"""Fallbacks after out-of-memory errors, for each kind of picture in a bundle: smaller batches, more techniques."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.errors import JobFailure, OutOfMemory
from pipeline.generation.guidance import is_guided
from pipeline.generation.recovery import guarded
from pipeline.generation.recovery.known_failures import KnownFailures
from pipeline.generation.recovery.next_fallback import Where, next_fallback
from pipeline.memory.device.apply import apply_memory
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.history import Situation, Worked, kinds
from pipeline.memory.planning.techniques import conflicts, ordered
from pipeline.request import ImageRequest

_log = logging.getLogger("darkroom.generation")


@dataclass(slots=True)
class Strategy:
    """How pictures of one kind are made: `now`, as it last succeeded (`proven`), as it is recorded (`noted`)."""

    situation: Situation
    now: Worked
    proven: Worked
    noted: Worked

    def settle_for(self, techniques: tuple[str, ...]) -> None:
        """Go on with the techniques that the model really has, where those wanted could not be applied."""
        self.now = replace(self.now, techniques=techniques)
        self.proven = replace(self.proven, techniques=techniques)
        self.noted = replace(self.noted, techniques=techniques)


class Fallbacks:
    """Applies memory techniques to a model for each kind of picture in a bundle, and more of them when memory runs out.

    Without `remember` nothing is recalled from earlier bundles and nothing noted for later ones. `known_failures` are
    those of the run.
    """

    def __init__(self, model: LoadedModel, *, remember: bool, known_failures: KnownFailures) -> None:
        self._model, self._remember, self._known_failures = model, remember, known_failures
        fell_back = model.fell_back
        self._planned = fell_back[0] if fell_back and fell_back[1] == model.memory else model.memory
        self._base = self._planned.techniques
        """As planned, with what encoding took besides, which does not depend on what is to be drawn."""
        self._proven_base = self._base
        self._impossible: set[str] = set()
        self._strategies: dict[Situation, Strategy] = {}
        self._encoding = self._situation("encode")

    def prepare_encoding(self) -> None:
        """Apply what the text encoders need, as planned or as it worked before; to be called before encoding."""
        known = self._recalled(self._encoding)
        if known is not None:
            self._base = self._proven_base = self._together(self._planned.techniques, known.techniques)
            _log.info("encoding with %s: %s, which worked before", self._model.settings.name, _described(known))
        held = {*self._model.memory.techniques}
        if _of_encoders(held) != _of_encoders(self._base) or (known and not {*self._base} <= held):
            self._hold(self._base)

    def encoded(self, request: ImageRequest) -> None:
        """A text was encoded: record the techniques that it needed."""
        self._known_failures.came_out(self._kind("encode", request))
        if self._base != self._proven_base and self._remember:
            guarded.history().remember(self._encoding, Worked(self._base))
            worked = _described(Worked(self._base))
            _log.info("encoding with %s: recorded for later runs that it needed %s", self._model.settings.name, worked)
        self._proven_base = self._base

    def strategy(self, requests: Sequence[ImageRequest]) -> Strategy:
        """How to make pictures of this kind: as earlier in the bundle, as the history has it, or as planned."""
        situation = self._making(requests[0])
        if situation not in self._strategies:
            known = self._recalled(situation)
            start = Worked(self._base)
            if known is not None:
                start = replace(known, techniques=self._together(self._base, known.techniques))
                _log.info("%s: %s, which worked before", self._picture(requests[0]), _described(start))
            self._strategies[situation] = Strategy(situation, start, start, start)
        return self._strategies[situation]

    def is_applied(self, strategy: Strategy) -> bool:
        """Whether the model has the techniques of a strategy."""
        held = self._model.memory
        return (held.techniques, held.resident_share) == (strategy.now.techniques, strategy.now.resident_share)

    def resume(self, strategy: Strategy) -> None:
        """Apply the techniques of a strategy, where others are applied now."""
        if not self.is_applied(strategy):
            self._hold(strategy.now.techniques, strategy.now.resident_share)
            strategy.settle_for(self._model.memory.techniques)

    def fall_back(
        self, failure: OutOfMemory, requests: Sequence[ImageRequest], stage: Where, strategy: Strategy | None = None
    ) -> int | OutOfMemory:
        """Fall back by one step and return the batch size to go on with; the failure if no fallback is left.

        `requests` failed together, `strategy` is theirs; without it, encoding failed.
        """
        model, request, batch = self._model, requests[0], len(requests)
        doing = f"{stage.removesuffix('e')}ing {self._picture(request)}, batch {batch}"
        while True:
            held = model.memory
            step = next_fallback(request.memory, held, stage, batch, self._impossible, device_kind=model.device.type)
            not_sliced = step is None or not (step.what == "vae_slicing" or held.uses("vae_slicing"))
            if strategy and stage == "decode" and batch > 1 and not_sliced:  # slicing is not to be had
                strategy.now = replace(strategy.now, decoded=batch // 2)
                guarded.tell_fallback(doing, failure, (), (), f"decoding {batch // 2} at once")
                return batch // 2
            if step is None:
                failure = self._given_up(failure, requests, stage)
                if strategy is None:  # undo the fallbacks that had no effect
                    self._base = self._proven_base
                    self._hold(self._base)
                return failure
            if step.memory != held and not self._hold(step.memory.techniques, step.memory.resident_share):
                self._impossible.add(step.what)
                _log.info("out of memory while %s: %s cannot be applied", doing, step.what)
                continue
            what = f"batch {step.batch}" if step.what == "batch" else ""
            if step.what == "resident_share":
                what = f"{step.memory.resident_share:.0%} of the blocks that could be resident"
            guarded.tell_fallback(doing, failure, held.techniques, model.memory.techniques, what)
            if strategy is None:
                self._move_base(held.techniques, model.memory.techniques)
            else:
                batch_now = step.batch if step.what == "batch" else strategy.now.batch
                share = model.memory.resident_share
                strategy.now = replace(
                    strategy.now, techniques=model.memory.techniques, batch=batch_now, resident_share=share
                )
            return step.batch

    def why_not(self, request: ImageRequest, *stages: Where) -> OutOfMemory | None:
        """Why pictures of this kind are known to fail at one of these stages; None where they may succeed."""
        reasons = (self._known_failures.why_not(self._kind(stage, request)) for stage in stages)
        return next((reason for reason in reasons if reason is not None), None)

    def denoised(self, strategy: Strategy, request: ImageRequest) -> None:
        """Some of the pictures were denoised with this strategy."""
        self._known_failures.came_out(self._kind("denoise", request))
        strategy.proven = strategy.now

    def made(self, strategy: Strategy, request: ImageRequest) -> None:
        """Some of the pictures are finished: record the techniques that they needed."""
        self._known_failures.came_out(self._kind("decode", request))
        strategy.proven = strategy.now
        if strategy.proven != strategy.noted and self._remember:
            guarded.history().remember(strategy.situation, strategy.proven)
            worked = _described(strategy.proven)
            _log.info("%s: recorded for later runs that it needed %s", self._picture(request), worked)
            strategy.noted = strategy.proven

    def settled(self, strategy: Strategy) -> None:
        """A batch is through a stage or has failed: undo the fallbacks that had no effect."""
        strategy.now = strategy.proven

    def _given_up(self, failure: OutOfMemory, requests: Sequence[ImageRequest], stage: Where) -> OutOfMemory:
        """The failure with its figures; it is not tried again in this run, unless it succeeded before."""
        request, doing = requests[0], f"{stage.removesuffix('e')}ing"
        failure = guarded.exhausted(self._model, failure, stage, requests)
        _log.info("%s %s is not tried again in this run: %s", doing, self._picture(request), failure)
        self._known_failures.give_up(self._kind(stage, request), failure)
        return failure

    def _hold(self, techniques: tuple[str, ...], resident_share: float = 1.0) -> bool:
        """Apply techniques; whether that succeeded and changed something."""
        model = self._model
        before = model.memory.techniques, model.memory.resident_share
        memory = replace(self._planned, techniques=techniques, resident_share=resident_share)
        outcome = guarded.attempted(model, lambda: apply_memory(model, memory))
        model.fell_back = (self._planned, model.memory)
        after = model.memory.techniques, model.memory.resident_share
        return not isinstance(outcome, JobFailure) and after != before

    def _move_base(self, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        on, off = {*after} - {*before}, {*before} - {*after}
        self._base = self._together(tuple({*self._base} - off), tuple(on), otherwise=after)

    def _together(
        self, some: tuple[str, ...], more: tuple[str, ...], otherwise: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """Both sets of techniques, where they can be combined, or else the second."""
        both = ordered((*some, *more))
        faults = conflicts(both, self._model.device.type, tiny_vae=self._planned.tiny_vae_source is not None)
        return both if not faults else more if otherwise is None else otherwise

    def _recalled(self, situation: Situation) -> Worked | None:
        return guarded.history().recall(situation) if self._remember else None

    def _kind(self, stage: Where, request: ImageRequest) -> Hashable:
        """All that decides how much memory it takes; more than is remembered from run to run."""
        adapters = request.adapters
        weights = (
            *(one.sha256 for one in adapters.loras),
            *(one.sha256 for one in adapters.controlnets),
            *(one.sha256 for one in adapters.ip_adapters),
        )
        situation = self._encoding if stage == "encode" else self._making(request)
        return stage, situation, request.memory, weights, request.step_cache

    def _picture(self, request: ImageRequest) -> str:
        return f"{self._model.settings.name} {request.width}x{request.height}"

    def _making(self, request: ImageRequest) -> Situation:
        guided = is_guided(self._model.pipe, request.guidance_scale)
        return self._situation("make", request.width, request.height, guided, kinds(request.adapters))

    def _situation(self, stage: Literal["encode", "make"], *shape: Any) -> Situation:
        model = self._model
        room = guarded.device_bytes(str(model.device))
        return Situation(stage, model.settings.sha256, self._planned, room, *shape)


def _described(worked: Worked) -> str:
    batches = [(worked.batch, "batch {}"), (worked.decoded, "decoding {} at once")]
    parts = [text.format(size) for size, text in batches if size is not None]
    if worked.resident_share != 1:
        parts.append(f"{worked.resident_share:.0%} of the blocks that could be resident")
    return ", ".join([*parts, *worked.techniques]) or "no technique"


def _of_encoders(techniques: Iterable[str]) -> set[str]:
    return {name for name in techniques if name.startswith("encoder_")}
