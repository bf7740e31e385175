"""What a batch can choose from: the model profiles and the registry of this machine, and what fits into its memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.config.batch_config import BatchConfig
from jobs.config.model_profiles import profile_files, profile_in
from jobs.config.sections import Model
from jobs.manifest.preferences import read_preferences
from jobs.planning.memory_and_batch_size import requested_memory
from jobs.planning.understanding import Understanding
from pipeline.errors import DarkroomError
from pipeline.learning.kept_preferences import keep
from pipeline.learning.preferences import NO_PREFERENCES, Preferences
from pipeline.registry.database import Registry
from pipeline.registry.queries import find
from pipeline.registry.resolve import is_remote, resolve
from pipeline.registry.store_folders import registry_file
from pipeline.selection.candidates import ModelCandidate, Offers
from pipeline.selection.choice import ModelChoice
from pipeline.selection.memory_fit import Measures, measures_of, memory_fault
from pipeline.selection.offered import Profile, offers_of
from pipeline.selection.selector import Selected, Selector, Wanted
from pipeline.selection.wishes import Wishes
from pipeline.system.device import Device, DeviceMemory
from pipeline.weights.references import EMBEDDED, parse


class BatchOffers:
    """The models, LoRAs and VAEs of this machine, and what is chosen among them."""

    def __init__(self, folders: Sequence[Path], device: Device, memory: DeviceMemory, understanding: Understanding):
        """Reads the profiles in `folders` of options and the registry; profiles that are none are left out here."""
        self._device, self._memory, self._understanding = device, memory, understanding
        self._profiles: dict[str, Model] = {}
        for path in profile_files(folders):
            with suppress(DarkroomError, ValidationError):
                if model := profile_in(path):
                    self._profiles[path.stem] = model
        self._offers: dict[bool, Offers] = {}
        self._preferences: dict[str, Preferences] = {}
        self._models: dict[str, Model] = {}

    def select(self, wanted: Sequence[Wanted], config: BatchConfig) -> list[Selected]:
        """What is chosen for each prompt. Raises `ModelError` where no model may be taken."""
        return self._understanding.select(wanted, self._selector(config), config.selection)

    def others(self, wanted: Wanted, selected: Selected, config: BatchConfig) -> tuple[str, ...]:
        """Names of models that could be taken instead of what is chosen, the best first."""
        best = self._selector(config).shortlist(wanted, selected.analysis)
        return tuple(one.name for one in best if one.name != selected.choice.model.chosen)

    def _selector(self, config: BatchConfig) -> Selector:
        settings = config.selection
        offers = self._offers_for(fetch=config.hub.auto_download)
        wishes = Wishes(
            max_loras=settings.max_loras,
            licence=settings.licence,
            families=tuple(settings.families),
            exclude=tuple(settings.exclude),
            quality=settings.quality,
            fits=partial(self._fault, config),
            tags=config.adapters.tags,
        )
        return Selector(offers, wishes, self._sampling_of, self._size_of, preferences=self._preferences_for(config))

    def model_of(self, choice: ModelChoice) -> Model:
        """The profile of a model that was chosen, or what stands for one."""
        return self._models[choice.reference]

    def models_called(self, name: str) -> Iterator[Model]:
        """The models of this name that can be chosen without fetching anything."""
        for one in self._offers_for(fetch=False).models:
            if one.name == name:
                yield self._models[one.reference]

    @property
    def warnings(self) -> dict[str, None]:
        """What there is to say of how prompts were understood, one line each."""
        return self._understanding.warnings

    def is_told(self, warning: str) -> bool:
        """Whether a choice's warning is told in other words by `warnings`."""
        return warning in self._understanding.recorded

    def statistics(self, config: BatchConfig) -> str | None:
        """The hash of the ratings' statistics that have a say; None where nothing was rated. They are kept by it."""
        preferences = self._preferences_for(config)
        if not preferences:
            return None
        with suppress(OSError):  # an explanation of later years can do without
            keep(preferences)
        return preferences.hash

    def _preferences_for(self, config: BatchConfig) -> Preferences:
        """What the ratings of the output folder say; what cannot be read of them costs a warning, not the run."""
        place = config.output.dir
        if not config.selection.learn:
            return NO_PREFERENCES
        if place not in self._preferences:
            try:
                self._preferences[place] = read_preferences(Path(place))
            except DarkroomError as error:
                self._understanding.warnings[f"ratings are left out: {error}"] = None
                self._preferences[place] = NO_PREFERENCES
        return self._preferences[place]

    def only_demo(self) -> bool:
        """Whether there is nothing but the embedded model."""
        return all(one.is_demo for one in self._offers_for(fetch=False).models)

    def _offers_for(self, *, fetch: bool) -> Offers:
        if fetch not in self._offers:
            self._offers[fetch] = self._found(fetch=fetch)
        return self._offers[fetch]

    def _found(self, *, fetch: bool) -> Offers:
        with Registry() if registry_file().exists() else nullcontext() as registry:
            profiles = list(self._usable(registry, fetch=fetch))
            offers = offers_of(registry, profiles, read=self._understanding.read)
        named = {profile.reference: self._profiles[profile.name] for profile in profiles}
        for one in offers.models:
            self._models[one.reference] = named.get(one.reference) or Model(source=one.reference, name=one.name)
        return offers

    def _usable(self, registry: Registry | None, *, fetch: bool) -> Iterator[Profile]:
        """The profiles whose weights are here or, with `fetch`, can be had."""
        for name, model in self._profiles.items():
            with suppress(DarkroomError):
                if is_remote(model.source):
                    if not fetch or model.family is None:
                        continue
                elif model.source not in EMBEDDED:
                    resolve(model.source)
                yield Profile(
                    name=name,
                    reference=_canonical(model.source, registry),
                    family=model.family,
                    licence=model.licence,
                    is_distilled=model.distilled,
                    own_vae=model.vae is not None,
                )

    def _sampling_of(self, candidate: ModelCandidate) -> Mapping[str, Any]:
        return self._models[candidate.reference].sampling.model_dump(exclude_none=True)

    def _size_of(self, candidate: ModelCandidate) -> tuple[int, int] | None:
        try:
            measures = self._measures(candidate)
        except DarkroomError:
            return None
        return measures.width, measures.height

    def _fault(self, config: BatchConfig, candidate: ModelCandidate) -> str | None:
        """Why a model cannot be loaded here: headers are read, never weights."""
        model = self._models[candidate.reference]
        own = config.model_copy(update={"model": model})
        values = config.sampling.over(model.sampling)
        return memory_fault(
            partial(self._measures, candidate),
            lambda family: requested_memory(own, self._device, family=family),
            self._device,
            self._memory,
            width=values.width,
            height=values.height,
            guidance_scale=values.guidance_scale,
        )

    def _measures(self, candidate: ModelCandidate) -> Measures:
        """Sizes of components, and the model's own width and height. Raises `ModelError` for an incomplete one."""
        model = self._models[candidate.reference]
        return measures_of(model.source, family=model.family, config=model.config, has_vae=model.vae is not None)


def _canonical(source: str, registry: Registry | None) -> str:
    """The reference by which the registry knows a profile's weights."""
    if registry is None or source in EMBEDDED:
        return source
    with suppress(DarkroomError):
        found = find(registry, parse(source))
        if len(found) == 1:
            return found[0].reference
    return source
