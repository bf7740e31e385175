"""Speed settings of a loaded model: attention backend, memory format, compilation, step caches, files read ahead."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, JobFailure
from pipeline.loading.compiling import compiled
from pipeline.loading.component_weights import first_line
from pipeline.loading.speed_options import ATTENTION_BACKENDS, STEP_CACHES
from pipeline.memory.device.loaded_components import (
    components,
    disable_step_cache,
    is_placed_by_hooks,
    uncompile,
    used_while_denoising,
)
from pipeline.memory.device.loaded_model import LoadedModel
from pipeline.memory.device.offload_hooks import is_cast
from pipeline.storage.platform import will_read_in_order
from pipeline.system.device import host_memory

FREE_SHARE = 0.5
"""Of the free memory, what files read ahead may take: the page cache must not push out what is at work."""


def prepare(model: LoadedModel, images_alike: int = 0) -> dict[str, Any]:
    """Apply the model's `SpeedSettings`; returns the facts that pixels depend on. Cheap if nothing has changed.

    `images_alike`: how many images of this model, size and LoRAs are still to be made.
    """
    for module in (*components(model).values(), *used_while_denoising(model)):
        pin_attention(module, model.speed.attention)
    denoiser = components(model)[model.files.denoiser]
    done = "no"
    if is_placed_by_hooks(denoiser) or is_cast(denoiser):
        uncompile(denoiser)  # what swaps weights during the run cannot be traced
    else:
        done = compiled(denoiser, model, images_alike)
    return {
        "attention_backend": model.speed.attention,
        "channels_last": lies_channels_last(model, denoiser),
        "compile": done,
    }


def lies_channels_last(model: LoadedModel, denoiser: Any) -> bool:
    """Whether a denoiser's weights are in channels-last memory format, from loading on.

    Tensor cores want convolutions so.
    """
    return model.speed.channels_last and model.device.type == "cuda" and hasattr(denoiser, "conv_in")


def pin_attention(module: Any, backend: str) -> None:
    """Set the attention backend of one model and of no other.

    diffusers keeps the last one set, of any model, as the default of all models that have none of their own; so every
    model is given one, and the default is put back. Raises `ConfigError` where the backend cannot run.
    """
    if not hasattr(module, "set_attention_backend"):
        return
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Registry

    if backend not in ATTENTION_BACKENDS:
        raise ConfigError(f"engine.attention: no backend {backend!r}; there are {', '.join(ATTENTION_BACKENDS)}")
    default = Registry._active_backend
    try:
        module.set_attention_backend(ATTENTION_BACKENDS[backend])
    except (RuntimeError, ValueError, ImportError) as error:
        why = first_line(error)
        raise ConfigError(f"engine.attention={backend} cannot be used here: {why}; native always can") from error
    finally:
        Registry.set_active_backend(default)


@contextmanager
def step_cache(model: LoadedModel, name: str | None) -> Iterator[None]:
    """Within this block, the denoiser uses a step cache; afterwards it is always off and empty.

    Raises `JobFailure` for a denoiser that has no such cache.
    """
    if name is None:
        yield
        return
    denoiser: Any = getattr(model.pipe, model.files.denoiser, None)
    if not hasattr(denoiser, "enable_cache"):
        raise JobFailure(f"step_cache={name}: {type(denoiser).__name__} has no step caches; use step_cache=null")
    disable_step_cache(model)
    denoiser.enable_cache(_configuration(name))
    try:
        yield
    finally:
        disable_step_cache(model)


def _configuration(name: str) -> Any:
    import torch
    from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
    from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig

    if name == "first_block":
        return FirstBlockCacheConfig(threshold=0.05)
    if name == "taylor_seer":
        return TaylorSeerCacheConfig(taylor_factors_dtype=torch.float32)
    raise ConfigError(f"step_cache: there is no {name!r}; there are {', '.join(STEP_CACHES)}")


class ReadAhead:
    """Reads files that are needed soon into the page cache, on a thread; creates no tensors.

    Models must never be built on a second thread: libraries patch torch process-wide while they do.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._stopped = threading.Event()
        self.bytes_read = 0
        self._thread = threading.Thread(target=self._read, name="read ahead", daemon=True)
        self._thread.start()
        atexit.register(self.stop)  # no thread of Python's may outlive its interpreter

    def stop(self) -> None:
        """Stop before the next piece of a file."""
        self._stopped.set()
        self._thread.join()
        atexit.unregister(self.stop)

    def _read(self) -> None:
        piece = bytearray(8 * 2**20)
        for path in self._paths:
            try:
                with path.open("rb", buffering=0) as file:
                    will_read_in_order(file.fileno())
                    while not self._stopped.is_set() and self._has_room(len(piece)):
                        count = file.readinto(piece)
                        if not count:
                            break
                        self.bytes_read += count
            except OSError:  # whoever loads the file says what is wrong with it
                continue

    def _has_room(self, size: int) -> bool:
        return self.bytes_read + size <= FREE_SHARE * host_memory()[1]  # cached pages count as free
