"""The memory plan of each level for each model profile: for this machine's card, or for a card of each level's size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jobs.config.batch_config import BatchConfig
from jobs.config.model_profiles import profile_files, read_profile
from jobs.config.option_files import read_option
from jobs.config.option_folders import shipped_folder
from jobs.planning.memory_and_batch_size import Fitting, requested_memory
from jobs.planning.plan import PlanSettings
from jobs.planning.validation import Batch
from pipeline.errors import DarkroomError
from pipeline.memory.planning.choose_techniques import CLASSES, MemoryPlan, choose, least_text
from pipeline.memory.planning.estimate import Shape, Sizes
from pipeline.memory.planning.rates import rates_of
from pipeline.memory.planning.techniques import TECHNIQUES
from pipeline.registry.resolve import is_remote, resolve
from pipeline.request import DEFAULT_GUIDANCE
from pipeline.system.device import Device, DeviceMemory, device_memory
from pipeline.system.units import GIB, size_text
from pipeline.weights.families import FAMILIES, Family
from pipeline.weights.inspection import ModelFiles, inspect_model

NOMINAL = Device("cuda", "a card of each level's class (24, 12, 8, 4 GB)", (8, 0))
"""Stands in where there is no GPU: of the generation from which on bfloat16 is fast (Ampere)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A model profile with the sizes of its components; `installed` means that the weights are on this machine."""

    name: str
    family: str
    installed: bool
    sizes: Sizes
    shape: Shape
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Forecast:
    """The memory plan of one level for one profile; `problem` if there can be none."""

    profile: str
    level: str
    choice: MemoryPlan | None
    problem: str = ""

    @property
    def text(self) -> str:
        """A short text: peak and techniques, or what is missing."""
        if self.choice is None:
            return self.problem
        if not self.choice.fits:
            return f"needs {least_text(self.choice.least_bytes)}"
        labels = [TECHNIQUES[name].label for name in self.choice.memory.techniques if name != "half_precision"]
        return f"{size_text(self.choice.estimate.peak_bytes)}, {', '.join(labels) or 'everything resident'}"


def profiles() -> tuple[list[Profile], list[str]]:
    """The model profiles, ours and the user's own, and a line for each that cannot be judged. Headers are read, never
    weights.
    """
    found: list[Profile] = []
    faults: list[str] = []
    for path in profile_files():
        try:
            if document := read_profile(path):
                found.append(_profile(path.stem, document))
        except DarkroomError as error:
            faults.append(f"{path.stem}: {error}")
    return found, faults


def levels() -> dict[str, dict[str, Any]]:
    """The memory levels in `conf/memory` by name, the one with most memory first, completed from `memory_base.yaml`."""
    conf = shipped_folder()
    base = read_option(conf / "memory_base.yaml")
    documents = {path.stem: _over(base, read_option(path)) for path in (conf / "memory").glob("*.yaml")}
    return {name: documents[name] for name in ("auto", *CLASSES) if name in documents}


def forecasts(
    found: list[Profile], asked: Mapping[str, dict[str, Any]], device: Device, memory: DeviceMemory
) -> Iterator[Forecast]:
    """Every profile at every level. Without a GPU, `auto` is estimated for this machine, others for their card."""
    for profile in found:
        for level, document in asked.items():
            nominal = device.kind != "cuda" and (level in CLASSES or document.get("budget_gb") is not None)
            size = CLASSES.get(level, int((document.get("budget_gb") or 0) * GIB))
            there = DeviceMemory(size, size, memory.host_total_bytes, memory.host_free_bytes) if nominal else memory
            yield _forecast(profile, level, document, NOMINAL if nominal else device, there)


def on_a_card(batch: Batch) -> list[PlanSettings]:
    """The plans of a batch for a card of the requested size; empty if no size is requested."""
    host = device_memory(batch.device)
    plans: list[PlanSettings] = []
    for config, plan in zip(batch.parts, batch.plans, strict=True):
        budget_gb, level = config.memory.budget_gb, config.memory.level
        if budget_gb is None and level not in CLASSES:
            return []
        size = CLASSES[level] if budget_gb is None else int(budget_gb * GIB)
        card = DeviceMemory(size, size, host.host_total_bytes, _host_bytes(config, host))
        asked = requested_memory(config, NOMINAL)
        fit = Fitting(config, batch.models[plan.model], asked, NOMINAL, card, timings=None)
        plans.append(replace(plan, memory=asked, fit=fit))
    return plans


def beside_card(batch: Batch) -> str:
    """The main memory that `on_a_card` assumes, in words."""
    here = device_memory(batch.device)
    sizes = dict.fromkeys(size_text(_host_bytes(config, here)) for config in batch.parts)
    return f"with {' or '.join(sizes)} of main memory free (memory.host_gb)"


def _host_bytes(config: BatchConfig, here: DeviceMemory) -> int:
    host_gb = config.memory.host_gb
    return here.host_free_bytes if host_gb is None else int(host_gb * GIB)


def _forecast(profile: Profile, level: str, document: dict[str, Any], device: Device, memory: DeviceMemory) -> Forecast:
    try:
        config = BatchConfig.model_validate(
            {"prompts": {"lines": [""]}, "model": profile.document, "memory": document, "sampling": {}}
        )
        settings = requested_memory(config, device, family=profile.sizes.family)
    except (DarkroomError, ValueError) as error:
        return Forecast(profile.name, level, None, str(error).splitlines()[0])
    return Forecast(
        profile.name, level, choose(settings, profile.sizes, profile.shape, memory, device.kind, rates_of(device))
    )


def _profile(name: str, document: dict[str, Any]) -> Profile:
    family, files = _weights(document)
    sampling = document.get("sampling") or {}
    native = (files.width, files.height) if files else (family.size, family.size) if family else (1024, 1024)
    guidance = sampling.get("guidance_scale", DEFAULT_GUIDANCE)
    counts = {part: billions * 1e9 for part, billions in (document.get("parameters") or {}).items()}
    if files is not None:
        sizes = Sizes.from_files(files)
    elif family is not None:
        sizes = Sizes.published(family, counts)
    else:
        raise DarkroomError("its weights are not on this machine, and it names no family whose sizes are published")
    shape = Shape(sampling.get("width") or native[0], sampling.get("height") or native[1], 1, guidance > 1)
    label = family.label if family else files.pipeline_class if files else ""
    return Profile(name, label, files is not None, sizes, shape, document)


def _weights(document: dict[str, Any]) -> tuple[Family | None, ModelFiles | None]:
    source, family = str(document["source"]), FAMILIES.get(str(document.get("family")))
    if is_remote(source):
        return family, None
    config = document.get("config")
    files = inspect_model(resolve(source), resolve(str(config)) if config else None)
    return FAMILIES.get(str(files.family), family), files


def _over(base: dict[str, Any], level: dict[str, Any]) -> dict[str, Any]:
    """A level's own keys over those of all levels, as Hydra composes them."""
    own = {key: value for key, value in level.items() if key != "defaults"}
    return {**base, **own, "techniques": {**base["techniques"], **own.get("techniques", {})}}
