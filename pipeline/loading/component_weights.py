"""Loads the weights of one component into a frozen module on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError, OutOfMemory
from pipeline.loading.components import ComponentPart
from pipeline.loading.single_file import load_from_single_file
from pipeline.system.failures import classify
from pipeline.weights.shipped import load_tokenizer

if TYPE_CHECKING:
    import torch


def load_weights(part: ComponentPart, dtype: torch.dtype, model: str) -> torch.nn.Module:
    """Load a component as a module. Raises `ModelError` for missing classes and unfit weights, and `OutOfMemory`."""
    component_class = class_of(part, model)
    try:
        if part.single_file:
            module = load_from_single_file(part, component_class, dtype, model)
        else:
            module = _from_folder(part, component_class, dtype, model)
    except ModelError:
        raise
    except Exception as error:
        failure = classify(error)
        if isinstance(failure, OutOfMemory):
            raise failure from error
        raise ModelError(f"model {model}: {part.name} cannot be loaded: {first_line(error)}") from error
    # Frozen weights take other CPU kernels than trainable ones; always frozen means always the same bits.
    module.requires_grad_(False).eval()
    if part.role == "encoder":
        _restore_text_model(module)
    return module


def load_without_weights(part: ComponentPart, model: str) -> Any:
    """Load a tokenizer, an image processor or a scheduler."""
    component_class = class_of(part, model)
    try:
        if part.class_name == "CLIPTokenizer":
            return load_tokenizer(component_class, part.config)
        return component_class.from_pretrained(part.config, local_files_only=True, **_no_code(part))
    except Exception as error:
        raise ModelError(f"model {model}: {part.name} cannot be loaded: {first_line(error)}") from error


def class_of(part: ComponentPart, model: str) -> Any:
    """The class of diffusers or transformers that a model_index.json names."""
    import diffusers
    import transformers
    from diffusers.utils import deprecation_utils

    if part.library == "transformers":
        # Names of older releases, such as CLIPFeatureExtractor, mean classes of today.
        name = deprecation_utils._maybe_remap_transformers_class(part.class_name) or part.class_name
        found, version = getattr(transformers, name, None), transformers.__version__
    else:
        home: Any = diffusers
        if part.library != "diffusers":  # such as ["stable_diffusion", "StableDiffusionSafetyChecker"]
            home = getattr(diffusers.pipelines, part.library, None)
        found, version = getattr(home, part.class_name, None), diffusers.__version__
    if found is None:
        raise ModelError(
            f"model {model}: {part.name} is a {part.class_name}, which {part.library} {version} does not have; "
            "a newer one may"
        )
    return found


def first_line(error: BaseException) -> str:
    """The error of a library as one line of limited length."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _from_folder(part: ComponentPart, component_class: Any, dtype: torch.dtype, model: str) -> torch.nn.Module:
    module, info = component_class.from_pretrained(
        part.config,
        dtype=dtype,
        variant=part.variant,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **_no_code(part),
    )
    missing = sorted(info["missing_keys"])
    if missing:
        # Both libraries would draw these at random and say nothing.
        raise ModelError(
            f"model {model}: {part.name}/ lacks {len(missing)} of its tensors, the first is {missing[0]}; "
            "fetch the model again"
        )
    loaded: torch.nn.Module = module
    return loaded


def _no_code(part: ComponentPart) -> dict[str, bool]:
    """What keeps transformers from asking on the terminal whether to run code; diffusers has no such option."""
    return {"trust_remote_code": False} if part.library == "transformers" else {}


def _restore_text_model(text_encoder: Any) -> None:
    """Let `clip_skip` work: diffusers asks for `text_encoder.text_model`, which transformers 5 merged into the model.

    Written past `nn.Module.__setattr__`, since a module that is its own child would be walked for ever.
    """
    if hasattr(text_encoder, "final_layer_norm") and not hasattr(text_encoder, "text_model"):
        text_encoder.__dict__["text_model"] = text_encoder
