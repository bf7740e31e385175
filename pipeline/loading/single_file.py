"""Loads components from one file: a checkpoint in its authors' layout, a denoiser alone, a VAE alone, or a GGUF file.

What diffusers' `Pipeline.from_single_file` does in one go is done here by component, so that components are shared
and quantised alone, and so that nothing is ever fetched: the configuration is always a local folder.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError
from pipeline.loading.components import ComponentPart
from pipeline.weights.checkpoint_parts import split
from pipeline.weights.denoiser_detection import prefix_of
from pipeline.weights.families import FAMILIES
from pipeline.weights.headers.read import read_weights

if TYPE_CHECKING:
    import torch

_CLIP = ("CLIPTextModel", "CLIPTextModelWithProjection")


def load_from_single_file(part: ComponentPart, component_class: Any, dtype: torch.dtype, model: str) -> torch.nn.Module:
    """Load a component from the file. Raises `ModelError` if the file does not contain all of it."""
    (file,) = part.weights
    incomplete = (
        f"model {model}: {file.name} does not hold all of the {part.name} that {part.config.parent.name}/ describes"
    )
    try:
        module = _converted(part, component_class, dtype)
    except NotImplementedError as error:  # a tensor without storage was moved
        raise ModelError(f"{incomplete}; is that the configuration of this model?") from error
    # diffusers leaves what the file lacks without storage, and says nothing.
    missing = sorted(name for name, tensor in module.named_parameters() if tensor.is_meta)
    if missing:
        raise ModelError(f"{incomplete}: {missing[0]} is missing; is that the configuration of this model?")
    # Left by diffusers' loader; a module out of a folder has none, and offloading asks for it.
    module.__dict__.pop("hf_device_map", None)
    loaded: torch.nn.Module = module
    return loaded


def _converted(part: ComponentPart, component_class: Any, dtype: torch.dtype) -> Any:
    (file,) = part.weights
    local = {"config": str(part.config.parent), "subfolder": part.config.name, "local_files_only": True}
    if file.suffix.lower() == ".gguf":
        from diffusers import GGUFQuantizationConfig

        quantization = GGUFQuantizationConfig(compute_dtype=dtype)  # type: ignore[no-untyped-call]
        return component_class.from_single_file(str(file), quantization_config=quantization, dtype=dtype, **local)
    if part.class_name in _CLIP:
        from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

        return create_diffusers_clip_model_from_ldm(  # type: ignore[no-untyped-call]
            component_class, checkpoint=_tensors(part), torch_dtype=dtype, **local
        )
    if part.library == "transformers":
        return _text_encoder(part, component_class, dtype)
    if not hasattr(component_class, "from_single_file"):
        return _same_layout(part, component_class, dtype)
    return component_class.from_single_file(_tensors(part), dtype=dtype, **local)


def _tensors(part: ComponentPart) -> dict[str, torch.Tensor]:
    """The tensors of one component, mapped into memory and read when used.

    Only its own: diffusers takes an SDXL file's first text encoder for the second where both are equally wide.
    """
    from safetensors import safe_open

    (file,) = part.weights
    own: Collection[str] = read_weights(file).tensors
    if part.family is not None:
        own = split(read_weights(file).tensors, part.family, FAMILIES[part.family].denoiser).get(part.name, {})
    # The converters of transformers know both prefixes, but Qwen-Image's and the plain way none.
    prefix = prefix_of(own) if part.name == "transformer" else ""
    with safe_open(file, framework="pt") as opened:
        return {name.removeprefix(prefix): opened.get_tensor(name) for name in own}


def _text_encoder(part: ComponentPart, component_class: Any, dtype: torch.dtype) -> Any:
    """T5, Qwen and their like, which keep transformers' own names behind `text_encoders.<name>.transformer.`."""
    tensors = {name.partition(".transformer.")[2]: tensor for name, tensor in _tensors(part).items()}
    module, info = component_class.from_pretrained(
        None,
        config=component_class.config_class.from_pretrained(
            part.config, local_files_only=True, trust_remote_code=False
        ),
        state_dict=tensors,
        dtype=dtype,
        output_loading_info=True,
        trust_remote_code=False,
    )
    for name in info["missing_keys"]:  # drawn at random until here
        module.get_parameter(name).data = module.get_parameter(name).data.to("meta")
    return module


def _same_layout(part: ComponentPart, component_class: Any, dtype: torch.dtype) -> Any:
    """For classes that diffusers converts no other layout for, such as PixArt's: the tensors by their own names."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        module = component_class.from_config(part.configuration())
    module.load_state_dict(_tensors(part), strict=False, assign=True)
    return module.to(dtype)
