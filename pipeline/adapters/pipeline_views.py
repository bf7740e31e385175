"""Pipelines of other classes over a model's components: image-to-image, ControlNet, and both together."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.adapters.find_weights import folder_now
from pipeline.adapters.identify_controlnet import CONTROLNET_CLASSES
from pipeline.errors import JobFailure
from pipeline.loading.component_weights import first_line
from pipeline.memory.device.loaded_components import controlnets
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.request import Adapters, ControlNetWeights
from pipeline.weights.families import Family, family_of


def view(model: LoadedModel, adapters: Adapters) -> Any:
    """The pipeline that makes pictures with these adapters; the model's own one where nothing else is needed.

    It is built by its constructor: `from_pipe` may move components to another precision. Built once per class, and
    brought up to date with components that were loaded again. Raises `JobFailure` if there is no such class.
    """
    import diffusers

    if not (adapters.init or adapters.controlnets):
        return model.pipe
    name = _class_name(model, adapters)
    modules = [controlnets(model)[one.sha256] for one in adapters.controlnets]
    pipe = model.views.get(name)
    if pipe is None or _nets(pipe) != modules:
        view_class = getattr(diffusers, name)
        accepted = inspect.signature(view_class.__init__).parameters
        # Of its configuration, settings such as `force_zeros_for_empty_prompt`; components stand there by class only.
        parts = {**model.pipe.config, **model.pipe.components, "add_watermarker": False}
        if modules:
            parts["controlnet"] = modules[0] if len(modules) == 1 else _together(modules)
        pipe = model.views[name] = view_class(**{key: part for key, part in parts.items() if key in accepted})
        pipe.set_progress_bar_config(disable=True)
    for key, part in model.pipe.components.items():
        if key in pipe.components and getattr(pipe, key) is not part:
            setattr(pipe, key, part)
    for module in modules:
        model.pool.to_device(module, model.device)
    return pipe


@contextmanager
def kept_precision(pipe: Any) -> Iterator[None]:
    """Within this block, a call of the pipeline leaves a float32 VAE in float32.

    SDXL's image-to-image encodes in float32 and then casts the VAE to the denoiser's type for good (diffusers 0.42,
    `prepare_latents`), which would round its weights to float16.
    """
    import torch

    vae = getattr(pipe, "vae", None)
    if vae is None or vae.dtype != torch.float32:
        yield
        return
    move = vae.to

    def keep(*arguments: Any, **options: Any) -> Any:
        places = [argument for argument in arguments if not isinstance(argument, torch.dtype)]
        options.pop("dtype", None)
        return move(*places, **options) if places or options else vae

    vars(vae)["to"] = keep
    try:
        yield
    finally:
        vars(vae).pop("to", None)  # offload hooks may have done so already


def load_controlnet(model: LoadedModel, one: ControlNetWeights) -> Any:
    """A ControlNet on the CPU, frozen, in the model's precision. Raises `JobFailure` if it is gone or damaged."""
    import diffusers

    _, variant = folder_now(one.source, one.sha256, "controlnet", one.name)
    controlnet_class = getattr(diffusers, CONTROLNET_CLASSES[_family(model).name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # FLUX.1's builds a class that is on its way out
            module = controlnet_class.from_pretrained(
                one.source, dtype=model.dtype, variant=variant, use_safetensors=True, local_files_only=True
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise JobFailure(f"controlnet {one.name}: cannot be loaded: {first_line(error)}") from error
    module.requires_grad_(False).eval()
    return module


def _class_name(model: LoadedModel, adapters: Adapters) -> str:
    if adapters.init and adapters.controlnets:
        name, what = _family(model).controlnet_img2img, "an init image and a ControlNet"
    elif adapters.init:
        name, what = _family(model).img2img, "an init image"
    else:
        name, what = _family(model).controlnet, "a ControlNet"
    if name is None:
        raise JobFailure(f"diffusers has no pipeline for {_family(model).label} that takes {what}")
    return name


def _family(model: LoadedModel) -> Family:
    family = family_of(model.files.pipeline_class)
    if family is None:
        raise JobFailure(f"{model.files.pipeline_class} takes no init image and no ControlNet")
    return family


def _nets(pipe: Any) -> list[Any]:
    """The ControlNets of a view, in order."""
    controlnet = pipe.components.get("controlnet")
    return [] if controlnet is None else [*getattr(controlnet, "nets", [controlnet])]


def _together(modules: list[Any]) -> Any:
    """Several ControlNets as one module, whose residuals are sums; each family has a class of its own for it."""
    import diffusers.models.controlnets as controlnets

    name = type(modules[0]).__name__.replace("ControlNetModel", "MultiControlNetModel")
    return getattr(controlnets, name)(modules)
