"""Finds the device and its memory without importing torch, so that planning stays fast."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError

if TYPE_CHECKING:  # its import would delay the first worker
    from pipeline.request import DeviceChoice, DeviceKind, DType


@dataclass(frozen=True, slots=True)
class Device:
    """A device kind as torch names it; `capability` is CUDA's (major, minor)."""

    kind: DeviceKind
    name: str | None = None
    capability: tuple[int, int] | None = None

    @property
    def dtype(self) -> DType:
        """The dtype that suits the device: bfloat16 from Ampere on, float16 before and on Apple, float32 on CPUs."""
        if self.kind == "cuda":
            return "bfloat16" if self.capability and self.capability >= (8, 0) else "float16"
        return "float16" if self.kind == "mps" else "float32"


def find_device(wanted: DeviceChoice = "auto") -> Device:
    """The requested device, or with `auto` the best one. Raises `ConfigError` if the requested one is not available."""
    cuda = _cuda()
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    if wanted == "cuda" and cuda is None:
        raise ConfigError(
            "engine.device: cuda was requested, but there is no usable NVIDIA GPU (driver missing, hidden by "
            "CUDA_VISIBLE_DEVICES, or a CPU-only torch); use engine.device=cpu"
        )
    if wanted == "mps" and not apple:
        raise ConfigError(
            "engine.device: mps was requested, but this is no Apple silicon machine; use engine.device=cpu"
        )
    if wanted in ("auto", "cuda") and cuda is not None:
        return cuda
    return Device("mps") if apple and wanted in ("auto", "mps") else Device("cpu")


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes on the device and on the host, total and free now. On a CPU the device is the host."""

    total_bytes: int
    free_bytes: int
    host_total_bytes: int
    host_free_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as its driver sees it. `index` is the driver's, by bus, as `nvidia-smi` shows it."""

    index: int
    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    driver: str


def device_memory(device: Device) -> DeviceMemory:
    """The memory of the device and the host. Device memory that other processes use, even idle ones, is not free."""
    host_total, host_free = host_memory()
    total, free = host_total, host_free
    if device.kind == "cuda":
        with nvml() as pynvml:
            found = pynvml.nvmlDeviceGetMemoryInfo(_chosen(pynvml))
            total, free = int(found.total), int(found.free)
    return DeviceMemory(total, free, host_total, host_free)


def host_memory() -> tuple[int, int]:
    """Bytes of main memory that this process may use, total and free now; a container's limit counts."""
    import psutil

    machine = psutil.virtual_memory()
    total, free = int(machine.total), int(machine.available)
    for limit, used in _cgroup_limits(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")):
        total, free = min(total, limit), min(free, max(0, limit - used))
    return total, free


def gpus() -> list[Gpu]:
    """All GPUs that NVIDIA's driver shows, whether or not torch can use them; none where there is no driver."""
    import pynvml

    try:
        with nvml():
            driver = pynvml.nvmlSystemGetDriverVersion()
            return [_gpu(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _gpu(pynvml: Any, index: int, driver: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    capability = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    name = pynvml.nvmlDeviceGetName(handle)
    return Gpu(index, name, tuple(capability), int(memory.total), int(memory.free), driver)


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
        with nvml():
            handle = _chosen(pynvml)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            return Device("cuda", pynvml.nvmlDeviceGetName(handle), (major, minor))
    except pynvml.NVMLError:
        return None


@contextmanager
def nvml() -> Iterator[Any]:
    import pynvml

    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def cuda_variables() -> dict[str, str]:
    """Environment variables with which CUDA numbers cards as the driver does, by bus, and puts the planned card first.

    By itself CUDA puts the fastest first, so that of unlike cards another one would be planned for than is used.
    """
    variables = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if os.environ.get("CUDA_VISIBLE_DEVICES") is None and _cuda() is not None:
        with nvml() as pynvml:
            if pynvml.nvmlDeviceGetCount() > 1:
                variables["CUDA_VISIBLE_DEVICES"] = pynvml.nvmlDeviceGetUUID(_chosen(pynvml))
    return variables


def _chosen(pynvml: Any) -> Any:
    """The first card that `CUDA_VISIBLE_DEVICES` names, by number or UUID; else that of the most memory."""
    first = (os.environ.get("CUDA_VISIBLE_DEVICES") or "").split(",")[0].strip()
    if first.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(first))
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    if not first:
        return max(handles, key=lambda handle: int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))
    # CUDA takes the beginning of a UUID for the whole; parts of a card (MIG) are not among the cards.
    named = [handle for handle in handles if pynvml.nvmlDeviceGetUUID(handle).startswith(first)]
    return named[0] if named else pynvml.nvmlDeviceGetHandleByUUID(first)


def _cgroup_limits(root: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of every control group of version 1 or 2 that this process is in and that sets a limit.

    What is used counts without the file cache that the kernel gives back at once. A container sees its own group as
    the root.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None:
                yield limit, max(0, used - _inactive_cache(folder / "memory.stat"))
            if folder == base:
                break


def _number(path: Path) -> int | None:
    """A number in a file; None if there is none, as where the limit is `max`."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _inactive_cache(path: Path) -> int:
    try:
        fields = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return 0
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))
