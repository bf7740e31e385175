"""Loads models onto a device. Local safetensors and GGUF files only; no hub is asked."""

from __future__ import annotations

import functools
import gc
import inspect
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import DarkroomError, ModelError
from pipeline.loading.component_weights import class_of, first_line, load_without_weights
from pipeline.loading.components import ComponentPart, index_of, parts_of, pool_key, scheduler_config
from pipeline.loading.conversion import convert, load_unconverted
from pipeline.loading.offline import import_libraries, without_deprecations
from pipeline.loading.precision import component_dtype
from pipeline.loading.requirements import requirement_faults
from pipeline.loading.speed import lies_channels_last
from pipeline.loading.unchanged import check_untouched, planned_files, was_written_over
from pipeline.memory.device.apply import apply_memory, release_model
from pipeline.memory.device.disk_weights import put_on_disk
from pipeline.memory.device.embedding_cache import EmbeddingCache
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.pool import Pool
from pipeline.memory.device.quantization import quantize
from pipeline.memory.planning.techniques import quantization_for
from pipeline.registry.resolve import resolve
from pipeline.request import MemorySettings, ModelSettings, SpeedSettings
from pipeline.system.architectures import check_served
from pipeline.system.failures import classify
from pipeline.system.units import duration_text, size_text
from pipeline.weights.inspection import ModelFiles, inspect_model

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("darkroom.loading")


def load(
    settings: ModelSettings,
    memory: MemorySettings,
    device: str,
    cpu_threads: int | None = None,
    pool: Pool | None = None,
    speed: SpeedSettings | None = None,
) -> LoadedModel:
    """Load a model for inference; `device` is `cpu`, `cuda` or `mps`. Raises `ModelError`, `OutOfMemory`, and
    `RunStopped` for a card that the installed torch does not support.

    `cpu_threads` holds for the whole process from here on; None leaves it to torch. Components that lie in the pool
    already, of this model or another, are taken from there.
    """
    import_libraries()
    import torch

    started = time.perf_counter()
    check_served(device)
    _prepare_card(device)
    if cpu_threads:
        torch.set_num_threads(cpu_threads)
    config = resolve(settings.config_source) if settings.config_source else None
    files = inspect_model(resolve(settings.source), config, ("vae",) if settings.vae_source else ())
    _check_requirements(files, settings, memory)
    pipeline_class = _pipeline_class(files, settings)
    _spare_libraries()
    model = LoadedModel(
        pipe=None,
        settings=settings,
        memory=memory,
        device=torch.device(device),
        dtype=getattr(torch, memory.dtype),
        load_seconds=0.0,
        own_scheduler=None,
        files=files,
        pool=pool if pool is not None else Pool(),
        embeddings=EmbeddingCache(),
        speed=speed or SpeedSettings(),
        read=planned_files(settings, memory, files),
        load_component=load_component,
    )
    components: dict[str, Any] = {}
    try:
        for name, part in parts_of(files, settings, memory).items():
            components[name] = _load_part(model, part)
        model.pipe = _put_together(pipeline_class, components, settings, index_of(files)[1])
        model.own_scheduler = model.pipe.scheduler
        check_untouched(model.read, settings.name)
        apply_memory(model, memory)
    except Exception:
        if model.pipe is not None:
            release_model(model)
        else:
            for component in components.values():
                model.pool.release(model.pool.key_of(component))  # nobody would, and the pool would keep it for ever
        components.clear()  # which the traceback would keep
        raise
    model.load_seconds = time.perf_counter() - started
    read, seconds = sum(state[0] for state in model.read.values() if state), duration_text(model.load_seconds)
    how = f"{size_text(read)}, {memory.dtype}, {', '.join(memory.techniques) or 'everything resident'}"
    _log.info("model %s loaded in %s: %s", settings.name, seconds, how)
    return model


@functools.cache
def _spare_libraries() -> None:
    """What the libraries made while they were imported never becomes garbage, and walking it takes 0.3 s each time;
    even counting what is frozen already takes 0.05 s, so it is done once a process and not asked for."""
    gc.freeze()


def load_component(model: LoadedModel, name: str) -> Any:
    """Load one component with the techniques of `model.memory`, through the pool; the pipeline is not changed."""
    _check_requirements(model.files, model.settings, model.memory)
    model.read = planned_files(model.settings, model.memory, model.files)
    return _load_part(model, parts_of(model.files, model.settings, model.memory)[name])


def check_mapped(model: LoadedModel) -> None:
    """Raise `WeightsChanged` if a model's memory-mapped files were overwritten in place since they were loaded.

    On the host weights may be mapped rather than read, so what is written over them is computed with.
    """
    if was_written_over(model.read):
        model.read = planned_files(model.settings, model.memory, model.files)


def _check_requirements(files: ModelFiles, settings: ModelSettings, memory: MemorySettings) -> None:
    for fault in requirement_faults(files, settings, memory):
        raise ModelError(fault)


def _load_part(model: LoadedModel, part: ComponentPart) -> Any:
    import torch

    name = model.settings.name
    if part.name == "scheduler":
        return class_of(part, name).from_config(scheduler_config(model.files, model.settings))
    if not part.weights:
        return load_without_weights(part, name)
    dtype = component_dtype(part.class_name, model.files.pipeline_class, part.configuration(), model.memory.dtype)
    kind = quantization_for(model.memory, part.role)
    offloaded = part.role == "encoder" or part.name == model.files.denoiser
    waits_on_disk = offloaded and model.memory.uses("disk_offload") and not kind

    def load() -> torch.nn.Module:
        with without_deprecations():
            module = load_unconverted(part, getattr(torch, dtype), name)
        if part.role == "denoiser" and lies_channels_last(model, module):
            # Before any technique is applied, so that with all techniques the device computes with the same kernels.
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        disk = put_on_disk(module, f"{model.settings.sha256[:12]}-{dtype}-{part.name}") if waits_on_disk else None
        try:
            convert(module, getattr(torch, dtype), disk)
            if kind:
                quantize(module, kind, model.device)
            check_untouched(model.read, name)  # before the pool keeps under a hash what was not it
        except DarkroomError:
            raise
        except Exception as error:
            raise classify(error) from error
        if kind:
            module.to("cpu")  # where 4 bits are made on the device: else all components would be there at once
        return module

    # A float8-cast denoiser is loaded again before it is anything else, so it is another one to the pool.
    cast_to_float8 = part.role == "denoiser" and model.memory.uses("fp8_storage")
    stored = ([kind] if kind else []) + ["fp8_storage"] * cast_to_float8
    held = model.files.component(part.name)
    expected_bytes = held.file_bytes if held else sum(file.stat().st_size for file in part.weights)
    return model.pool.get(pool_key(part, dtype, stored), load, expected_bytes)


def _pipeline_class(files: ModelFiles, settings: ModelSettings) -> Any:
    import diffusers

    pipeline_class = getattr(diffusers, files.pipeline_class, None)
    if pipeline_class is None or not issubclass(pipeline_class, diffusers.DiffusionPipeline):
        raise ModelError(
            f"model {settings.name}: diffusers {diffusers.__version__} has no pipeline {files.pipeline_class}; "
            "a newer diffusers may"
        )
    return pipeline_class


def _put_together(
    pipeline_class: Any, components: Mapping[str, Any], settings: ModelSettings, index: Mapping[str, Any]
) -> Any:
    accepted = inspect.signature(pipeline_class.__init__).parameters
    options = {name: value for name, value in index.items() if name in accepted and not isinstance(value, list)}
    options["requires_safety_checker"] = settings.safety_checker
    options["add_watermarker"] = False  # SDXL's invisible watermark, which diffusers adds wherever its package is
    absent = {name: None for name in index if isinstance(index[name], list)}
    absent |= dict.fromkeys(pipeline_class._optional_components)
    arguments = {**absent, **options, **components}
    try:
        pipe = pipeline_class(**{name: value for name, value in arguments.items() if name in accepted})
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"model {settings.name}: cannot be put together: {first_line(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _prepare_card(device: str) -> None:
    """Make a card compute the same bits twice, and let cuBLAS and cuDNN take what they need of it before weights do."""
    import torch

    if torch.device(device).type != "cuda":
        return
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling what is about to be written anyway would cost a pass over memory each time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        small = torch.ones(1, 8, 8, 8, device=device)
        torch.nn.functional.conv2d(small @ small, small)
    except RuntimeError as error:
        raise classify(error) from error
