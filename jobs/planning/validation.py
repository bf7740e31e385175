"""Validates the whole input of a batch before anything starts."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.config.batch_config import BatchConfig, parse_sound_parts
from jobs.config.model_profiles import profile_called
from jobs.config.sections import Model
from jobs.planning.expand import Expansion
from jobs.planning.grid import Grid
from jobs.planning.known_models import KnownModel, known_model
from jobs.planning.memory_and_batch_size import Fitting, requested_memory
from jobs.planning.missing_weights import Lacking, Needed, NotHere
from jobs.planning.plan import PlanSettings
from jobs.planning.resolve_adapters import AdapterSource
from jobs.planning.tagged_loras import TaggedLoras
from jobs.prompts.lines import PromptSource
from jobs.prompts.open_prompts import open_prompts
from jobs.prompts.templates import Wildcards
from pipeline.errors import ConfigError, DarkroomError
from pipeline.metadata.metadata_settings import MetadataSettings
from pipeline.metadata.naming import NamingSettings
from pipeline.metadata.saving import SaveSettings
from pipeline.request import ModelSettings
from pipeline.system.device import Device, device_memory, find_device

if TYPE_CHECKING:
    from jobs.planning.choosing import Ask, Choosing, ChosenPrompt


@dataclass(frozen=True, slots=True)
class Batch:
    """A validated batch.

    `parts` are the configurations with their models; where those are chosen, there are several of one of `configs`.
    `missing` is what it names and is not here, which only a dry run takes, where the model's family is known. `chosen`
    are the prompts for which something was chosen, `warnings` what there is to say of that.
    """

    configs: list[BatchConfig]
    parts: list[BatchConfig]
    expansions: list[Expansion]
    plans: list[PlanSettings]
    saves: tuple[SaveSettings, ...]
    device: Device
    models: dict[ModelSettings, KnownModel]
    missing: tuple[Needed, ...] = ()
    chosen: tuple[ChosenPrompt, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def first(self) -> BatchConfig:
        """The first configuration, for keys that apply to the whole run."""
        return self.configs[0]


class _Validation:
    """Goes through the configurations of a batch, noting faults, each once and in the order found."""

    def __init__(self, first: BatchConfig, folders: Sequence[Path], faults: Sequence[str], ask: Ask | None) -> None:
        self.faults = dict.fromkeys(faults)
        self.expansions: list[Expansion] = []
        self.parts: list[BatchConfig] = []
        self.plans: list[PlanSettings] = []
        self.saves: list[SaveSettings] = []
        self.models: dict[str, KnownModel] = {}
        self.missing: dict[Needed, None] = {}
        self.is_planned = True
        self._lacking = Lacking()
        self.device = find_device(first.engine.device)
        self._memory = device_memory(self.device)
        self._dry_run = bool(first.dry_run)
        self._folders = folders
        self._wildcards = Wildcards([folder / "wildcards" for folder in folders])
        self._prompt_folders = [folder / "prompts" for folder in folders]
        self._sources: dict[str, PromptSource] = {}  # a sweep asks for the same file again and again
        self._tagged: dict[str | None, TaggedLoras] = {}
        self._ask, self._first = ask, first

    def look_at(self, config: BatchConfig, index: int, place_of_lines: str | None) -> None:
        """Check one configuration, as far as its parts are sound."""
        with self._noting():
            self.saves.append(_save_settings(config))
            _check_privacy(config)
        if not config.leaves_model_open:
            self._plan(config, index, place_of_lines)
            return
        with self._noting():
            requested_memory(config, self.device)
        with self._noting():
            if own := self._model_of_set(config, place_of_lines):
                self._plan(config.model_copy(update={"model": own}), index, place_of_lines)
                return
            if config.selection.mode == "manual":
                raise ConfigError("model: is left open, and selection=manual chooses nothing; name one: model=NAME")
            for part in self._choosing.parts(config, self._prompts(config), place_of_lines):
                self._plan(part.config, index, place_of_lines, part.lines)

    @cached_property
    def _choosing(self) -> Choosing:
        from jobs.planning.choosing import Choosing  # what most plans do without, for it takes a tenth of a second
        from jobs.planning.offers import BatchOffers
        from jobs.planning.understanding import Understanding

        understanding = Understanding(quiet=self._first.quiet)
        offered = partial(BatchOffers, self._folders, self.device, self._memory, understanding)
        return Choosing(offered, self._identified, self._wildcards, Path(self._first.output.dir), self._ask)

    def _model_of_set(self, config: BatchConfig, place_of_lines: str | None) -> Model | None:
        """The model that a prompt set was written for; not where its lines are somebody else's."""
        if config.prompts.model is None or place_of_lines is not None:
            return None
        return profile_called(config.prompts.model, self._folders, "prompts.model")

    def _plan(
        self, config: BatchConfig, index: int, place_of_lines: str | None, lines: PromptSource | None = None
    ) -> None:
        """Check a configuration whose model is named; `lines` are its prompts, None for those of its prompt set."""
        can_be_planned = self._can_be_planned(config)
        known = self._model(config.model, self._noting()) if can_be_planned else None
        source = asked = None
        with self._noting():
            source = self._prompts(config) if lines is None else lines
        if not can_be_planned:
            return
        with self._noting():
            asked = requested_memory(config, self.device, known)
        if known is None or source is None or asked is None:
            return
        adapters = None if known.files is None else AdapterSource(config, known.files)
        family = known.family.name if known.family else None
        tagged = self._tagged.setdefault(family, TaggedLoras(family)) if config.adapters.tags else None
        fit = Fitting(config, known, asked, self.device, self._memory)
        self.parts.append(config)
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
                    place_of_lines,
                    tagged,
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

    def _model(self, profile: Model, problems: contextlib.AbstractContextManager[object]) -> KnownModel | None:
        """The model of a profile, identified once; None if it cannot be used, which `problems` takes."""
        key = profile.model_dump_json()
        if key not in self.models:
            with problems:
                self.models[key] = known_model(profile, dry_run=self._dry_run)
        return self.models.get(key)

    def _identified(self, profile: Model) -> KnownModel | None:
        """The model of a profile that may be chosen; that it cannot be used is nobody's fault."""
        return self._model(profile, contextlib.suppress(DarkroomError))

    def _prompts(self, config: BatchConfig) -> PromptSource:
        text = config.prompts.model_dump_json()
        if text not in self._sources:
            self._sources[text] = open_prompts(config.prompts, self._prompt_folders, config.prompt)
        return self._sources[text]

    @property
    def chosen(self) -> tuple[ChosenPrompt, ...]:
        """The prompts for which something was chosen, in order."""
        return tuple(self._choosing.chosen) if "_choosing" in vars(self) else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What there is to say of choices and of LoRAs that prompts name."""
        tagged = (warning for one in self._tagged.values() for warning in one.warnings)
        chosen = self._choosing.warnings if "_choosing" in vars(self) else ()
        return tuple(dict.fromkeys((*chosen, *tagged)))

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            self.faults.update(dict.fromkeys(error.faults))
        except DarkroomError as error:
            self.faults[str(error)] = None


def validate(
    configs: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
    places_of_lines: Sequence[str | None] = (),
    ask: Ask | None = None,
) -> Batch:
    """Check configurations, prompts, models, adapters, naming and the output folder.

    `places_of_lines` is what messages call the `prompts.lines` of each configuration; None names the prompt set. `ask`
    is asked about choices in mode `assisted`; without it they are accepted.

    Raises `ConfigError` with every fault, and `NotHere` if there is none but that something is to be fetched first.
    """
    parsed, faults = parse_sound_parts(configs)
    if not parsed:
        raise ConfigError(faults)
    first = parsed[0]
    found = _Validation(first, folders, faults, ask)
    for index, config in enumerate(parsed):
        found.look_at(config, index, places_of_lines[index] if index < len(places_of_lines) else None)
    output_dir = Path(first.output.dir)
    absent = [folder for folder in (output_dir, *output_dir.parents) if not os.path.lexists(folder)]
    found.faults.update(dict.fromkeys(_output_faults(output_dir, dry_run=bool(first.dry_run))))
    if found.faults or not found.is_planned:
        for folder in absent:  # made to find out whether it can be; a refused batch leaves nothing behind
            with contextlib.suppress(OSError, ValueError):
                folder.rmdir()
        raise ConfigError(list(found.faults)) if found.faults else NotHere(list(found.missing), first)
    models = {known.settings: known for known in found.models.values()}
    return Batch(
        configs=parsed,
        parts=found.parts,
        expansions=found.expansions,
        plans=found.plans,
        saves=tuple(found.saves),
        device=found.device,
        models=models,
        missing=tuple(found.missing),
        chosen=found.chosen,
        warnings=found.warnings,
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
