"""The Python API where nothing but a prompt is said: model, LoRAs, texts and settings are chosen as in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, Unpack, cast

from pipeline.adapters.identify_lora import identify_lora
from pipeline.adapters.specs import LoraSpec
from pipeline.api.arguments import (
    AutoArguments,
    ManyArguments,
    MemoryArguments,
    PictureArguments,
    PictureSettings,
    checked,
    completed,
)
from pipeline.api.explanation import Explanation
from pipeline.api.picture import Picture, the_picture
from pipeline.errors import ConfigError, DarkroomError, JobFailure
from pipeline.loading.precision import model_dtype
from pipeline.memory.planning.choose_techniques import ALWAYS_ON
from pipeline.memory.planning.memory_request import requested_memory
from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.encoder import check_installed, is_installed
from pipeline.prompting.rules import analyse
from pipeline.prompting.vocabulary_files import load_vocabulary
from pipeline.registry.database import Registry
from pipeline.registry.resolve import resolve
from pipeline.registry.store_folders import registry_file
from pipeline.request import DEFAULT_GUIDANCE, DEFAULT_STEPS, MemorySettings
from pipeline.selection.candidates import ModelCandidate, Offers
from pipeline.selection.choice import Choice, LoraChoice
from pipeline.selection.keeping import selection_key
from pipeline.selection.memory_fit import measures_of, memory_fault
from pipeline.selection.offered import offers_of
from pipeline.selection.selector import Selector, Wanted
from pipeline.selection.wishes import Wishes
from pipeline.storage.user_folders import config_folder
from pipeline.system.device import device_memory, find_device
from pipeline.weights.inspection import inspect_model
from pipeline.weights.references import EMBEDDED_DEFAULTS

_SAMPLING = ("steps", "guidance_scale", "width", "height", "scheduler", "clip_skip")
"""Settings that are chosen where they are not given."""

_ANY_SIDE = 512
"""Pixels: stands for the size of a model that is not chosen yet, where arguments are checked."""


class OneModel(Protocol):
    """A `pipeline.Pipeline`."""

    def generate_many(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        batch_size: int | None,
        **settings: Unpack[PictureSettings],
    ) -> Iterator[Picture | JobFailure]:
        """Every prompt with every seed."""

    def close(self) -> None:
        """Free the model."""


@dataclass(slots=True)
class _Group:
    """Prompts that are made together, by their places: of one model, with the same settings."""

    settings: PictureSettings
    places: list[int] = field(default_factory=list)


class AutoPipeline:
    """Makes pictures with what suits each prompt, of what is on this machine; `Pipeline.auto` makes one.

    What is known here is read once, for the first prompt. One model is loaded at a time, and stays until another one is
    chosen, `close` is called or the `with` block is left.
    """

    def __init__(self, make: Callable[..., OneModel], **given: Any) -> None:
        """`make` is `pipeline.Pipeline`, `given` are the arguments of `Pipeline.auto`."""
        self._given = checked(AutoArguments, given)
        if self._given.analysis == "meaning":
            check_installed()
        self._make, self._device = make, find_device(self._given.device)
        self._memory = device_memory(self._device)
        self._requested(None)  # raises for what can never be
        self._read = partial(analyse, vocabulary=load_vocabulary(config_folder() / "vocabulary"))
        self._selector: Selector | None = None
        self._loaded: tuple[tuple[str, str | None], OneModel] | None = None
        self._is_making = False

    def explain(self, prompt: str, **settings: Unpack[PictureSettings]) -> Explanation:
        """What `generate` would choose, and why; makes nothing. `print` shows it as a paragraph.

        Raises `ConfigError` for wrong arguments, `ModelError` where no model may be taken.
        """
        self._check(PictureArguments, {"prompt": prompt, "seed": 0}, settings)
        return self._explained([prompt], settings)[0]

    def generate(self, prompt: str, *, seed: int = 0, **settings: Unpack[PictureSettings]) -> Picture:
        """Make one picture; `settings` are those of `Pipeline.generate`, and what is given is never chosen.

        To `negative_prompt` is added what suits the model. Raises as `Pipeline.generate`, and `ModelError` where no
        model may be taken.
        """
        self._check(PictureArguments, {"prompt": prompt, "seed": seed}, settings)
        return the_picture(self.generate_many([prompt], seeds=[seed], batch_size=1, **settings))

    def generate_many(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int] = (0,),
        batch_size: int | None = None,
        **settings: Unpack[PictureSettings],
    ) -> Iterator[Picture | JobFailure]:
        """Make every prompt with every seed; yields them prompt by prompt, seed by seed.

        Prompts of the same model are made together, so that each model is loaded once. Pictures that are made before
        their turn are held until then. Everything else is as in `Pipeline.generate_many`; choices are made at once, and
        `ModelError` is raised at once where no model may be taken.
        """
        self._check(ManyArguments, {"prompts": prompts, "seeds": seeds, "batch_size": batch_size}, settings)
        explained = self._explained(prompts, settings) if prompts and seeds else []
        return self._made(explained, seeds, batch_size, settings)

    def close(self) -> None:
        """Free the model; it is loaded again when needed."""
        if self._loaded:
            self._loaded[1].close()
        self._loaded = None

    def __enter__(self) -> AutoPipeline:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _check(
        self,
        arguments: type[PictureArguments | ManyArguments],
        values: Mapping[str, Any],
        settings: PictureSettings,
    ) -> None:
        """Raise `ConfigError` with everything that can be told to be wrong before a model is chosen."""
        whole = completed(
            settings, steps=DEFAULT_STEPS, guidance_scale=DEFAULT_GUIDANCE, width=_ANY_SIDE, height=_ANY_SIDE
        )
        checked(arguments, {**values, **whole})

    def _explained(self, prompts: Sequence[str], settings: PictureSettings) -> list[Explanation]:
        selector = self._chooser()
        distinct = list(dict.fromkeys(prompts))
        analyses = {prompt: self._read(prompt) for prompt in distinct}
        if self._asks_encoder(selector.offers):
            from pipeline.prompting.meaning import fill_by_meaning
            from pipeline.selection.card_similarity import card_similarities

            filled = fill_by_meaning(distinct, [analyses[prompt] for prompt in distinct])
            analyses = dict(zip(distinct, filled, strict=True))
            near = card_similarities(distinct, analyses, selector.offers)
            selector = replace(selector, similarity=near.get)
        found = {prompt: self._explanation(prompt, analyses[prompt], selector, settings) for prompt in distinct}
        return [found[prompt] for prompt in prompts]

    def _explanation(
        self, prompt: str, analysis: PromptAnalysis, selector: Selector, settings: PictureSettings
    ) -> Explanation:
        negative = settings.get("negative_prompt", "")
        wanted = Wanted(
            prompt,
            negative,
            frozenset(name for name in _SAMPLING if settings.get(name) is not None),
            settings.get("guidance_scale"),
            loras_set="loras" in settings,
        )
        choice = self._with_loras_that_fit(selector.select(wanted, analysis).choice)
        given = self._given.model_dump(exclude={*MemoryArguments.model_fields})
        return Explanation(prompt, analysis, choice, selection_key(prompt, negative, given))

    def _asks_encoder(self, offers: Offers) -> bool:
        """Not where there is nothing to choose from: loading it takes a second."""
        if self._given.analysis == "auto" and all(one.is_demo for one in offers.models):
            return False
        return self._given.analysis != "rules" and is_installed()

    def _with_loras_that_fit(self, choice: Choice) -> Choice:
        """The choice without the LoRAs that their content keeps from the model; each of them costs a warning."""
        if not choice.loras:
            return choice
        files = inspect_model(resolve(choice.model.reference))
        fitting: list[LoraChoice] = []
        warnings = list(choice.warnings)
        for lora in choice.loras:
            try:
                identify_lora(LoraSpec(lora.reference, lora.weight, lora.chosen), files)
                fitting.append(lora)
            except DarkroomError as error:
                warnings.append(f"LoRA {lora.chosen} is left out: {error}")
        return replace(choice, loras=tuple(fitting), warnings=tuple(warnings))

    def _chooser(self) -> Selector:
        if self._selector is None:
            wishes = Wishes(
                max_loras=self._given.max_loras,
                licence=self._given.licence,
                families=tuple(self._given.families),
                exclude=tuple(self._given.exclude),
                fits=self._fault,
            )
            self._selector = Selector(self._offered(), wishes, _sampling_of, _size_of)
        return self._selector

    def _offered(self) -> Offers:
        if not registry_file().exists():
            return offers_of(None, (), read=self._read)
        with Registry() as registry:
            return offers_of(registry, (), read=self._read)

    def _fault(self, model: ModelCandidate) -> str | None:
        return memory_fault(partial(measures_of, model.reference), self._requested, self._device, self._memory)

    def _requested(self, family: str | None) -> MemorySettings:
        """The memory settings for a model of a family, as `Pipeline` has them."""
        given = self._given
        return requested_memory(
            given.memory,
            model_dtype(given.dtype, self._device, family),
            {**dict.fromkeys(ALWAYS_ON.get(given.memory, ()), True), **(given.techniques or {})},
            self._device.kind,
            exact=given.quality == "exact",
            budget_gb=given.budget_gb,
        )

    def _made(
        self,
        explained: Sequence[Explanation],
        seeds: Sequence[int],
        batch_size: int | None,
        settings: PictureSettings,
    ) -> Iterator[Picture | JobFailure]:
        if self._is_making:
            raise ConfigError(
                "generate_many: has pictures left to make; take them all, or close() the iterator, before others"
            )
        self._is_making = True
        waiting: dict[int, Picture | JobFailure] = {}
        due = 0
        try:
            for weights, groups in _by_model(explained, settings).items():
                model = self._model(*weights)
                for group in groups:
                    places = (place * len(seeds) + number for place in group.places for number in range(len(seeds)))
                    prompts = [explained[place].choice.prompt.text for place in group.places]
                    made = model.generate_many(prompts, seeds=seeds, batch_size=batch_size, **group.settings)
                    with closing(cast("Any", made)):
                        for place, outcome in zip(places, made, strict=True):
                            why = explained[place // len(seeds)]
                            waiting[place] = (
                                outcome if isinstance(outcome, JobFailure) else replace(outcome, explanation=why)
                            )
                            while due in waiting:
                                yield waiting.pop(due)
                                due += 1
        finally:
            self._is_making = False

    def _model(self, reference: str, vae: str | None) -> OneModel:
        """The one model that is loaded; another one is freed first."""
        if self._loaded is None or self._loaded[0] != (reference, vae):
            self.close()
            given = self._given.model_dump(include={*MemoryArguments.model_fields})
            self._loaded = (reference, vae), self._make(reference, vae=vae, **given)
        return self._loaded[1]


def _size_of(model: ModelCandidate) -> tuple[int, int] | None:
    """The width and height of a model's own pictures, in pixels; None for one that is incomplete."""
    try:
        measures = measures_of(model.reference)
    except DarkroomError:
        return None
    return measures.width, measures.height


def _sampling_of(model: ModelCandidate) -> Mapping[str, Any]:
    """What the embedded model works with; nothing else has a profile here."""
    if model.reference not in EMBEDDED_DEFAULTS:
        return {}
    steps, guidance_scale = EMBEDDED_DEFAULTS[model.reference]
    return {"steps": steps, "guidance_scale": guidance_scale}


def _by_model(
    explained: Sequence[Explanation], settings: PictureSettings
) -> dict[tuple[str, str | None], list[_Group]]:
    """Groups by model and VAE, in the order in which prompts first need them."""
    models: dict[tuple[str, str | None], dict[object, _Group]] = {}
    for place, one in enumerate(explained):
        choice = one.choice
        weights = (choice.model.reference, choice.vae.reference if choice.vae else None)
        sampling = {name: setting.value for name, setting in choice.sampling.items() if name in _SAMPLING}
        loras = tuple(LoraSpec(lora.reference, lora.weight, lora.chosen) for lora in choice.loras)
        alike = (choice.negative_prompt.text, loras, tuple(sorted(sampling.items())))
        groups = models.setdefault(weights, {})
        if alike not in groups:
            chosen = {**sampling, "negative_prompt": choice.negative_prompt.text, "loras": loras}
            own = {name: value for name, value in settings.items() if value is not None and name != "negative_prompt"}
            groups[alike] = _Group(cast("PictureSettings", {**chosen, **own}))
        groups[alike].places.append(place)
    return {weights: list(groups.values()) for weights, groups in models.items()}
