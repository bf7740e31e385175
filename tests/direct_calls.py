"""Tiny models with adapters on them, called directly: what the pipelines make of the arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.adapters.apply import apply
from pipeline.adapters.arguments import arguments
from pipeline.adapters.identify_lora import identify_lora
from pipeline.adapters.pipeline_views import kept_precision, view
from pipeline.adapters.specs import LoraSpec
from pipeline.generation.noise import float32_noise
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import NO_ADAPTERS, Adapters

Pictures = npt.NDArray[np.float32]


def with_loras(model: LoadedModel, *loras: tuple[Path, float]) -> Adapters:
    """LoRAs by their files, each with its weight."""
    return Adapters(loras=tuple(identify_lora(LoraSpec(path, weight), model.files) for path, weight in loras))


def pictures(
    model: LoadedModel,
    adapters: Adapters = NO_ADAPTERS,
    *,
    seeds: tuple[int, ...] = (1,),
    steps: int = 3,
    prompt: str = "a red house",
    output_type: str = "np",
    side: int = 32,
) -> Pictures:
    """(n, side, side, 3) in 0..1, one per seed."""
    import inspect

    import torch

    apply(model, adapters)
    pipe = view(model, adapters)
    pipe.scheduler = type(model.own_scheduler).from_config(model.own_scheduler.config)
    accepted = inspect.signature(type(pipe).__call__).parameters
    given = {
        "prompt": [prompt] * len(seeds),
        "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        "num_inference_steps": steps,
        "guidance_scale": 5.0,
        "width": side,
        "height": side,
        "output_type": output_type,
        **arguments(model, pipe, adapters, len(seeds), side, side),
    }
    with torch.inference_mode(), float32_noise(pipe, []), kept_precision(pipe):
        made: Pictures = pipe(**{name: value for name, value in given.items() if name in accepted}).images
    return made
