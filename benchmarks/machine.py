"""What the figures were measured on: hardware and versions; no host, no user, no path."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "torch", "diffusers", "transformers", "numpy", "pillow", "hydra-core", "pydantic", "duckdb", "pyarrow",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """CPU, memory, GPU, how busy the machine is already, and versions."""
    load = psutil.getloadavg()
    return {
        "cpu": _cpu(),
        "cores": _cores(),
        "ram_bytes": psutil.virtual_memory().total,
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "load_before": round(load[0], 2),
        "versions": {"python": platform.python_version(), "darkroom": _darkroom(), **_versions()},
    }


def machine_line(facts: dict[str, Any]) -> str:
    """The same in one line for people."""
    versions = facts["versions"]
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['ram_bytes'] / 2**30:.0f} GiB RAM, "
        f"{facts['gpu'] or 'no GPU'}, load {facts['load_before']} before; "
        f"Python {versions['python']}, torch {versions.get('torch')}, diffusers {versions.get('diffusers')}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpu() -> str | None:
    from pipeline.system.device import find_device

    return find_device().name


def _darkroom() -> str:
    from pipeline.version import VERSION

    return VERSION


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
