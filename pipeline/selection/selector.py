"""Everything that is chosen for a prompt, in one call: understanding, model, LoRAs, texts and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import ModelError
from pipeline.learning.preferences import NO_PREFERENCES
from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.conventions import CLOSED
from pipeline.prompting.negatives import negative_prompt
from pipeline.prompting.parameters import settings_for
from pipeline.prompting.proposals import Setting, TextChoice
from pipeline.prompting.quality_words import model_prompt
from pipeline.selection.candidates import ModelCandidate, Offers
from pipeline.selection.choice import Choice
from pipeline.selection.choose import choose, shortlist
from pipeline.selection.scoring import Preferences
from pipeline.selection.wishes import Wishes

MOST_OTHERS = 8
"""So many models are named that a choice can be changed to."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A prompt that something is chosen for, and what its user has set: that is never chosen.

    `prompt` is as the user wrote it, with its variants filled in. `sampling` are the names of the sampling values that
    are set, `guidance_scale` the value of that one; `loras_set`: the LoRAs are named; `negative_set`: nothing may be
    added to the negative prompt. `model` is the name of the model to take, where it was said meanwhile, and `without`
    are LoRAs that were dropped.
    """

    prompt: str
    negative_prompt: str = ""
    sampling: frozenset[str] = frozenset()
    guidance_scale: float | None = None
    loras_set: bool = False
    negative_set: bool = False
    model: str | None = None
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Selected:
    """A choice with the understanding of the prompt that it came from."""

    analysis: PromptAnalysis
    choice: Choice


@dataclass(slots=True)
class Selector:
    """Chooses for prompts out of the same offers, under the same wishes.

    `sampling_of` gives the sampling values of a model's profile, `size_of` its own width and height in pixels, where
    these are known; `similarity` and `ranking` are what a sentence encoder and a language model say of a prompt, if any
    of them was asked.
    """

    offers: Offers
    wishes: Wishes
    sampling_of: Callable[[ModelCandidate], Mapping[str, Any]]
    size_of: Callable[[ModelCandidate], tuple[int, int] | None] = lambda _model: None
    preferences: Preferences = NO_PREFERENCES
    similarity: Callable[[str], Mapping[str, float] | None] = lambda _prompt: None
    ranking: Callable[[str], Sequence[str]] = lambda _prompt: ()

    @property
    def has_choice(self) -> bool:
        """Whether there is more than one model, or a LoRA."""
        return len(self.offers.models) > 1 or bool(self.offers.loras)

    def select(self, wanted: Wanted, analysis: PromptAnalysis) -> Selected:
        """What is chosen for one prompt. Raises `ModelError` where no model may be taken."""
        wishes = self._wishes_for(wanted)
        similarity, ranking = self.similarity(wanted.prompt), self.ranking(wanted.prompt)
        found = choose(wanted.prompt, analysis, self.offers, wishes, self.preferences, similarity, ranking)
        model = next(one for one in self.offers.models if one.reference == found.model.reference)
        return Selected(analysis, self._completed(found, wanted, analysis, model))

    def shortlist(self, wanted: Wanted, analysis: PromptAnalysis) -> tuple[ModelCandidate, ...]:
        """The models that come into question, the best first."""
        wishes = replace(self._wishes_for(wanted), model=None)
        return shortlist(wanted.prompt, analysis, self.offers, wishes, self.preferences, MOST_OTHERS)

    def _wishes_for(self, wanted: Wanted) -> Wishes:
        wishes = self.wishes
        if wanted.loras_set or wanted.without or wanted.model:
            exclude = (*wishes.exclude, *sorted(wanted.without))
            wishes = replace(wishes, set_loras=not wanted.loras_set, exclude=exclude)
        if wanted.model:
            taken = next((one.reference for one in self.offers.models if one.name == wanted.model), None)
            if taken is None:
                raise ModelError(f"model {wanted.model!r}: is not among the models that can be chosen")
            wishes = replace(wishes, model=taken)
        return wishes

    def _completed(self, found: Choice, wanted: Wanted, analysis: PromptAnalysis, model: ModelCandidate) -> Choice:
        """The choice with settings and texts for its model."""
        convention = CLOSED if model.is_demo else model.convention
        settings = settings_for(
            analysis,
            family=model.family,
            convention=convention,
            card_settings=dict(model.card.settings),
            profile_sampling=self.sampling_of(model),
            quality=self.wishes.quality,
            default_size=self.size_of(model),
            distilled=model.is_distilled,
            v_prediction=model.card.v_prediction,
            set_by_user=wanted.sampling,
        )
        triggers = [word for lora in found.loras for word in lora.triggers]
        prompt = model_prompt(found.prompt.own, analysis, family=model.family, convention=convention, triggers=triggers)
        negative = TextChoice(wanted.negative_prompt, wanted.negative_prompt)
        if not wanted.negative_set:
            negative = negative_prompt(
                wanted.negative_prompt,
                prompt.text,
                analysis,
                family=model.family,
                convention=convention,
                uses_negative=not model.is_distilled,
                guidance=_guidance(wanted, settings),
            )
        return replace(found, sampling=settings, prompt=prompt, negative_prompt=negative)


def _guidance(wanted: Wanted, settings: Mapping[str, Setting]) -> float | None:
    if "guidance_scale" in wanted.sampling:
        return wanted.guidance_scale
    chosen = settings.get("guidance_scale")
    return chosen.value if chosen and isinstance(chosen.value, float | int) else None
