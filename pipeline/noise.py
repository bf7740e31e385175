"""The noise of an image: drawn on the CPU, in float32, whatever the model's precision."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextmanager
def float32_noise(pipe: Any, initial: list[torch.Tensor]) -> Iterator[None]:
    """Within this block a pipeline and its scheduler draw noise in float32 and cast it to their own dtype afterwards.

    In half precision the same seed gives other noise, on some torch versions uncorrelated noise
    (huggingface/diffusers issue 11056, pytorch/pytorch issue 166853). The first draw, the noise that the image starts
    from, is added to `initial`, one (1, ...) tensor per image.
    """
    import diffusers.utils.torch_utils as drawing
    import torch

    draw = drawing.randn_tensor

    def draw_float32(
        shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None
    ) -> Any:
        drawn = draw(shape, generator=generator, device=torch.device("cpu"), dtype=torch.float32, layout=layout)
        if not initial:
            initial.extend(drawn[index : index + 1] for index in range(drawn.shape[0]))
        return drawn.to(device=device, dtype=dtype)

    # Each module of diffusers has imported the function under its own name; ancestral samplers draw in theirs.
    names = {type(pipe).prepare_latents.__module__, type(pipe.scheduler).step.__module__}
    modules: list[Any] = [sys.modules[name] for name in names if hasattr(sys.modules[name], "randn_tensor")]
    for module in modules:
        module.randn_tensor = draw_float32
    try:
        yield
    finally:
        for module in modules:
            module.randn_tensor = draw
