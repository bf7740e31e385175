"""The environment of a run, as far as pixels and costs depend on it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def runtime_facts(device: torch.device, speed: Mapping[str, Any]) -> dict[str, Any]:
    """What pixels can depend on besides the request; the fields of the record's `runtime`.

    `speed` is what `pipeline.speed.prepare` returned: attention backend, memory format, compilation.
    """
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
    on_cuda = device.type == "cuda"
    if on_cuda and torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    return {
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if on_cuda else None,
        **speed,
        "cpu_threads": torch.get_num_threads(),
        "deterministic": not on_cuda or torch.are_deterministic_algorithms_enabled(),
        "versions": versions,
    }


def peak_rss_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
