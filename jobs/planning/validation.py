"""Validates the whole input of a batch before anything starts."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.config.batch_config import BatchConfig, parse_sound_parts
from jobs.planning.expand import Expansion
from jobs.planning.grid import Grid
from jobs.planning.known_models import KnownModel, known_model
from jobs.planning.memory_and_batch_size import Fitting, requested_memory
from jobs.planning.missing_weights import Lacking, Needed, NotHere
from jobs.planning.plan import PlanSettings
from jobs.planning.resolve_adapters import AdapterSource
from jobs.prompts.lines import PromptSource
from jobs.prompts.open_prompts import open_prompts
from jobs.prompts.templates import Wildcards
from pipeline.errors import ConfigError, DarkroomError
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.naming import NamingSettings
from pipeline.metadata.saving import SaveSettings
from pipeline.request import ModelSettings
from pipeline.system.device import Device, device_memory, find_device


@dataclass(frozen=True, slots=True)
class Batch:
    """A validated batch.

    `missing` is what it names and is not here, which only a dry run takes, where the model's family is known.
    """

    configs: list[BatchConfig]
    expansions: list[Expansion]
    plans: list[PlanSettings]
    saves: tuple[SaveSettings, ...]
    device: Device
    models: dict[ModelSettings, KnownModel]
    missing: tuple[Needed, ...] = ()

    @property
    def first(self) -> BatchConfig:
        """The first configuration, for keys that apply to the whole run."""
        return self.configs[0]


class _Validation:
    """Goes through the configurations of a batch, noting faults, each once and in the order found."""

    def __init__(
        self, first: BatchConfig, folders: Sequence[Path], faults: Sequence[str], place_of_lines: str | None
    ) -> None:
        self.faults = dict.fromkeys(faults)
        self.expansions: list[Expansion] = []
        self.plans: list[PlanSettings] = []
        self.saves: list[SaveSettings] = []
        self.models: dict[str, KnownModel | None] = {}
        self.missing: dict[Needed, None] = {}
        self.is_planned = True
        self._lacking = Lacking()
        self.device = find_device(first.engine.device)
        self._memory = device_memory(self.device)
        self._place_of_lines = place_of_lines
        self._dry_run = bool(first.dry_run)
        self._wildcards = Wildcards([folder / "wildcards" for folder in folders])
        self._prompt_folders = [folder / "prompts" for folder in folders]
        self._sources: dict[str, PromptSource] = {}  # a sweep asks for the same file again and again

    def look_at(self, config: BatchConfig, index: int) -> None:
        """Check one configuration, as far as its parts are sound."""
        with self._noting():
            self.saves.append(_save_settings(config))
            _check_privacy(config)
        can_be_planned = self._can_be_planned(config)
        known = self._model(config) if can_be_planned else None
        source = asked = None
        with self._noting():
            source = self._prompts(config)
        if not can_be_planned:
            return
        with self._noting():
            asked = requested_memory(config, self.device, known)
        if known is None or source is None or asked is None:
            return
        adapters = None if known.files is None else AdapterSource(config, known.files)
        fit = Fitting(config, known, asked, self.device, self._memory)
        self.plans.append(
            PlanSettings(known.settings, asked, fit, config.bundle_images, config.resume, config.retry_failed)
        )
        with self._noting():
            self.expansions.append(
                Expansion(
                    config,
                    index,
                    source,
                    self._wildcards,
                    known.settings,
                    asked,
                    known.fallback,
                    adapters,
                    self._place_of_lines,
                )
            )
        if adapters is not None:
            known.loras.update(adapters.loras)

    def _can_be_planned(self, config: BatchConfig) -> bool:
        """Whether all that this configuration names is here, or enough is known of it for a dry run."""
        lacking: list[Needed] = []
        with self._noting():
            lacking = self._lacking.of(config)
        if not lacking:
            return True
        self.missing.update(dict.fromkeys(lacking))
        nouns = {one.noun for one in lacking}
        if self._dry_run and config.model.family and "model" in nouns and "tiny VAE" not in nouns:
            return True
        self.is_planned = False
        with self._noting():
            Grid(config.grid)  # a slip in it is told now, not after hours of fetching
        if not config.hub.auto_download:
            self.faults.update(dict.fromkeys(one.fault() for one in lacking))
        return False

    def _model(self, config: BatchConfig) -> KnownModel | None:
        key = config.model.model_dump_json()
        if key not in self.models:
            self.models[key] = None
            with self._noting():
                self.models[key] = known_model(config.model, dry_run=self._dry_run)
        return self.models[key]

    def _prompts(self, config: BatchConfig) -> PromptSource:
        text = config.prompts.model_dump_json()
        if text not in self._sources:
            self._sources[text] = open_prompts(config.prompts, self._prompt_folders)
        return self._sources[text]

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            self.faults.update(dict.fromkeys(error.faults))
        except DarkroomError as error:
            self.faults[str(error)] = None


def validate(configs: Sequence[Mapping[str, Any]], folders: Sequence[Path], place_of_lines: str | None = None) -> Batch:
    """Check configurations, prompts, models, adapters, naming and the output folder.

    `place_of_lines` is what messages call `prompts.lines`; None names the prompt set.

    Raises `ConfigError` with every fault, and `NotHere` if there is none but that something is to be fetched first.
    """
    parsed, faults = parse_sound_parts(configs)
    if not parsed:
        raise ConfigError(faults)
    first = parsed[0]
    found = _Validation(first, folders, faults, place_of_lines)
    for index, config in enumerate(parsed):
        found.look_at(config, index)
    output_dir = Path(first.output.dir)
    absent = [folder for folder in (output_dir, *output_dir.parents) if not os.path.lexists(folder)]
    found.faults.update(dict.fromkeys(_output_faults(output_dir, dry_run=bool(first.dry_run))))
    if found.faults or not found.is_planned:
        for folder in absent:  # made to find out whether it can be; a refused batch leaves nothing behind
            with contextlib.suppress(OSError, ValueError):
                folder.rmdir()
        raise ConfigError(list(found.faults)) if found.faults else NotHere(list(found.missing), first)
    models = {known.settings: known for known in found.models.values() if known is not None}
    return Batch(
        configs=parsed,
        expansions=found.expansions,
        plans=found.plans,
        saves=tuple(found.saves),
        device=found.device,
        models=models,
        missing=tuple(found.missing),
    )


def _save_settings(config: BatchConfig) -> SaveSettings:
    naming = config.naming.model_dump()
    naming["components"] = tuple(naming["components"])
    return SaveSettings(
        naming=NamingSettings(**naming),
        metadata=MetadataSettings(**config.metadata.model_dump()),
        output_format=config.output.format,
    )


def _check_privacy(config: BatchConfig) -> None:
    naming = config.naming
    telling = naming.scheme == "descriptive" or (naming.scheme == "custom" and "excerpt" in naming.components)
    if config.metadata.profile == "private" and telling:
        raise ConfigError(
            f"naming.scheme: {naming.scheme} puts the prompt into file names, which metadata=private keeps out of the "
            "files; use naming=guid"
        )


def _output_faults(output_dir: Path, *, dry_run: bool) -> list[str]:
    """Whether images can be written; found out by writing, since permission bits do not tell the whole truth."""
    try:
        if output_dir.exists() and not output_dir.is_dir():
            return [f"output.dir: {output_dir} is a file; give a folder"]
        if dry_run:
            return []
        probe = output_dir / f".probe.{secrets.token_hex(4)}.tmp"
        output_dir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        return [f"output.dir: {output_dir} cannot be written ({reason}); give another folder"]
    return []
