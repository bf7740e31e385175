"""What a model needs besides its weights, checked before anything is loaded."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from pipeline.loading.components import index_of
from pipeline.memory.planning.techniques import quantization_for
from pipeline.request import MemorySettings, ModelSettings
from pipeline.weights.inspection import ModelFiles

EXTRAS = {"gguf": "gguf", "torchao": "quantization", "bitsandbytes": "bitsandbytes"}
"""Packages that read quantised weights, and the extra of this program that installs each."""


def requirement_faults(files: ModelFiles, settings: ModelSettings, memory: MemorySettings) -> list[str]:
    """Sentences on what is missing: classes of diffusers, packages for quantised weights, the safety checker.

    And on what contradicts itself: quantising weights that are quantised already.
    """
    name = settings.name
    faults = [
        f"model {name}: {what} is a {class_name}, which diffusers {version('diffusers')} does not have; a newer one may"
        for what, class_name in _of_diffusers(files)
        if class_name and class_name not in _diffusers_names()
    ]
    for component in files.components:
        if component.quantization is None:
            continue
        gguf = files.path in component.files and files.path.suffix == ".gguf"
        package = "gguf" if gguf else component.quantization.partition(" ")[0]
        if package in EXTRAS and importlib.util.find_spec(package) is None:
            faults.append(
                f"model {name}: {component.name} is stored as {component.quantization}, for which the package "
                f"{package} is missing: pip install 'darkroom[{EXTRAS[package]}]'"
            )
        role = "denoiser" if component.name == files.denoiser else "encoder"
        asked = quantization_for(memory, role)
        if asked and component.stays_quantized and component.name != "vae":
            faults.append(
                f"model {name}: {component.name} is stored as {component.quantization} already; "
                f"leave out {role}_{asked}"
            )
    if settings.safety_checker and not (index_of(files)[1].get("safety_checker") or [None])[0]:
        faults.append(f"model {name}: has no safety checker; leave model.safety_checker at false")
    return faults


def _of_diffusers(files: ModelFiles) -> Iterator[tuple[str, str]]:
    yield "the pipeline", files.pipeline_class
    yield "scheduler", files.scheduler_class
    for component in files.components:
        if component.name in (files.denoiser, "vae"):
            yield component.name, component.class_name


@functools.cache
def _diffusers_names() -> frozenset[str]:
    """What diffusers has, without importing it: its `__init__.py` lists in quotes what it imports when asked."""
    found = importlib.util.find_spec("diffusers")
    return frozenset(re.findall(r'"(\w+)"', Path(str(found and found.origin)).read_text(encoding="utf-8")))
