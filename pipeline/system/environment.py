"""Facts about the environment of a run that pixels and costs depend on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


KERNEL_PACKAGES = {"flash": "flash-attn", "flash3": "flash-attn-3", "sage": "sageattention", "xformers": "xformers"}
"""Attention backends with kernels of their own, and the package that these come from."""

DETERMINISTIC_WORKSPACES = (":16:8", ":4096:8")
"""With these alone cuBLAS gives the same bits twice (its documentation, "Results reproducibility")."""


def runtime_facts(device: torch.device, speed: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that pixels can depend on besides the request; the fields of the record's `runtime`.

    `speed` is what `pipeline.loading.speed.prepare` returned: attention backend, memory format, compilation.
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
    kernels = [KERNEL_PACKAGES.get(speed["attention_backend"]), "triton" if speed["compile"] != "no" else None]
    for package in filter(None, kernels):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # as part of another one
            continue
    on_cuda = device.type == "cuda"
    if on_cuda and torch.version.cuda:
        versions["cuda"] = torch.version.cuda
    workspace = cublas_workspace()
    same_bits = torch.are_deterministic_algorithms_enabled() and workspace in DETERMINISTIC_WORKSPACES
    return {
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if on_cuda else None,
        **speed,
        "cpu_threads": torch.get_num_threads(),
        "deterministic": same_bits or not on_cuda,
        "attention_kernels": _attention_kernels() if on_cuda and speed["attention_backend"] == "native" else None,
        "cublas_workspace": workspace if on_cuda else None,
        "versions": versions,
    }


def cublas_workspace() -> str | None:
    """The cuBLAS workspace setting; None if there is no valid one."""
    value = os.environ.get("CUBLAS_WORKSPACE_CONFIG", "")
    return value if re.fullmatch(r"(:\d{1,9}:\d{1,9}){1,8}", value) else None


def _attention_kernels() -> str:
    """Those that torch may take for attention under the present flags; which one it takes follows from the tensors."""
    import torch

    names = ("flash", "mem_efficient", "cudnn", "math")
    return ", ".join(name for name in names if getattr(torch.backends.cuda, f"{name}_sdp_enabled")())
