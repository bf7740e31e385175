"""Finds, checks and hashes the models of a batch; for a dry run, models with published sizes are enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from jobs.config.sections import FALLBACK, Model, Sampling
from pipeline.errors import ModelError
from pipeline.memory.planning.estimate import Sizes
from pipeline.registry.model_settings import identify, public_name
from pipeline.registry.resolve import is_remote
from pipeline.request import LoraWeights, ModelSettings
from pipeline.schedulers import name_of_class
from pipeline.weights.families import FAMILIES, Family, family_of
from pipeline.weights.inspection import ModelFiles


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model of the batch; `files` is None if the weights are not on this machine, which only a dry run accepts.

    `loras` are all that some configuration of the batch applies to it, by hash; they are filled in as these are read.
    """

    settings: ModelSettings
    files: ModelFiles | None
    sizes: Sizes
    family: Family | None
    flow_matching: bool
    fallback: Sampling
    profile: Model
    loras: dict[str, LoraWeights] = field(default_factory=dict, compare=False)

    @property
    def max_clip_skip(self) -> int | None:
        """How many text encoder layers can be skipped, if that is known."""
        return self.files.max_clip_skip if self.files else None


def known_model(profile: Model, *, dry_run: bool) -> KnownModel:
    """The model of a profile. Raises `ModelError`."""
    if dry_run and profile.family and is_remote(profile.source):
        return _published(profile, FAMILIES[profile.family])
    settings, files = identify(
        profile.source,
        name=profile.name,
        vae=profile.vae,
        config=profile.config,
        prediction_type=profile.prediction_type,
        max_sequence_length=profile.max_sequence_length,
        safety_checker=profile.safety_checker,
    )
    return identified(profile, settings, files)


def identified(profile: Model, settings: ModelSettings, files: ModelFiles) -> KnownModel:
    """The model of a profile whose files were found already. Raises `ModelError` if it is of another family."""
    family = family_of(files.pipeline_class)
    if profile.family and family and family.name != profile.family:
        raise ModelError(
            f"model.family: the profile is for {FAMILIES[profile.family].label}, but {settings.name} is "
            f"{family.label}; give another model.source, or model=custom"
        )
    return KnownModel(
        settings=settings,
        files=files,
        sizes=Sizes.from_files(files),
        family=family,
        flow_matching=files.flow_matching,
        fallback=_fallback(files.width, files.height, name_of_class(files.scheduler_class, files.scheduler_config)),
        profile=profile,
    )


def _published(profile: Model, family: Family) -> KnownModel:
    name = profile.name or public_name(profile.source)
    settings = ModelSettings(name, profile.source, sha256(profile.source.encode()).hexdigest(), family.pipeline_class)
    scheduler = "FlowMatch Euler" if family.flow_matching else "DDIM"
    return KnownModel(
        settings=settings,
        files=None,
        sizes=Sizes.published(family, {name: billions * 1e9 for name, billions in profile.parameters.items()}),
        family=family,
        flow_matching=family.flow_matching,
        fallback=_fallback(family.size, family.size, scheduler),
        profile=profile,
    )


def _fallback(width: int, height: int, scheduler: str) -> Sampling:
    """Every value that the batch and the profile may leave open. Not checked: the weights say it."""
    values: dict[str, Any] = {"width": width, "height": height, "scheduler": scheduler}
    return FALLBACK.model_copy(update=values)
