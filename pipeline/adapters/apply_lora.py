"""Applies LoRAs to a loaded model, switches, counts and removes them, without ever changing the model's own weights."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.adapters.find_weights import file_now
from pipeline.errors import JobFailure
from pipeline.loading.component_weights import first_line
from pipeline.memory.planning.sizes import IDLE_LORA_BYTES
from pipeline.request import LoraMatch, LoraWeights, lora_weights
from pipeline.weights.headers.read import read_weights

MAX_LOADED = 8
"""LoRAs that stay on a model, switched off, for the next image that wants them, if they are small (`IDLE_LORA_BYTES`):
each takes time in every layer that it is on."""

_LOADERS = ("load_lora_into_unet", "load_lora_into_transformer", "load_lora_into_text_encoder")


@dataclass(slots=True)
class _Lora:
    """A LoRA that is on a model, in use or not. `keys` counts its tensors per component, "" for those of none."""

    keys: dict[str, int]
    matched: dict[str, int] = field(default_factory=dict)
    bytes: int = 0


Loras = OrderedDict[str, _Lora]
"""What is on a model, by adapter name, the one wanted last at the end."""


def adapter_name(lora: LoraWeights) -> str:
    """A stable name for PEFT: no dots, since it becomes a module's."""
    return f"lora_{lora.sha256[:16]}"


def wanted_weights(loras: Sequence[LoraWeights]) -> dict[str, float]:
    """Weights as `lora_weights` has them, by adapter name."""
    names = {lora.sha256: adapter_name(lora) for lora in loras}
    return {names[sha256]: weight for sha256, weight in lora_weights(loras).items()}


def missing(pipe: Any, held: Loras, loras: Sequence[LoraWeights]) -> list[LoraWeights]:
    """LoRAs that are not on every component that they are for; a component may have been loaded again meanwhile."""
    wanted = wanted_weights(loras)
    found = {adapter_name(lora): lora for lora in loras if adapter_name(lora) in wanted}
    return [lora for name, lora in found.items() if name not in held or not _whole(pipe, held[name], name)]


def superfluous(held: Loras, loras: Sequence[LoraWeights]) -> list[str]:
    """Adapter names beyond `MAX_LOADED` and `IDLE_LORA_BYTES`, those wanted longest ago first; none of the wanted."""
    wanted = wanted_weights(loras)
    room, places = IDLE_LORA_BYTES, max(0, MAX_LOADED - len(wanted))
    going = []
    for name in [name for name in reversed(held) if name not in wanted]:
        if places and held[name].bytes <= room:
            room, places = room - held[name].bytes, places - 1
        else:
            going.append(name)
    return going[::-1]


def add(pipe: Any, held: Loras, lora: LoraWeights) -> None:
    """Load one LoRA into the components that lack it. Raises `JobFailure` if it fits nowhere."""
    path = file_now(lora.source, lora.sha256, "lora", lora.name)
    name = adapter_name(lora)
    try:
        with _watched(pipe, name, lora) as keys, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # PEFT: several LoRAs at once, and no fusing into int8
            pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name, local_files_only=True)
        _settle(pipe, name, lora)
        one = _Lora(keys, dict(held[name].matched) if name in held else {})
        one.matched |= _matched(pipe, name)
        one.bytes = _held_bytes(pipe, name)
        if not any(one.matched.values()):
            raise JobFailure(
                f"lora {lora.name}: none of its {sum(keys.values())} keys matches this model; "
                "it was made for another one"
            )
    except JobFailure:
        remove(pipe, held, name)
        raise
    except (ValueError, RuntimeError, KeyError, TypeError, IndexError, AttributeError) as error:
        remove(pipe, held, name)
        # diffusers stumbles over its own cleaning up when PEFT refuses a file.
        cause = error.__context__ if isinstance(error, KeyError) and error.__context__ else error
        raise JobFailure(f"lora {lora.name}: does not fit this model: {first_line(cause)}") from error
    held[name] = one


def remove(pipe: Any, held: Loras, name: str) -> None:
    """Remove one LoRA's weights from every component."""
    held.pop(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT: another one becomes active, until `switch` decides
        for component in filter(_has_layers, _components(pipe).values()):
            _peft_utils().delete_adapter_layers(component, name)


def restore_layers(pipe: Any, component: str | None = None) -> None:
    """Put back the own layers of a component, or of all, in place of those that had LoRAs."""
    for name, module in _components(pipe).items():
        if component in (None, name) and _has_layers(module):
            _peft_utils().recurse_remove_peft_layers(module)
            if hasattr(module, "peft_config"):
                del module.peft_config
            module._hf_peft_config_loaded = False
            module.requires_grad_(False)


def switch(pipe: Any, held: Loras, loras: Sequence[LoraWeights]) -> tuple[LoraMatch, ...]:
    """Use exactly these LoRAs, each with its weight, and return how many of their keys match."""
    weights = wanted_weights(loras)
    for name in weights:
        held.move_to_end(name)
    for component in filter(_has_layers, _components(pipe).values()):
        _peft_utils().set_adapter_layers(component, enabled=bool(weights))
        if weights:
            _peft_utils().set_weights_and_activate_adapters(component, list(weights), list(weights.values()))
        # Switching on makes layers trainable, and those take other CPU kernels than frozen ones: other last bits.
        component.requires_grad_(False)
    return tuple(_match(lora.sha256, held[adapter_name(lora)]) for lora in loras if adapter_name(lora) in weights)


def _match(sha256: str, one: _Lora) -> LoraMatch:
    # A component that was never in memory was not needed: its part of the picture came out of the embedding cache.
    matched = sum(one.matched.get(component, count if component else 0) for component, count in one.keys.items())
    return LoraMatch(sha256, matched, sum(one.keys.values()) - matched)


def _whole(pipe: Any, one: _Lora, name: str) -> bool:
    components = _components(pipe)
    wanted = [component for component, count in one.keys.items() if count and one.matched.get(component) != 0]
    return all(name in getattr(components[c], "peft_config", {}) for c in wanted if c in components)


def _components(pipe: Any) -> dict[str, Any]:
    """The components that diffusers puts LoRAs into, as far as they are in memory."""
    names = getattr(pipe, "_lora_loadable_modules", ())
    return {name: getattr(pipe, name) for name in names if getattr(pipe, name, None) is not None}


def _peft_utils() -> Any:
    """What diffusers switches LoRAs with, for denoisers and text encoders alike."""
    import diffusers.utils.peft_utils

    return diffusers.utils.peft_utils


def _has_layers(component: Any) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(module, BaseTunerLayer) for module in component.modules())


@contextmanager
def _watched(pipe: Any, name: str, lora: LoraWeights) -> Iterator[dict[str, int]]:
    """Within this block loading skips components that are absent or have the LoRA, and its keys are counted.

    The count is of the file's tensors after diffusers has brought them into its own form, which may split one into
    several; it reads and converts the file once only.
    """
    keys: dict[str, int] = {}
    convert = pipe.lora_state_dict

    def counted(*args: Any, **options: Any) -> Any:
        result = convert(*args, **options)
        tensors = result[0] if isinstance(result, tuple) else result
        _refuse_control_lora(pipe, tensors, lora)
        for key in tensors:
            component = key.partition(".")[0]
            component = component if component in pipe._lora_loadable_modules else ""
            keys[component] = keys.get(component, 0) + 1
        if not any("magnitude" in key for key in tensors):  # diffusers drops what DoRA adds, and warns only
            dropped = sum("dora_scale" in name for name in read_weights(Path(lora.source)).tensors)
            keys[""] = keys.get("", 0) + dropped
        return result

    def skipping(load: Any) -> Any:
        def loaded(*args: Any, **options: Any) -> None:
            component = next((options[key] for key in ("unet", "transformer", "text_encoder") if key in options), None)
            if component is not None and name not in getattr(component, "peft_config", {}):
                load(*args, **options)

        return loaded

    loaders = [loader for loader in _LOADERS if hasattr(pipe, loader)]
    # diffusers takes "text_model." off the keys only where the encoder has no such attribute; loading gave it one, for
    # clip_skip, past the modules.
    encoders = [component for component in _components(pipe).values() if "text_model" in vars(component)]
    kept = [vars(encoder).pop("text_model") for encoder in encoders]
    vars(pipe)["lora_state_dict"] = counted
    vars(pipe).update({loader: skipping(getattr(pipe, loader)) for loader in loaders})
    try:
        yield keys
    finally:
        for own in ("lora_state_dict", *loaders):
            vars(pipe).pop(own, None)
        for encoder, text_model in zip(encoders, kept, strict=True):
            vars(encoder)["text_model"] = text_model


def _refuse_control_lora(pipe: Any, tensors: dict[str, Any], lora: LoraWeights) -> None:
    """FLUX.1 Control LoRAs widen the transformer's first layer and replace norms, which cannot be undone."""
    first = tensors.get("transformer.x_embedder.lora_A.weight")
    layer = getattr(getattr(pipe, "transformer", None), "x_embedder", None)
    wider = first is not None and layer is not None and first.shape[1] != getattr(layer, "in_features", first.shape[1])
    if wider or any("lora" not in key and ".norm" in key for key in tensors):
        raise JobFailure(f"lora {lora.name}: is a control LoRA, which changes the model itself; take a plain LoRA")


def _settle(pipe: Any, name: str, lora: LoraWeights) -> None:
    """Freeze the new weights and give them the type that the model computes in. Raises `JobFailure` for halves."""
    for component in _components(pipe).values():
        for layer in _layers(component, name):
            for kind in layer.adapter_layer_names:
                weights = getattr(layer, kind, {})
                if name not in weights:
                    continue
                tensors = [weights[name]] if not hasattr(weights[name], "parameters") else [*weights[name].parameters()]
                if any(tensor.is_meta for tensor in tensors):
                    raise JobFailure(f"lora {lora.name}: lacks some of its tensors; fetch the file again")
                if any(tensor.is_floating_point() and tensor.dtype != component.dtype for tensor in tensors):
                    weights[name] = weights[name].to(component.dtype)
        component.requires_grad_(False)


def _matched(pipe: Any, name: str) -> dict[str, int]:
    """How many tensors of a LoRA have a place, by component."""
    return {key: sum(len(_weights(layer, name)) for layer in _layers(c, name)) for key, c in _components(pipe).items()}


def _held_bytes(pipe: Any, name: str) -> int:
    layers = [layer for component in _components(pipe).values() for layer in _layers(component, name)]
    return sum(tensor.nbytes for layer in layers for tensor in _weights(layer, name))


def _layers(component: Any, name: str) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in component.modules():
        if isinstance(module, BaseTunerLayer) and name in module._all_available_adapter_names():
            yield module


def _weights(layer: Any, name: str) -> list[Any]:
    """The tensors that a LoRA brought into a layer."""
    held = [getattr(layer, kind)[name] for kind in layer.adapter_layer_names if name in getattr(layer, kind, {})]
    return [tensor for one in held for tensor in (one.parameters() if hasattr(one, "parameters") else [one])]
