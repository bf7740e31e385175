"""Validates the configuration: one frozen, strict model, with all faults reported at once."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from jobs.config.faults import fault_lines
from jobs.config.hub_section import Hub
from jobs.config.sections import (
    AdapterSettings,
    Engine,
    Memory,
    Metadata,
    Model,
    Naming,
    Output,
    Prompts,
    Sampling,
    Settings,
)
from jobs.config.selection_section import CHOSEN, Selection
from jobs.config.values import Seeds
from pipeline.adapters.specs import InitSpec
from pipeline.errors import ConfigError
from pipeline.memory.planning.predicted_time import BUNDLE_IMAGES
from pipeline.ranges import BATCH_SIZE, BatchSize, Text, refused_by


def _dry_run_fault(value: object) -> str | None:
    return None if value in (True, False, "json") else "must be true, false or json"


def _batch_size_fault(value: object) -> str | None:
    fault = None if value == "auto" else BATCH_SIZE.fault(value)
    return fault and fault.replace("must be", "must be auto or")


class BatchConfig(Settings):
    """One composed configuration. With `-m` there are several; they become one plan."""

    prompts: Prompts
    model: Model
    selection: Selection = Selection()
    memory: Memory
    sampling: Sampling = Sampling()
    adapters: AdapterSettings = AdapterSettings()
    init: InitSpec = InitSpec()
    naming: Naming = Naming()
    metadata: Metadata = Metadata()
    engine: Engine = Engine()
    output: Output = Output()
    hub: Hub = Hub()
    prompt: Text | None = None
    name: Text | None = None
    seeds: Seeds = Field(default=[0])
    grid: dict[Text, Any] | None = None
    batch_size: Annotated[Literal["auto"] | int, refused_by(_batch_size_fault)] = "auto"
    bundle_images: BatchSize = BUNDLE_IMAGES
    dry_run: Annotated[Literal["json"] | bool, refused_by(_dry_run_fault)] = False
    resume: bool = True
    retry_failed: bool = False
    on_error: Literal["continue", "stop"] = "continue"
    on_end: Annotated[list[Text], Field(min_length=1)] | None = None
    verbose: bool = False
    quiet: bool = False

    @model_validator(mode="after")
    def _is_taken(self) -> BatchConfig:
        if self.prompt is not None and self.prompts.lines != [self.prompt]:
            raise ValueError(
                "prompt: is given beside other prompts; a file that has it needs `override /prompts: prompt`"
            )
        return self

    @property
    def leaves_model_open(self) -> bool:
        """Whether a model is chosen for each prompt."""
        return self.model.source == CHOSEN

    @property
    def title(self) -> str:
        """The batch's name: `name`, else the prompt set's."""
        return self.name or self.prompts.name or "batch"


RUN_KEYS = ("engine", "output", "hub", "dry_run", "resume", "retry_failed", "on_error", "on_end", "verbose", "quiet")
"""Keys that hold for a run as a whole, so a sweep may not vary them."""

SECRET_KEYS = ("hub.proxy", "hub.huggingface_url", "hub.civitai_url", "on_end")
"""Keys whose values no command and no profile keeps: passwords may stand in them."""


def parse_configs(configs: Sequence[Mapping[str, Any]]) -> list[BatchConfig]:
    """Validate every composed configuration; raises `ConfigError` with all faults of all of them."""
    parsed, faults = parse_sound_parts(configs)
    if faults:
        raise ConfigError(faults)
    return parsed


def parse_sound_parts(configs: Sequence[Mapping[str, Any]]) -> tuple[list[BatchConfig], list[str]]:
    """The valid parts of the configurations, and all faults, so that prompts and models can be checked too."""
    parsed: list[BatchConfig] = []
    faults: dict[str, None] = {}  # an ordered set: a sweep repeats what its configurations share
    for config in configs:
        try:
            parsed.append(BatchConfig.model_validate(config))
        except ValidationError as error:
            faults.update(dict.fromkeys(fault_lines(error, BatchConfig)))
            with contextlib.suppress(ValidationError):
                parsed.append(BatchConfig.model_validate(_without(config, error)))
    for key in RUN_KEYS:
        if len({repr(getattr(config, key)) for config in parsed}) > 1:
            faults[f"{key}: differs within the sweep; it applies to a whole run, so give it one value"] = None
    return parsed, list(faults)


def _without(config: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """A copy in which the values at fault are left to their defaults."""
    sound: dict[str, Any] = copy.deepcopy(dict(config))
    for fault in error.errors(include_url=False, include_input=False):
        place: Any = sound
        for part in fault["loc"]:
            inner = place.get(part) if isinstance(place, dict) else None
            if not isinstance(inner, dict) or part == fault["loc"][-1]:
                if isinstance(place, dict):
                    place.pop(part, None)
                break
            place = inner
    return sound
