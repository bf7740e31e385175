"""Chooses model, LoRAs and settings for the prompts of configurations that leave their model open.

A configuration with `model=auto` becomes one for each model that is chosen, with those of its prompts that go to it, as
the model gets them. A choice that an earlier image of the same prompt was made with is taken over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from jobs.config.batch_config import BatchConfig
from jobs.config.faults import first_faults
from jobs.config.sections import Model, Sampling, Variants
from jobs.manifest.earlier_choices import EarlierChoice, earlier_choices
from jobs.planning.grid import Grid
from jobs.planning.known_models import KnownModel
from jobs.planning.offers import BatchOffers
from jobs.planning.resolve_adapters import AdapterSource
from jobs.prompts.lines import ChosenLines, LineChoice, PromptLine, PromptSource, clean
from jobs.prompts.templates import Wildcards, texts_of
from pipeline.adapters.specs import LoraSpec
from pipeline.errors import ConfigError, DarkroomError
from pipeline.registry.resolve import resolve
from pipeline.selection.choice import LoraChoice
from pipeline.selection.keeping import kept_selection, selection_key
from pipeline.selection.selector import Selected, Wanted

_DECIDING = {"analysis", "max_loras", "licence", "families", "exclude", "quality", "learn"}
"""The settings of `selection` under which an earlier choice is taken over."""


ONLY_DEMO = (
    "only the embedded demo model is here, which knows a small vocabulary of postcards; add models with: "
    "darkroom models scan FOLDER, or: darkroom models download hf:ORG/NAME"
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer about a choice. `model` is another model's name, `dropped` are LoRAs to leave out; then it is asked
    about what is chosen instead.
    """

    model: str | None = None
    dropped: tuple[str, ...] = ()

    @property
    def accepts(self) -> bool:
        """Whether the choice is used as it is."""
        return self.model is None and not self.dropped


Ask: TypeAlias = Callable[[dict[str, Any], Sequence[str], Sequence[str]], Decision]
"""Asks about a choice, as JSON values, for some prompts; last come the models to change to."""


@dataclass(frozen=True, slots=True)
class ChosenPrompt:
    """A prompt with what was chosen for it, for reports; `selected` is None for a choice that was taken over."""

    place: str
    prompt: str
    selection: dict[str, Any]
    selected: Selected | None


@dataclass(frozen=True, slots=True)
class ChosenPart:
    """The prompts of one configuration that go to one model."""

    config: BatchConfig
    lines: ChosenLines


@dataclass(slots=True)
class _Open:
    """One text of a prompt set for which something is to be chosen."""

    line: PromptLine
    index: int
    template: str
    wanted: Wanted
    key: str
    place: str


class Choosing:
    """Chooses for the configurations of a batch; what they offer is read once, when the first of them needs it."""

    def __init__(
        self,
        offered: Callable[[], BatchOffers],
        known: Callable[[Model], KnownModel | None],
        wildcards: Wildcards,
        output_dir: Path,
        ask: Ask | None = None,
    ) -> None:
        """`known` identifies a model for its hash; None if it cannot be used. `ask` answers in mode `assisted`."""
        self._offered, self._known, self._ask = lru_cache(maxsize=1)(offered), known, ask
        self._wildcards, self._output_dir = wildcards, output_dir
        self._models: dict[tuple[str, str], Model] = {}
        self.chosen: list[ChosenPrompt] = []
        self.warnings: dict[str, None] = {}

    def parts(self, config: BatchConfig, prompts: PromptSource, place_of_lines: str | None) -> list[ChosenPart]:
        """The configuration for each model that is chosen. Raises `ConfigError` for templates that are none, and where
        no model is fit for a prompt.
        """
        opened = self._opened(config, prompts, place_of_lines)
        earlier = {} if config.selection.refresh else earlier_choices(self._output_dir, {one.key for one in opened})
        parts: dict[str, ChosenPart] = {}
        lines: list[tuple[Model, PromptLine] | None] = [
            self._taken_over(one, earlier[one.key]) if one.key in earlier else None for one in opened
        ]
        rest = [one for one, line in zip(opened, lines, strict=True) if line is None]
        selected = iter(self._selected([one.wanted for one in rest], config) if rest else ())
        for one, line in zip(opened, lines, strict=True):
            model, chosen = line or self._chosen(config, one, next(selected))
            key = model.model_dump_json()
            if key not in parts:
                parts[key] = ChosenPart(_with_model(config, model), ChosenLines(prompts))
            parts[key].lines.append(chosen)
        return list(parts.values())

    def _selected(self, wanted: list[Wanted], config: BatchConfig) -> list[Selected]:
        """What is chosen for each, as far as somebody is to be asked with his consent."""
        selected = self._offered().select(wanted, config)
        self.warnings.update(self._offered().warnings)
        if self._offered().only_demo():
            self.warnings[ONLY_DEMO] = None
        if config.selection.mode != "assisted" or config.selection.accept or self._ask is None:
            return selected
        asked: set[object] = set()
        place = 0
        while place < len(selected):
            alike = _distinct(selected[place])
            if alike in asked:
                place += 1
                continue
            places = [number for number, one in enumerate(selected) if _distinct(one) == alike]
            prompts = [wanted[number].prompt for number in places]
            others = self._offered().others(wanted[place], selected[place], config)
            decision = self._ask(selected[place].choice.to_json(), prompts, others)
            if decision.accepts:
                asked.add(alike)
                continue
            for number in places:
                before = wanted[number]
                dropped = before.without | {*decision.dropped}
                wanted[number] = replace(before, model=decision.model or before.model, without=dropped)
            again = self._offered().select([wanted[number] for number in places], config)
            for number, one in zip(places, again, strict=True):
                selected[number] = one
        return selected

    def _opened(self, config: BatchConfig, prompts: PromptSource, place_of_lines: str | None) -> list[_Open]:
        grid = Grid(config.grid)
        own = config.prompts
        prefix = "" if grid.varies("prompts.prefix") else clean(own.prefix)
        suffix = "" if grid.varies("prompts.suffix") else clean(own.suffix)
        batch_set = {name for name, value in config.sampling.model_dump().items() if value is not None}
        batch_set |= {name for name in Sampling.model_fields if grid.varies(f"sampling.{name}")}
        loras_set = bool(config.adapters.loras) or any(
            key.startswith("adapters.loras") for values in grid.adapter_combinations() for key, _ in values
        )
        settings = config.selection.model_dump(include=_DECIDING)
        set_name = place_of_lines or own.name or config.title
        opened: list[_Open] = []
        faults: dict[str, None] = {}
        for index, line in enumerate(prompts):
            template = f"{prefix}{line.text}{suffix}"
            negative = clean(own.negative_prompt) if line.negative_prompt is None else line.negative_prompt
            negative_set = line.negative_prompt is None and grid.varies("prompts.negative_prompt")
            set_here = batch_set | {name for name, value in line.sampling.model_dump().items() if value is not None}
            place = line.where if own.file is not None else f"prompt {index + 1} of {set_name}"
            try:
                for text in texts_of(template, own.variants, self._wildcards):
                    wanted = Wanted(text, negative, frozenset(set_here), loras_set, negative_set)
                    opened.append(_Open(line, index, template, wanted, selection_key(text, negative, settings), place))
            except ConfigError as error:
                faults.update(dict.fromkeys(error.faults))
            except ValueError as error:
                faults[f"{line.where}: {error}"] = None
        if faults:
            raise ConfigError(first_faults(list(faults)))
        return opened

    def _chosen(self, config: BatchConfig, one: _Open, selected: Selected) -> tuple[Model, PromptLine]:
        choice = selected.choice
        model = self._offered().model_of(choice.model)
        if choice.vae:
            model = model.model_copy(update={"vae": choice.vae.reference})
        loras = tuple(LoraSpec(lora.reference, lora.weight, lora.chosen) for lora in choice.loras)
        loras = self._fitting(config, model, loras)
        values = {
            "key": one.key,
            "statistics": self._offered().statistics(config),
            "analysis": selected.analysis.to_json(),
            "choice": choice.to_json(),
        }
        self.warnings.update((one, None) for one in choice.warnings if not self._offered().is_told(one))
        selection = kept_selection(values, private=config.metadata.profile == "private").text
        self.chosen.append(ChosenPrompt(one.place, one.wanted.prompt, values, selected))
        sampling = {name: setting.value for name, setting in choice.sampling.items()}
        return model, _line(one, choice.prompt.text, choice.negative_prompt.text, sampling, loras, selection)

    def _fitting(self, config: BatchConfig, model: Model, loras: tuple[LoraSpec, ...]) -> tuple[LoraSpec, ...]:
        """Those of the LoRAs that the model can take, by their content; the others cost a warning, not the run."""
        known = self._known(model) if loras else None
        if known is None or known.files is None:
            return loras
        fitting = []
        adapters = AdapterSource(config, known.files)
        for lora in loras:
            try:
                adapters.get((), (lora,))
                fitting.append(lora)
            except DarkroomError as error:
                self.warnings[f"LoRA {lora.name} is left out: {error}"] = None
        return tuple(fitting)

    def _taken_over(self, one: _Open, earlier: EarlierChoice) -> tuple[Model, PromptLine] | None:
        """The choice of an earlier image; None if its weights are no longer here, or its values are none."""
        choice = earlier.choice
        try:
            model = self._model_of(choice.model.chosen, earlier.model_sha256)
            if choice.vae:
                model = model.model_copy(update={"vae": str(resolve(f"sha256:{earlier.vae_sha256}", "vae"))})
            loras = () if one.wanted.loras_set else tuple(_earlier_lora(lora, earlier) for lora in choice.loras)
        except (DarkroomError, KeyError):
            missing = f"{choice.model.chosen}: what was chosen for earlier images is no longer here; it is chosen anew"
            self.warnings[missing] = None
            return None
        sampling = {name: one.value for name, one in choice.sampling.items() if name in Sampling.model_fields}
        try:
            texts = (choice.prompt.text, choice.negative_prompt.text)
            line = _line(one, *texts, sampling, loras, earlier.selection)
        except ValueError:  # a record that somebody else has written
            return None
        self.chosen.append(ChosenPrompt(one.place, one.wanted.prompt, json.loads(earlier.selection), None))
        return model, line

    def _model_of(self, name: str, digest: str) -> Model:
        """What was chosen by this name, if its content is what it was; elsewhere on this machine if need be.

        Raises `ModelError` where it is not here any more.
        """
        if (name, digest) not in self._models:
            same = (model for model in self._offered().models_called(name) if self._has_hash(model, digest))
            found = next(same, None) or Model(source=str(resolve(f"sha256:{digest}")), name=name)
            self._models[name, digest] = found
        return self._models[name, digest]

    def _has_hash(self, model: Model, digest: str) -> bool:
        known = self._known(model)
        return known is not None and known.settings.sha256 == digest


def _earlier_lora(lora: LoraChoice, earlier: EarlierChoice) -> LoraSpec:
    return LoraSpec(str(resolve(f"sha256:{earlier.lora_sha256[lora.chosen]}", "lora")), lora.weight, lora.chosen)


def _distinct(selected: Selected) -> object:
    """What is equal for choices that are asked about together."""
    choice = selected.choice
    return choice.model.reference, tuple(lora.reference for lora in choice.loras), choice.vae and choice.vae.reference


def _line(
    one: _Open, prompt: str, negative_prompt: str, sampling: dict[str, Any], loras: tuple[LoraSpec, ...], selection: str
) -> PromptLine:
    template = None if prompt == one.template else one.template
    values = tuple(sorted((name, value) for name, value in sampling.items() if name not in one.wanted.sampling))
    choice = LineChoice(one.index, template, _sampling(values), loras, selection)
    return replace(one.line, text=clean(prompt), negative_prompt=clean(negative_prompt), choice=choice)


@lru_cache(maxsize=1024)
def _sampling(values: tuple[tuple[str, Any], ...]) -> Sampling:
    """One object for all prompts with the same values. Raises ValueError for a value that is none."""
    return Sampling(**dict(values))


def _with_model(config: BatchConfig, model: Model) -> BatchConfig:
    """The configuration for texts that stand as the model gets them."""
    as_it_stands = {"prefix": "", "suffix": "", "variants": Variants(mode="literal")}
    prompts = config.prompts.model_copy(update=as_it_stands)
    return config.model_copy(update={"model": model, "prompts": prompts})
