"""One picture to make, and its place in a batch."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace

from pipeline.request import NO_ADAPTERS, ImageRequest, MemorySettings


@dataclass(frozen=True, slots=True)
class Job:
    """A request together with its place in the batch; only the request decides `id`.

    `config_index` says which of the batch's composed configurations it belongs to (naming, metadata, output).
    `prompt_place` is what messages call the prompt, by what the user gave: `prompt 2 of colours`, `mine.txt:12`.
    `selection` is the JSON of what was chosen and why, None where nothing was. `derived_from` is the id of the image
    whose settings these are, None for one of its own.
    """

    id: str
    request: ImageRequest
    config_index: int
    name: str
    prompt_set: str
    prompt_index: int
    prompt_template: str | None
    tags: tuple[str, ...]
    prompt_place: str = ""
    selection: str | None = None
    derived_from: str | None = None


@dataclass(frozen=True, slots=True)
class Assignment:
    """A job and which attempt this is, counted from 1 over all runs."""

    job: Job
    attempt: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """Batches that go through encoding, denoising and decoding together, and the model's memory plan for them."""

    batches: tuple[tuple[Assignment, ...], ...]
    held: MemorySettings
    predicted_peak_bytes: int | None = None
    predicted_stage_bytes: tuple[tuple[str, int], ...] = ()
    images_alike: int = 0
    """How many images of this model and size the plan holds; decides whether compiling pays."""

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """All of them, in order."""
        return tuple(one for batch in self.batches for one in batch)

    @property
    def kind(self) -> Hashable:
        """The key that is equal for bundles whose images take the same time."""
        request = self.assignments[0].job.request
        alike = replace(request, prompt="", negative_prompt="", seed=0, adapters=NO_ADAPTERS)
        adapters = request.adapters
        beside = (len(adapters.loras), len(adapters.controlnets), len(adapters.ip_adapters), adapters.init)
        return alike, beside, len(self.batches[0]), self.held

    def alone(self, one: Assignment) -> Bundle:
        """A bundle with one of these jobs and the same memory plan."""
        return replace(self, batches=((one,),))

    def of(self, job_ids: Collection[str]) -> Bundle:
        """The bundle without all other jobs."""
        batches = (tuple(one for one in batch if one.job.id in job_ids) for batch in self.batches)
        return replace(self, batches=tuple(batch for batch in batches if batch))
