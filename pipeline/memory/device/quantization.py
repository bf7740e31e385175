"""Quantises weights in place, and counts the true bytes of modules.

With 8-bit weights and a scale for each row, layers compute in the dtype of their input. What is multiplied with the
input is the weight itself, as near as eight bits come: scale first, product then. The other way round, as torchao has
it, a product leaves float16's range that would not otherwise: of 3072 numbers times up to 127 each, before the scale
makes them small again. And a layer of plain tensors is copied, streamed, counted and compiled as any other.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError
from pipeline.memory.device.mapped_files import MappedFiles
from pipeline.memory.planning.techniques import Quantization

if TYPE_CHECKING:
    import torch

SMALLEST = 1024
"""Elements below which a weight stays as it is: it would save less than a kilobyte."""

_KEPT = re.compile(
    r"(^|\.)(\w*embed\w*|time_proj|patchify\w*)(\.|$)"  # inputs, time and size: run once per step, and decide a lot
    r"|^(proj_in|proj_out|conv_in|conv_out|final_layer)(\.|$)"
)


def quantize(module: Any, kind: Quantization, device: torch.device | None = None) -> int:
    """Quantise the weights of a module's Linear layers in place; returns how many. Raises `ModelError`.

    Weight-only: products are computed in the type of the inputs, so nothing has to be compiled to be fast enough.
    Works on what is loaded, wherever it came from: diffusers' own `quantization_config` silently does nothing for
    single files. A CUDA `device` is used to compute; `int4` (NF4) needs one, and leaves the module there. Embeddings,
    the first and last layers, tiny layers and those that share their weight with an embedding keep their precision.
    """
    if kind == "int4" and importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError("int4 weights need the package bitsandbytes: pip install 'darkroom[bitsandbytes]'")
    name = type(module).__name__
    if quantized_as(module) is not None:
        raise ModelError(f"{name} is already quantised to {quantized_as(module)}; load it again for {kind}")
    layers = _layers(module)
    if not layers:
        raise ModelError(f"{name} has no Linear layer that could be quantised to {kind}; is it quantised already?")
    if kind == "int4":
        if device is None or device.type != "cuda":
            raise ModelError("int4 weights need an NVIDIA GPU; use int8 (memory.techniques) on other devices")
        _to_nf4(module, layers, device)
    else:
        _to_eight_bits(layers, kind, device)
    module.quantization = kind
    return len(layers)


def quantized_as(module: Any) -> Quantization | None:
    """The kind of quantisation that `quantize` applied to a module; None if it did not."""
    kind: Quantization | None = module.__dict__.get("quantization")
    return kind


def true_bytes(module: Any) -> int:
    """Bytes of a module's parameters and buffers, those of quantised tensors as they are stored.

    diffusers' and transformers' `get_memory_footprint` count a tensor subclass with the size of the type it stands for,
    two to four times the truth.
    """
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(tensor_bytes(tensor) for tensor in tensors.values())


def tensor_bytes(tensor: Any) -> int:
    """Bytes of one tensor as it is stored, with the scales that belong to it."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(tensor_bytes(getattr(tensor, name)) for name in names)
    state = getattr(tensor, "quant_state", None)  # bitsandbytes keeps the scales of a weight beside it
    scales = tensor_bytes(state.absmax) if state is not None else 0
    return int(tensor.numel() * tensor.element_size()) + scales


def _layers(module: Any) -> dict[str, Any]:
    """The Linear layers to quantise, by name."""
    import torch

    embedded = {id(layer.weight) for layer in module.modules() if isinstance(layer, torch.nn.Embedding)}
    return {
        name: layer
        for name, layer in module.named_modules()
        # Exactly Linear: subclasses (bitsandbytes, GGUF, LoRA) hold their weight in a way of their own.
        if type(layer) is torch.nn.Linear
        and type(layer.weight) is torch.nn.Parameter
        and layer.weight.is_floating_point()
        and layer.weight.numel() >= SMALLEST
        and id(layer.weight) not in embedded
        and not _KEPT.search(name)
    }


def _to_eight_bits(layers: dict[str, Any], kind: Quantization, device: torch.device | None) -> None:
    files = MappedFiles()
    for layer in layers.values():
        before = layer.weight.data
        # On a GPU each layer there and back: many times faster than the CPU, and one layer's memory.
        _hold_in_eight_bits(layer, kind, device if device is not None and device.type == "cuda" else before.device)
        files.forget(before)


def _hold_in_eight_bits(layer: torch.nn.Linear, kind: Quantization, device: torch.device) -> None:
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


def _to_nf4(module: Any, layers: dict[str, Any], device: torch.device) -> None:
    import bitsandbytes as bnb
    import torch

    for name, layer in layers.items():
        with torch.device("meta"):
            small = bnb.nn.Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=layer.weight.dtype,
                quant_type="nf4",
            )
        small.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=small)
        small.bias = layer.bias
        parent, _, child = name.rpartition(".")
        # The move to the device is what quantises; layer by layer, so that the whole model is never there at once.
        setattr(module.get_submodule(parent), child, small.to(device).eval())
    module.to(device)
