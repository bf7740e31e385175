"""One bundle of alike images: encode, denoise, decode."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadPixels, DeviceLost, Interrupted, JobFailure, OutOfMemory
from pipeline.models.loading import LoadedModel
from pipeline.request import GeneratedImage, ImageRequest
from pipeline.schedulers import make_scheduler

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

MAX_EMBEDDINGS = 2048
"""Prompt embeddings kept per model; CLIP's are 0.1 to 0.3 MB each, so this stays within about 600 MB."""

_POSITIVE = ("prompt_embeds", "pooled_prompt_embeds")
_NEGATIVE = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")

# Errors after which a CUDA context gives errors, or wrong pictures, for ever.
_LOST = ("CUDA error", "device-side assert", "illegal memory access", "unspecified launch failure", "cudaErrorLaunchFailure")
_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
           "Invalid buffer size")  # fmt: skip


@dataclass(slots=True)
class PhaseSeconds:
    """Wall-clock seconds spent in each phase; summed over a run."""

    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0

    def add(self, other: PhaseSeconds) -> None:
        """Sum in place."""
        self.encode += other.encode
        self.denoise += other.denoise
        self.decode += other.decode


@dataclass(slots=True)
class BundleResult:
    """One entry per request, in order: the image, or why there is none."""

    outcomes: list[GeneratedImage | JobFailure]
    phases: PhaseSeconds = field(default_factory=PhaseSeconds)


def generate_bundle(
    model: LoadedModel, requests: Sequence[ImageRequest], should_stop: Callable[[], bool] = lambda: False
) -> BundleResult:
    """Make images that differ only in prompt, negative prompt and seed, in one batch.

    `should_stop` is asked between denoising steps; when it says yes, `Interrupted` is raised and the bundle is dropped.
    A bundle that fails is split until the failure stands alone, so one bad request costs only itself.
    Raises `DeviceLost` when only a new process can go on.
    """
    try:
        return _attempt(model, requests, should_stop)
    except (Interrupted, DeviceLost):
        raise
    except Exception as error:
        failure = _classify(error)
    # Outside the except block: a traceback that is still alive would keep the tensors that took the memory.
    _free_memory(model)
    if len(requests) == 1:
        return BundleResult([failure])
    middle = len(requests) // 2
    result = generate_bundle(model, requests[:middle], should_stop)
    rest = generate_bundle(model, requests[middle:], should_stop)
    result.outcomes += rest.outcomes
    result.phases.add(rest.phases)
    return result


def _attempt(
    model: LoadedModel, requests: Sequence[ImageRequest], should_stop: Callable[[], bool]
) -> BundleResult:
    import torch

    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    with torch.inference_mode():
        started = time.perf_counter()
        prompts = _encode(model, requests)
        encoded = time.perf_counter()
        latents, noise, scheduler = _denoise(model, requests, prompts, should_stop)
        denoised = time.perf_counter()
        pictures = _decode(model, latents)
        decoded = time.perf_counter()
    phases = PhaseSeconds(encoded - started, denoised - encoded, decoded - denoised)
    runtime = runtime_facts(model)
    outcomes: list[GeneratedImage | JobFailure] = []
    for index, request in enumerate(requests):
        picture = pictures[index]
        fault = _fault(picture)
        if fault:
            outcomes.append(BadPixels(fault))
            continue
        outcomes.append(
            GeneratedImage(
                request=request,
                pixels=_to_uint8(picture),
                pipeline_class=type(model.pipe).__name__,
                scheduler_class=type(scheduler).__name__,
                scheduler_config=dict(scheduler.config),
                noise_shape=tuple(noise[index].shape),
                noise_sha256=hashlib.sha256(noise[index].numpy().tobytes()).hexdigest(),
                batch_size=len(requests),
                batch_index=index,
                seconds=(decoded - started) / len(requests),
                runtime=runtime,
                peak_vram_bytes=torch.cuda.max_memory_allocated() if model.device.type == "cuda" else None,
                peak_rss_bytes=_peak_rss_bytes(),
            )
        )
    return BundleResult(outcomes, phases)


def _encode(model: LoadedModel, requests: Sequence[ImageRequest]) -> dict[str, Any]:
    """The prompt arguments of the pipeline call: embeddings, each distinct text encoded once and alone.

    Alone, because a text's embedding must not depend on its neighbours. Families whose `encode_prompt` does not follow
    the (positive, negative[, pooled, negative pooled]) order of Stable Diffusion get plain texts.
    """
    pipe = model.pipe
    accepted = inspect.signature(type(pipe).__call__).parameters
    guided = requests[0].guidance_scale > 1
    texts: dict[str, Any] = {"prompt": [request.prompt for request in requests]}
    if guided and "negative_prompt" in accepted:
        texts["negative_prompt"] = [request.negative_prompt for request in requests]
    if not _encodes_like_stable_diffusion(pipe):
        return texts
    names = [name for name in _POSITIVE if name in accepted]
    columns: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    negative_names = [name for name in _NEGATIVE if name in accepted] if guided else []
    columns |= {name: [] for name in negative_names}
    import torch

    for request in requests:
        positive = _embedding(model, request.prompt, None, request.clip_skip)
        for name, tensor in zip(names, positive, strict=True):
            columns[name].append(tensor)
        if negative_names:
            negative = _embedding(model, request.prompt, request.negative_prompt, request.clip_skip)
            for name, tensor in zip(negative_names, negative, strict=True):
                columns[name].append(tensor)
    return {name: torch.cat(tensors) for name, tensors in columns.items()}


def _encodes_like_stable_diffusion(pipe: Any) -> bool:
    encode = getattr(pipe, "encode_prompt", None)
    if encode is None:
        return False
    call = inspect.signature(type(pipe).__call__).parameters
    parameters = inspect.signature(encode).parameters
    wanted = {"prompt_embeds", "negative_prompt_embeds", "do_classifier_free_guidance", "negative_prompt"}
    masks = any("mask" in name for name in (*call, *parameters))
    return wanted <= set(parameters) and {"prompt_embeds", "negative_prompt_embeds"} <= set(call) and not masks


def _embedding(
    model: LoadedModel, prompt: str, negative_prompt: str | None, clip_skip: int | None
) -> tuple[torch.Tensor, ...]:
    """Positive (embeds[, pooled]) of a prompt, or, where `negative_prompt` is given, the negative ones."""
    negative = negative_prompt is not None
    key = (negative_prompt if negative_prompt is not None else prompt, negative, clip_skip)
    known = model.embeddings.get(key)
    if known is not None:
        model.embeddings.move_to_end(key)
        return known
    pipe = model.pipe
    parameters = inspect.signature(pipe.encode_prompt).parameters
    arguments: dict[str, Any] = {"prompt": prompt, "device": model.device, "num_images_per_prompt": 1}
    arguments["do_classifier_free_guidance"] = negative
    arguments |= {name: None for name in ("prompt_2", "prompt_3") if name in parameters}
    if "clip_skip" in parameters:
        arguments["clip_skip"] = clip_skip
    if negative:
        # An empty negative is passed as None, as a user of diffusers who gives none does: SDXL then uses zeros.
        arguments["negative_prompt"] = negative_prompt or None
        positive = _embedding(model, prompt, None, clip_skip)
        arguments.update(zip((name for name in _POSITIVE if name in parameters), positive, strict=True))
    encoded = pipe.encode_prompt(**arguments)
    chosen = encoded[1::2] if negative else encoded[0::2]
    value = tuple(tensor for tensor in chosen if tensor is not None)
    model.embeddings[key] = value
    while len(model.embeddings) > MAX_EMBEDDINGS:
        model.embeddings.popitem(last=False)
    return value


def _denoise(
    model: LoadedModel, requests: Sequence[ImageRequest], prompts: dict[str, Any], should_stop: Callable[[], bool]
) -> tuple[Any, list[torch.Tensor], Any]:
    """Latents where the decoder is ours to call, else finished pictures (n, height, width, 3) in 0..1; and the noise."""
    import torch

    pipe, first = model.pipe, requests[0]
    accepted = inspect.signature(type(pipe).__call__).parameters
    pipe.scheduler = scheduler = make_scheduler(first.scheduler, model.own_scheduler)
    noise: list[torch.Tensor] = []

    def check(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if should_stop():
            raise Interrupted("stopped between two denoising steps")
        return tensors

    arguments: dict[str, Any] = {
        **prompts,
        "num_inference_steps": first.steps,
        "guidance_scale": first.guidance_scale,
        "width": first.width,
        "height": first.height,
        "generator": [torch.Generator("cpu").manual_seed(request.seed) for request in requests],
        "output_type": "latent" if _decodes_like_stable_diffusion(pipe) else "np",
    }
    arguments["callback_on_step_end"] = check
    if "prompt" in prompts:
        arguments["clip_skip"] = first.clip_skip
    if should_stop():
        raise Interrupted("stopped before denoising")
    with _Float32Noise(pipe, noise):
        images = pipe(**{name: value for name, value in arguments.items() if name in accepted}).images
    if len(noise) != len(requests):
        raise JobFailure(f"{type(pipe).__name__} draws its noise in a way that cannot be recorded, so not reproduced")
    return images, noise, scheduler


class _Float32Noise:
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

        def draw_float32(shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None) -> Any:
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


def _decodes_like_stable_diffusion(pipe: Any) -> bool:
    """Whether latents are (n, channels, h, w) to be divided by the VAE's scaling factor, as in SD 1.x, 2.x, SDXL, SD 3."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    kind = isinstance(getattr(pipe, "vae", None), AutoencoderKL | AutoencoderTiny)
    return kind and type(pipe).__name__.startswith("StableDiffusion")


def _decode(model: LoadedModel, latents: Any) -> npt.NDArray[np.float32]:
    """Pictures as float32 (n, height, width, 3) in 0..1; NaN stays NaN."""
    import numpy as np
    import torch

    pipe = model.pipe
    if not isinstance(latents, torch.Tensor):
        return np.asarray(latents, dtype=np.float32)
    vae = pipe.vae
    # SDXL's VAE overflows in float16 and says so in its configuration; the pipeline itself upcasts it likewise.
    upcast = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    if upcast:
        vae.to(torch.float32)
    latents = latents.to(vae.dtype)
    mean, spread = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is not None and spread is not None:
        shape = (1, latents.shape[1], 1, 1)
        latents = latents * latents.new_tensor(spread).view(shape) / vae.config.scaling_factor
        latents = latents + latents.new_tensor(mean).view(shape)
    else:
        latents = latents / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0.0)
    pictures = vae.decode(latents, return_dict=False)[0]
    if upcast:
        vae.to(torch.float16)
    scaled: npt.NDArray[np.float32] = (pictures.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return scaled


def _fault(picture: npt.NDArray[np.float32]) -> str | None:
    import numpy as np

    if not np.isfinite(picture).all():
        return "the model returned NaN; try memory.dtype=float32, or another scheduler or VAE"
    if float(picture.max()) < 1 / 255:
        return "the model returned an all-black picture; try memory.dtype=float32 or another scheduler"
    return None


def _to_uint8(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    import numpy as np

    return (picture * 255).round().astype(np.uint8)


def runtime_facts(model: LoadedModel) -> dict[str, Any]:
    """What pixels can depend on besides the request; the fields of the record's `runtime`."""
    import diffusers
    import numpy
    import PIL
    import safetensors
    import tokenizers
    import torch
    import transformers

    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "safetensors": safetensors.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
    }
    on_cuda = model.device.type == "cuda"
    if on_cuda and torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    return {
        "device": model.device.type,
        "gpu": torch.cuda.get_device_name(model.device) if on_cuda else None,
        "attention_backend": os.environ.get("DIFFUSERS_ATTN_BACKEND", "native"),
        "cpu_threads": torch.get_num_threads(),
        "deterministic": not on_cuda or torch.are_deterministic_algorithms_enabled(),
        "versions": versions,
    }


def _peak_rss_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _classify(error: Exception) -> JobFailure:
    """The failure that an exception stands for; raises `DeviceLost` for those that no retry in this process survives."""
    import torch

    text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if isinstance(error, JobFailure):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(mark in str(error) for mark in _MEMORY):
        return OutOfMemory(f"out of memory: {text}; try memory=aggressive, batch_size=1 or a smaller size")
    if any(mark in str(error) for mark in _LOST):
        raise DeviceLost(f"the device no longer answers: {text}") from error
    return JobFailure(f"{type(error).__name__}: {text}")


def _free_memory(model: LoadedModel) -> None:
    import gc

    import torch

    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
