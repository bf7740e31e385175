"""The noise of an image: drawn on the CPU, in float32, whatever the model's precision."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_SAMPLES_ENCODINGS = "diffusers.models.autoencoders.vae"
"""Where the encoding of an initial image is sampled."""


@contextmanager
def float32_noise(pipe: Any, initial: list[torch.Tensor]) -> Iterator[None]:
    """Within this block a pipeline and its scheduler draw noise in float32 and cast it to their own dtype afterwards.

    In half precision the same seed gives other noise, on some torch versions uncorrelated noise
    (huggingface/diffusers issue 11056, pytorch/pytorch issue 166853). The pipeline's first draw, the noise that the
    image starts from, is added to `initial`, one (1, ...) tensor per image.
    """
    import diffusers.utils.torch_utils as drawing
    import torch

    draw = drawing.randn_tensor

    def draw_float32(
        shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None
    ) -> Any:
        if generator is None:  # from torch's global generator no picture could be made again: the mean instead
            return torch.zeros(shape, device=device, dtype=dtype)
        drawn = draw(shape, generator=generator, device=torch.device("cpu"), dtype=torch.float32, layout=layout)
        return drawn.to(device=device, dtype=dtype)

    def draw_initial(
        shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None
    ) -> Any:
        drawn = draw(shape, generator=generator, device=torch.device("cpu"), dtype=torch.float32, layout=layout)
        if not initial:
            initial.extend(drawn[index : index + 1] for index in range(drawn.shape[0]))
        return drawn.to(device=device, dtype=dtype)

    # Each module of diffusers has imported the function under its own name.
    own = {type(pipe).__call__.__module__, getattr(type(pipe).prepare_latents, "__module__", "")}
    others = {type(pipe.scheduler).step.__module__, _SAMPLES_ENCODINGS} - own
    drawers = [(name, draw_initial) for name in own] + [(name, draw_float32) for name in others]
    patched = [
        (sys.modules[name], function) for name, function in drawers if hasattr(sys.modules.get(name), "randn_tensor")
    ]
    for module, function in patched:
        module.randn_tensor = function  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, _ in patched:
            module.randn_tensor = draw  # type: ignore[attr-defined]


def seed_steps(scheduler: Any, generators: Sequence[torch.Generator], seeds: Sequence[int]) -> None:
    """Let every step of a scheduler that adds noise draw it from each image's own generator.

    Not every pipeline hands the generators on, and a scheduler with a Brownian tree takes seeds; without either the
    noise would come from torch's global generator, and no picture could be made again.
    """
    import inspect

    if hasattr(scheduler, "noise_sampler_seed"):
        scheduler.noise_sampler_seed = list(seeds)
    step = scheduler.step
    if "generator" not in inspect.signature(step).parameters:
        return

    @wraps(step)
    def seeded(*arguments: Any, **options: Any) -> Any:
        if options.get("generator") is None:
            options["generator"] = list(generators)
        return step(*arguments, **options)

    scheduler.step = seeded
