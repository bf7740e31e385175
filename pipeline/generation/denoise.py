"""Calls a diffusers pipeline: alike images from noise to latents."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.adapters.arguments import arguments as adapter_arguments
from pipeline.adapters.pipeline_views import kept_precision, view
from pipeline.errors import Interrupted, JobFailure
from pipeline.generation.decode import Undecoded, stopped_before_decoding
from pipeline.generation.encode import EncodedPrompt, prompt_arguments
from pipeline.generation.guidance import guidance_arguments, is_guided
from pipeline.generation.noise import float32_noise, seed_steps
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import ImageRequest
from pipeline.schedulers import make_scheduler

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


@dataclass(slots=True)
class Denoised:
    """A batch after its last step. `result` is still to be decoded, or already pictures (n, height, width, 3) in 0..1.

    `noise` is what each image started from, (1, ...) in float32 on the CPU.
    """

    result: Undecoded | npt.NDArray[np.float32]
    noise: list[torch.Tensor]
    pipeline_class: str
    scheduler_class: str
    scheduler_config: dict[str, Any]


def denoise(
    model: LoadedModel,
    requests: Sequence[ImageRequest],
    prompts: Sequence[EncodedPrompt],
    should_stop: Callable[[], bool],
) -> Denoised:
    """Denoise images that differ only in prompts and seed. If `should_stop` is true between steps: `Interrupted`."""
    import torch

    first = requests[0]
    pipe = view(model, first.adapters)
    accepted = inspect.signature(type(pipe).__call__).parameters
    generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
    pipe.scheduler = scheduler = make_scheduler(first.scheduler, model.own_scheduler, dict(first.scheduler_options))
    config = dict(scheduler.config)
    seed_steps(scheduler, generators, [request.seed for request in requests])
    arguments: dict[str, Any] = {
        **_on_device(prompt_arguments(pipe, requests, prompts), model.device),
        **guidance_arguments(model.pipe, first.guidance_scale),
        **_stop_arguments(accepted, should_stop),
        "num_inference_steps": first.steps,
        "width": first.width,
        "height": first.height,
        "generator": generators,
        "output_type": "np",
        "clip_skip": first.clip_skip,
        "clean_caption": False,
        "use_resolution_binning": False,
    }
    if model.settings.max_sequence_length:
        arguments["max_sequence_length"] = model.settings.max_sequence_length
    guided = is_guided(model.pipe, first.guidance_scale)
    arguments |= adapter_arguments(model, pipe, first.adapters, len(requests), first.width, first.height, guided=guided)
    if should_stop():
        raise Interrupted("stopped before denoising")
    noise: list[torch.Tensor] = []
    undecoded: list[Undecoded] = []
    pictures: Any = None
    passed = {name: value for name, value in arguments.items() if name in accepted}
    with (
        torch.inference_mode(),
        _encoders_of_other_precision_hidden(pipe, model.dtype),
        kept_precision(pipe),
        float32_noise(pipe, noise),
        stopped_before_decoding(pipe, undecoded),
    ):
        pictures = pipe(**passed).images
    if len(noise) != len(requests):
        raise JobFailure(f"{type(pipe).__name__} draws its noise in a way that cannot be recorded, so not reproduced")
    return Denoised(
        result=undecoded[0] if undecoded else pictures,
        noise=noise,
        pipeline_class=type(pipe).__name__,
        scheduler_class=type(scheduler).__name__,
        scheduler_config=config,
    )


@contextmanager
def _encoders_of_other_precision_hidden(pipe: Any, dtype: torch.dtype) -> Iterator[None]:
    """Within this block a call has no encoder from which it could take a precision that is not the denoiser's.

    PixArt casts the embeddings that it is given to its encoder's, and T5 is not in float16.
    """
    hidden = {
        name: encoder
        for name, encoder in pipe.components.items()
        if name.startswith("text_encoder") and encoder is not None and encoder.dtype != dtype
    }
    vars(pipe).update(dict.fromkeys(hidden))  # past the pipeline, which would note it as its new configuration
    try:
        yield
    finally:
        vars(pipe).update(hidden)


def _stop_arguments(accepted: Any, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """The callback that a call has; the older kind returns nothing and hears of its steps from outside."""

    def check() -> None:
        if should_stop():
            raise Interrupted("stopped between two denoising steps")

    def on_step_end(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        check()
        return tensors

    if "callback_on_step_end" in accepted:
        return {"callback_on_step_end": on_step_end}
    return {"callback": lambda *_: check(), "callback_steps": 1}


def _on_device(arguments: dict[str, Any], device: Any) -> dict[str, Any]:
    import torch

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(one) for one in value]
        return value.to(device) if isinstance(value, torch.Tensor) else value

    return {name: moved(value) for name, value in arguments.items()}
