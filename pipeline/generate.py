"""One bundle of alike images: encode, denoise, decode."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.decode import decode, decodes_like_stable_diffusion, pixel_fault, to_uint8
from pipeline.encode import encode_prompts
from pipeline.errors import BadPixels, DeviceLost, Interrupted, JobFailure
from pipeline.failures import classify
from pipeline.models.loading import LoadedModel
from pipeline.noise import float32_noise
from pipeline.request import GeneratedImage, ImageRequest
from pipeline.schedulers import make_scheduler
from pipeline.system.environment import peak_rss_bytes, runtime_facts

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class PhaseSeconds:
    """Wall-clock seconds spent in each phase; summed over a run."""

    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0

    def add(self, other: PhaseSeconds) -> None:
        """Sum in place."""
        self.encode += other.encode
        self.denoise += other.denoise
        self.decode += other.decode


@dataclass(slots=True)
class BundleResult:
    """One entry per request, in order: the image, or why there is none."""

    outcomes: list[GeneratedImage | JobFailure]
    phases: PhaseSeconds = field(default_factory=PhaseSeconds)


def generate_bundle(
    model: LoadedModel, requests: Sequence[ImageRequest], should_stop: Callable[[], bool] = lambda: False
) -> BundleResult:
    """Make images that differ only in prompt, negative prompt and seed, in one batch.

    `should_stop` is asked between denoising steps; when it says yes, `Interrupted` is raised and the bundle is dropped.
    A bundle that fails is split until the failure stands alone, so one bad request costs only itself.
    Raises `DeviceLost` when only a new process can go on.
    """
    try:
        return _attempt(model, requests, should_stop)
    except (Interrupted, DeviceLost):
        raise
    except Exception as error:
        failure = classify(error)
    # Outside the except block: a traceback that is still alive would keep the tensors that took the memory.
    _free_memory(model)
    if len(requests) == 1:
        return BundleResult([failure])
    middle = len(requests) // 2
    result = generate_bundle(model, requests[:middle], should_stop)
    rest = generate_bundle(model, requests[middle:], should_stop)
    result.outcomes += rest.outcomes
    result.phases.add(rest.phases)
    return result


def _attempt(model: LoadedModel, requests: Sequence[ImageRequest], should_stop: Callable[[], bool]) -> BundleResult:
    import torch

    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    with torch.inference_mode():
        started = time.perf_counter()
        prompts = encode_prompts(model, requests)
        encoded = time.perf_counter()
        latents, noise, scheduler = _denoise(model, requests, prompts, should_stop)
        denoised = time.perf_counter()
        pictures = decode(model.pipe, latents)
        decoded = time.perf_counter()
    phases = PhaseSeconds(encoded - started, denoised - encoded, decoded - denoised)
    runtime = runtime_facts(model.device)
    outcomes: list[GeneratedImage | JobFailure] = []
    for index, request in enumerate(requests):
        picture = pictures[index]
        fault = pixel_fault(picture)
        if fault:
            outcomes.append(BadPixels(fault))
            continue
        outcomes.append(
            GeneratedImage(
                request=request,
                pixels=to_uint8(picture),
                pipeline_class=type(model.pipe).__name__,
                scheduler_class=type(scheduler).__name__,
                scheduler_config=dict(scheduler.config),
                noise_shape=tuple(noise[index].shape),
                noise_sha256=hashlib.sha256(noise[index].numpy().tobytes()).hexdigest(),
                batch_size=len(requests),
                batch_index=index,
                seconds=(decoded - started) / len(requests),
                runtime=runtime,
                peak_vram_bytes=torch.cuda.max_memory_allocated() if model.device.type == "cuda" else None,
                peak_rss_bytes=peak_rss_bytes(),
            )
        )
    return BundleResult(outcomes, phases)


def _denoise(
    model: LoadedModel,
    requests: Sequence[ImageRequest],
    prompts: dict[str, Any],
    should_stop: Callable[[], bool],
) -> tuple[Any, list[torch.Tensor], Any]:
    """Latents where decoding is ours to do, else pictures (n, height, width, 3) in 0..1; noise; scheduler."""
    import torch

    pipe, first = model.pipe, requests[0]
    accepted = inspect.signature(type(pipe).__call__).parameters
    pipe.scheduler = scheduler = make_scheduler(first.scheduler, model.own_scheduler)
    noise: list[torch.Tensor] = []

    def check(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if should_stop():
            raise Interrupted("stopped between two denoising steps")
        return tensors

    arguments: dict[str, Any] = {
        **prompts,
        "num_inference_steps": first.steps,
        "guidance_scale": first.guidance_scale,
        "width": first.width,
        "height": first.height,
        "generator": [torch.Generator("cpu").manual_seed(request.seed) for request in requests],
        "output_type": "latent" if decodes_like_stable_diffusion(pipe) else "np",
    }
    arguments["callback_on_step_end"] = check
    if "prompt" in prompts:
        arguments["clip_skip"] = first.clip_skip
    if should_stop():
        raise Interrupted("stopped before denoising")
    with float32_noise(pipe, noise):
        images = pipe(**{name: value for name, value in arguments.items() if name in accepted}).images
    if len(noise) != len(requests):
        raise JobFailure(f"{type(pipe).__name__} draws its noise in a way that cannot be recorded, so not reproduced")
    return images, noise, scheduler


def _free_memory(model: LoadedModel) -> None:
    import gc

    import torch

    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
