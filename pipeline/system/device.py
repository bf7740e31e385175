"""Which device there is, found without importing torch, so that planning stays quick."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.request import DType


@dataclass(frozen=True, slots=True)
class Device:
    """A device kind as torch names it; `capability` is CUDA's (major, minor)."""

    kind: str
    name: str | None = None
    capability: tuple[int, int] | None = None

    @property
    def dtype(self) -> DType:
        """What suits the device: bfloat16 from Ampere on, float16 before and on Apple, float32 on CPUs."""
        if self.kind == "cuda":
            return "bfloat16" if self.capability and self.capability >= (8, 0) else "float16"
        return "float16" if self.kind == "mps" else "float32"


def find_device(wanted: str = "auto") -> Device:
    """The wanted device, or with `auto` the best one. Raises `ConfigError` if a wanted one is not there."""
    cuda = _cuda()
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    if wanted == "cuda" and cuda is None:
        raise ConfigError(
            "engine.device: cuda was asked for, but there is no usable NVIDIA GPU (driver missing, hidden by "
            "CUDA_VISIBLE_DEVICES, or a CPU-only torch); use engine.device=cpu"
        )
    if wanted == "mps" and not apple:
        raise ConfigError(
            "engine.device: mps was asked for, but this is no Apple silicon machine; use engine.device=cpu"
        )
    if wanted in ("auto", "cuda") and cuda is not None:
        return cuda
    return Device("mps") if apple and wanted in ("auto", "mps") else Device("cpu")


def _cuda() -> Device | None:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return None
    try:
        if importlib.metadata.version("torch").endswith("+cpu"):
            return None
    except importlib.metadata.PackageNotFoundError:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        # CUDA numbers devices fastest first and NVML by bus; with several unlike cards only the first counts here.
        first = (visible or "0").split(",")[0].strip()
        if first.isdigit():
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(first))
        else:
            handle = pynvml.nvmlDeviceGetHandleByUUID(first)
        name = pynvml.nvmlDeviceGetName(handle)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return Device("cuda", name if isinstance(name, str) else name.decode(), (major, minor))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
