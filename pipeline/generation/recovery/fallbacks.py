"""How far pictures had to give way to memory: each kind of them only as far as it had to, and not the others."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import JobFailure, OutOfMemory
from pipeline.generation.guidance import is_guided
from pipeline.generation.recovery import attempts
from pipeline.generation.recovery.known_failures import Prospects
from pipeline.generation.recovery.next_fallback import Where, climb
from pipeline.memory.planning.history import Situation, Worked, kinds
from pipeline.memory.planning.techniques import conflicts, ordered
from pipeline.request import ImageRequest, MemorySettings

if TYPE_CHECKING:
    from pipeline.memory.device.loaded_model import LoadedModel


@dataclass(slots=True)
class Course:
    """Pictures of one kind in a bundle: how they are made `now`, how some came out last, and what is noted of that."""

    situation: Situation
    now: Worked
    proven: Worked
    noted: Worked

    def held_with(self, techniques: tuple[str, ...]) -> None:
        """Where the model could not be held as it should be, or has no such technique, that is nothing learnt."""
        self.now = replace(self.now, techniques=techniques)
        self.proven = replace(self.proven, techniques=techniques)
        self.noted = replace(self.noted, techniques=techniques)


class Ladder:
    """Holds a model for the kinds of pictures in a bundle, and climbs when memory runs out.

    Without `remember` nothing is recalled from earlier bundles and nothing noted for later ones. `prospects` are those
    of the run.
    """

    def __init__(self, model: LoadedModel, *, remember: bool, prospects: Prospects) -> None:
        self._model, self._remember, self._prospects = model, remember, prospects
        gave_way = model.gave_way
        self._planned = gave_way[0] if gave_way and gave_way[1] == model.memory else model.memory
        self._base = self._planned.techniques
        """As planned, with what encoding took besides, which does not depend on what is to be drawn."""
        self._proven_base = self._base
        self._impossible: set[str] = set()
        self._courses: dict[Situation, Course] = {}
        self._encoding = self._situation("encode")

    def prepare_encoding(self) -> None:
        """Before texts are encoded, or looked up as encoded: the encoders as planned, or as they worked before."""
        known = self._recalled(self._encoding)
        if known is not None:
            self._base = self._proven_base = self._together(self._planned.techniques, known.techniques)
        held = {*self._model.memory.techniques}
        if _of_encoders(held) != _of_encoders(self._base) or (known and not {*self._base} <= held):
            self._hold(self._base)

    def encoded(self, request: ImageRequest) -> None:
        """A text is: remember what it took."""
        self._prospects.came_out(self._kind("encode", request))
        if self._base != self._proven_base and self._remember:
            attempts.experience().remember(self._encoding, Worked(self._base))
        self._proven_base = self._base

    def encoding_failed(self) -> None:
        """No rung was left: what was given up without any effect is taken back."""
        self._base = self._proven_base
        self._hold(self._base)

    def course(self, requests: Sequence[ImageRequest]) -> Course:
        """How pictures of this kind are made: as earlier in the bundle, as it worked before, or as planned."""
        situation = self._making(requests[0])
        if situation not in self._courses:
            known = self._recalled(situation)
            start = Worked(self._base)
            if known is not None:
                start = replace(known, techniques=self._together(self._base, known.techniques))
            self._courses[situation] = Course(situation, start, start, start)
        return self._courses[situation]

    def is_held(self, course: Course) -> bool:
        """Whether the model is held as these pictures are made."""
        held = self._model.memory
        return (held.techniques, held.resident_share) == (course.now.techniques, course.now.resident_share)

    def resume(self, course: Course) -> None:
        """Hold the model as these pictures are made."""
        if not self.is_held(course):
            self._hold(course.now.techniques, course.now.resident_share)
            course.held_with(self._model.memory.techniques)

    def climb(self, asked: MemorySettings, stage: Where, batch: int, course: Course | None = None) -> int | None:
        """Give way by one rung: the batch size to go on with, the model held accordingly; None if no rung is left.

        `course` is that of the pictures; without it, what is given up is given up for encoding.
        """
        model = self._model
        while True:
            held = model.memory
            step = climb(asked, held, stage, batch, self._impossible, device_kind=model.device.type)
            not_sliced = step is None or not (step.what == "vae_slicing" or held.uses("vae_slicing"))
            if course and stage == "decode" and batch > 1 and not_sliced:  # slicing is not to be had
                course.now = replace(course.now, decoded=batch // 2)
                return batch // 2
            if step is None:
                return None
            if step.memory != held and not self._hold(step.memory.techniques, step.memory.resident_share):
                self._impossible.add(step.what)
                continue
            if course is None:
                self._move_base(held.techniques, model.memory.techniques)
            else:
                batch_now = step.batch if step.what == "batch" else course.now.batch
                share = model.memory.resident_share
                course.now = replace(
                    course.now, techniques=model.memory.techniques, batch=batch_now, resident_share=share
                )
            return step.batch

    def why_not(self, request: ImageRequest, *stages: Where) -> OutOfMemory | None:
        """Why pictures of this kind never come through one of these stages in this run; None where they may."""
        reasons = (self._prospects.why_not(self._kind(stage, request)) for stage in stages)
        return next((reason for reason in reasons if reason is not None), None)

    def give_up(self, stage: Where, request: ImageRequest, failure: OutOfMemory) -> None:
        """No rung was left at a stage: unless some came through it before, it is not worth trying again in this run."""
        self._prospects.give_up(self._kind(stage, request), failure)

    def denoised(self, course: Course, request: ImageRequest) -> None:
        """Some came through the denoiser so."""
        self._prospects.came_out(self._kind("denoise", request))
        course.proven = course.now

    def made(self, course: Course, request: ImageRequest) -> None:
        """Some are pictures now: remember what it took."""
        self._prospects.came_out(self._kind("decode", request))
        course.proven = course.now
        if course.proven != course.noted and self._remember:
            attempts.experience().remember(course.situation, course.proven)
            course.noted = course.proven

    def settled(self, course: Course) -> None:
        """Those at hand are through a stage or failed: what was given up without any effect is taken back."""
        course.now = course.proven

    def _hold(self, techniques: tuple[str, ...], resident_share: float = 1.0) -> bool:
        """Whether the model could be brought to it, so that it is held in another way than before."""
        from pipeline.memory.device.residency import hold

        model = self._model
        before = model.memory.techniques, model.memory.resident_share
        memory = replace(self._planned, techniques=techniques, resident_share=resident_share)
        outcome = attempts.attempted(model, lambda: hold(model, memory))
        model.gave_way = (self._planned, model.memory)
        after = model.memory.techniques, model.memory.resident_share
        return not isinstance(outcome, JobFailure) and after != before

    def _move_base(self, before: tuple[str, ...], after: tuple[str, ...]) -> None:
        on, off = {*after} - {*before}, {*before} - {*after}
        self._base = self._together(tuple({*self._base} - off), tuple(on), otherwise=after)

    def _together(
        self, some: tuple[str, ...], more: tuple[str, ...], otherwise: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """Both, where that is possible, or else the second."""
        both = ordered((*some, *more))
        faults = conflicts(both, self._model.device.type, tiny_vae=self._planned.tiny_vae_source is not None)
        return both if not faults else more if otherwise is None else otherwise

    def _recalled(self, situation: Situation) -> Worked | None:
        return attempts.experience().recall(situation) if self._remember else None

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

    def _making(self, request: ImageRequest) -> Situation:
        guided = is_guided(self._model.pipe, request.guidance_scale)
        return self._situation("make", request.width, request.height, guided, kinds(request.adapters))

    def _situation(self, stage: Literal["encode", "make"], *shape: Any) -> Situation:
        model = self._model
        room = attempts.device_bytes(str(model.device))
        return Situation(stage, model.settings.sha256, self._planned, room, *shape)


def _of_encoders(techniques: Iterable[str]) -> set[str]:
    return {name for name in techniques if name.startswith("encoder_")}
