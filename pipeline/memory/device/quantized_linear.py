"""Linear layers with 8-bit weights and a scale for each row, which compute in the dtype of their input.

What is multiplied with the input is the weight itself, as near as eight bits come: scale first, product then. The other
way round, as torchao has it, a product leaves float16's range that would not otherwise: of 3072 numbers times up to
127 each, before the scale makes them small again. And a layer of plain tensors is copied, streamed, counted and
compiled as any other.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

EightBits = Literal["int8", "float8"]


def hold_in_eight_bits(layer: torch.nn.Linear, kind: EightBits, device: torch.device) -> None:
    """Quantise a frozen layer in place to 8 bits, so that every reference sees the small one; computed on `device`.

    Row by row, `int8` to whole numbers of up to 127, `float8` to numbers of four significant bits up to 448
    (float8_e4m3fn), times a scale in the type that the weight had. A number of `int8` is off by half a scale at most,
    and by the rounding of that type. The result lies where the layer lay.
    """
    import torch

    dtype, home = layer.weight.dtype, layer.weight.device
    stored = torch.int8 if kind == "int8" else torch.float8_e4m3fn
    largest = 127 if kind == "int8" else torch.finfo(stored).max
    with torch.inference_mode(False), torch.no_grad():
        weight = layer.weight.data.to(device, torch.float32, copy=True)
        low, high = weight.aminmax(dim=1, keepdim=True)
        # Rounded up, also where it is so small that steps are coarse, so that nothing exceeds the largest number; and
        # never zero. The rows are divided by what it really became, so its own rounding is no error of theirs.
        info = torch.finfo(dtype)
        scale = torch.maximum(high, -low).div_(largest).mul_(1 + info.eps).add_(info.smallest_normal * info.eps)
        scale = scale.to(dtype)
        weight.div_(scale)
        small = (weight.round_() if kind == "int8" else weight).to(stored)
        layer.weight = torch.nn.Parameter(small.view(torch.int8).to(home), requires_grad=False)
        layer.register_buffer("scale", scale.to(home))
    layer.__class__ = _eight_bit_linear()
    layer.stored = stored  # type: ignore[assignment]


@functools.cache
def _eight_bit_linear() -> type[torch.nn.Linear]:
    import torch

    class EightBitLinear(torch.nn.Linear):
        """`weight` has (out, in) numbers of the type `stored`, `scale` is of (out, 1).

        float8 stands there as int8 too: what is no float is not cast with a model, and nobody casts inputs to it (T5).
        """

        scale: torch.Tensor
        stored: torch.dtype

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # Of an integer and a float torch computes with the float, in one kernel. float8 has no arithmetic at all:
            # a copy is scaled, in place, for another one would be a second layer in memory.
            if self.stored == torch.int8:
                weight = self.weight * self.scale
            else:
                weight = self.weight.view(self.stored).to(self.scale.dtype).mul_(self.scale)
            return torch.nn.functional.linear(x, weight.to(x.dtype), self.bias)

    return EightBitLinear
