"""Makes a bundle of pictures: encodes all texts, then denoises and decodes batch by batch, or all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pipeline.errors import JobFailure
from pipeline.generation.phase_seconds import PhaseSeconds
from pipeline.generation.phases import Phases
from pipeline.generation.recovery.known_failures import KnownFailures
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.planning.estimate import Stage
from pipeline.request import GeneratedImage, ImageRequest


def generate_bundle(
    model: LoadedModel,
    batches: Sequence[Sequence[ImageRequest]],
    should_stop: Callable[[], bool] = lambda: False,
    phases: PhaseSeconds | None = None,
    *,
    on_work: Callable[[Stage, Sequence[int]], None] = lambda _stage, _places: None,
    predicted_peak_bytes: int | None = None,
    images_per_shape: int = 0,
    remember: bool = True,
    known_failures: KnownFailures | None = None,
) -> Iterator[tuple[int, GeneratedImage | JobFailure]]:
    """Make pictures of one model; those of a batch differ only in prompt, negative prompt and seed.

    Yields the place of each, counted through all batches, with the picture or why there is none, as soon as it is
    decided: batch by batch, or with `staged` when all are denoised. What is not yielded is not made.

    `should_stop` is asked between denoising steps; when it says yes, what is denoised is still decoded and yielded,
    then `Interrupted` is raised. `on_work` is told which places are worked at from now on, and in which stage; all
    others wait. A batch that fails is split until the failure stands alone, so one bad request costs only itself; where
    memory runs out, only the stage that failed is tried again, with a smaller batch or more techniques
    (`pipeline.generation.recovery.next_fallback`).
    What worked then is remembered for the next time; without `remember` it is not, nor is anything recalled. What no
    technique could make room for fails at once from then on, also in further bundles with the same `known_failures`.
    Raises `DeviceLost` when only a new process can go on.
    """
    work = Phases(
        model,
        batches,
        should_stop,
        on_work,
        predicted_peak_bytes,
        images_per_shape,
        remember,
        known_failures or KnownFailures(),
    )
    try:
        yield from work.pictures()
    finally:
        if phases is not None:
            phases.add(PhaseSeconds(**work.seconds))


def generate_batch(
    model: LoadedModel, requests: Sequence[ImageRequest], *, remember: bool = True
) -> list[GeneratedImage | JobFailure]:
    """Make one batch; returns an entry per request, in order. `remember` as in `generate_bundle`."""
    outcomes = dict(generate_bundle(model, [requests], remember=remember))
    return [outcomes[place] for place in range(len(requests))]
