"""Weights in fewer bits, in place, and what a module really occupies."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import ModelError
from pipeline.memory.mapped_files import MappedFiles

if TYPE_CHECKING:
    import torch

Quantization = Literal["int8", "float8", "int4"]

EXTRAS: dict[str, tuple[str, str]] = {
    "int8": ("torchao", "quantization"),
    "float8": ("torchao", "quantization"),
    "int4": ("bitsandbytes", "bitsandbytes"),
}
"""The package that each kind needs, and the extra that installs it."""

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
    package, extra = EXTRAS[kind]
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"{kind} weights need the package {package}: pip install 'darkroom[{extra}]'")
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
        _with_torchao(module, layers, kind, device)
    module.quantization = kind
    return len(layers)


def quantized_as(module: Any) -> Quantization | None:
    """What `quantize` made of a module; None for one that is as it was loaded."""
    kind: Quantization | None = module.__dict__.get("quantization")
    return kind


def true_bytes(module: Any) -> int:
    """Bytes of a module's parameters and buffers, those of quantised tensors as they are stored.

    diffusers' and transformers' `get_memory_footprint` count a tensor subclass with the size of the type it stands for,
    two to four times the truth.
    """
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return sum(_tensor_bytes(tensor) for tensor in tensors.values())


def _tensor_bytes(tensor: Any) -> int:
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return sum(_tensor_bytes(getattr(tensor, name)) for name in names)
    state = getattr(tensor, "quant_state", None)  # bitsandbytes keeps the scales of a weight beside it
    scales = _tensor_bytes(state.absmax) if state is not None else 0
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


def _with_torchao(module: Any, layers: dict[str, Any], kind: Quantization, device: torch.device | None) -> None:
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    config = Int8WeightOnlyConfig(version=2) if kind == "int8" else Float8WeightOnlyConfig()
    on_gpu = device is not None and device.type == "cuda"
    files = MappedFiles()
    for layer in layers.values():
        before = layer.weight.data
        if on_gpu:  # each layer there and back: many times faster than the CPU, and one layer's memory
            layer.to(device)
        quantize_(layer, config, filter_fn=lambda *_: True)
        if on_gpu:
            layer.to("cpu")
        layer.weight.requires_grad_(False)
        if not hasattr(layer.weight, "__tensor_flatten__"):
            raise ModelError(f"{type(module).__name__}: torchao left a layer unquantised; another version may help")
        files.forget(before)


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
