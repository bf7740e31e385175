"""Weights onto a device. Local folders and safetensors only; the hub is never asked."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError
from pipeline.models.inspection import NOT_LOADED, inspect_folder
from pipeline.models.references import resolve
from pipeline.request import MemorySettings, ModelSettings

if TYPE_CHECKING:
    import torch

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    # Must be set before CUDA starts for cuBLAS to give the same bits twice.
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
}


@dataclass(slots=True)
class LoadedModel:
    """A diffusers pipeline on its device, with the prompt embeddings that it has already computed.

    `own_scheduler` came with the weights; bundles get fresh ones made from it, since schedulers keep state.
    `embeddings` maps (text, is_negative, clip_skip) to what `encode_prompt` returned for it, oldest first.
    """

    pipe: Any
    settings: ModelSettings
    memory: MemorySettings
    device: torch.device
    dtype: torch.dtype
    load_seconds: float
    own_scheduler: Any
    embeddings: OrderedDict[tuple[str, bool, int | None], tuple[Any, ...]] = field(default_factory=OrderedDict)


def load(settings: ModelSettings, memory: MemorySettings, device: str, cpu_threads: int | None = None) -> LoadedModel:
    """Load a model for inference; `device` is `cpu`, `cuda` or `mps`. Raises `ModelError`.

    `cpu_threads` holds for the whole process from here on; None leaves it to torch.
    """
    os.environ.update(OFFLINE)
    import diffusers
    import torch
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    started = time.perf_counter()
    _make_deterministic(device)
    if cpu_threads:
        torch.set_num_threads(cpu_threads)
    folder = inspect_folder(resolve(settings.source))
    pipeline_class = getattr(diffusers, folder.pipeline_class, None)
    if pipeline_class is None or not issubclass(pipeline_class, diffusers.DiffusionPipeline):
        raise ModelError(
            f"model {settings.name}: diffusers {diffusers.__version__} has no pipeline {folder.pipeline_class}; "
            "a newer diffusers may"
        )
    dtype = getattr(torch, memory.dtype)
    given: dict[str, Any] = {name: None for name in NOT_LOADED if name in pipeline_class._optional_components}
    if settings.vae_source:
        given["vae"] = _load_vae(settings, dtype)
    try:
        pipe = pipeline_class.from_pretrained(
            folder.path,
            dtype=dtype,
            variant=folder.variant,
            use_safetensors=True,
            local_files_only=True,
            **given,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(f"model {settings.name}: cannot be loaded: {_first_line(error)}") from error
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            # Frozen weights take other CPU kernels than trainable ones; always frozen means always the same bits.
            component.requires_grad_(False).eval()
    _restore_text_model(getattr(pipe, "text_encoder", None))
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    seconds = time.perf_counter() - started
    model = LoadedModel(pipe, settings, memory, torch.device(device), dtype, seconds, pipe.scheduler)
    hold(model, memory)
    return model


def hold(model: LoadedModel, memory: MemorySettings) -> None:
    """Switch a loaded model to other memory settings of the same precision; nothing is loaded again."""
    vae = getattr(model.pipe, "vae", None)
    for wanted, name in ((memory.vae_slicing, "slicing"), (memory.vae_tiling, "tiling")):
        switch = getattr(vae, f"{'enable' if wanted else 'disable'}_{name}", None)
        if switch is not None:
            switch()
    model.memory = memory


def _load_vae(settings: ModelSettings, dtype: torch.dtype) -> Any:
    import json

    import diffusers

    folder = resolve(settings.vae_source or "")
    class_name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name", "")
    vae_class = getattr(diffusers, class_name, None) if class_name.startswith("Autoencoder") else None
    if vae_class is None:
        raise ModelError(
            f"vae {settings.vae}: config.json names {class_name!r}; expected one of diffusers' autoencoders"
        )
    return vae_class.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)


def _restore_text_model(text_encoder: Any) -> None:
    """Let `clip_skip` work: diffusers asks for `text_encoder.text_model`, which transformers 5 merged into the model.

    Written past `nn.Module.__setattr__`, since a module that is its own child would be walked for ever.
    """
    if hasattr(text_encoder, "final_layer_norm") and not hasattr(text_encoder, "text_model"):
        text_encoder.__dict__["text_model"] = text_encoder


def _make_deterministic(device: str) -> None:
    import torch

    if device == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
