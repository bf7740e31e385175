"""The initial noise of an image: drawn on the CPU, in float32, whatever the model's precision."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Float32Noise:
    """Within this block a pipeline draws its initial noise in float32 and casts it to its own dtype afterwards.

    In half precision the same seed gives other noise, on some torch versions uncorrelated noise
    (huggingface/diffusers issue 11056, pytorch/pytorch issue 166853).
    """

    def __init__(self, pipe: Any, noise: list[torch.Tensor]) -> None:
        self._pipe, self._noise = pipe, noise

    def __enter__(self) -> None:
        import diffusers.utils.torch_utils as drawing
        import torch

        module = sys.modules[type(self._pipe).prepare_latents.__module__]
        draw = drawing.randn_tensor

        def draw_float32(
            shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None
        ) -> Any:
            drawn = draw(shape, generator=generator, device=torch.device("cpu"), dtype=torch.float32, layout=layout)
            if not self._noise:
                self._noise.extend(drawn[index : index + 1] for index in range(drawn.shape[0]))
            return drawn.to(device=device, dtype=dtype)

        self._module, self._draw = module, getattr(module, "randn_tensor", None)
        if self._draw is not None:
            module.randn_tensor = draw_float32  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        if self._draw is not None:
            self._module.randn_tensor = self._draw  # type: ignore[attr-defined]
