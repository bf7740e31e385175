"""Understands the prompts of a plan in up to three stages, and chooses for each.

Rules read every prompt. What they leave open is filled by a sentence encoder, then by a language model, where these are
here and wanted; both also say which of the offered models suits a prompt. All prompts are read before anything is
loaded onto a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from jobs.config.selection_section import Selection
from jobs.terminal import complain
from pipeline.prompting.analysis import PromptAnalysis
from pipeline.prompting.rules import analyse
from pipeline.prompting.vocabulary_files import load_vocabulary
from pipeline.selection.candidates import ModelCandidate
from pipeline.selection.ollama.answers import Offered, Question
from pipeline.selection.ollama.listening import is_listening
from pipeline.selection.ollama.settings import OllamaSettings, is_installed
from pipeline.selection.selector import Selected, Selector, Wanted
from pipeline.storage.user_folders import config_folder

_MAIN_AXES = ("subject", "medium", "style")
"""Without a subject, or without a look, a prompt is put to a language model."""


class Understanding:
    """Understands prompts for all configurations of a batch.

    `read` is the first stage, with the user's own vocabulary. `warnings` are one line each, for the user; `recorded`
    are those of the same faults that choices carry.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        vocabulary = load_vocabulary(config_folder() / "vocabulary")  # the user's own words beside ours
        self.read = lru_cache(maxsize=4096)(partial(analyse, vocabulary=vocabulary))
        self.warnings: dict[str, None] = {}
        self.recorded: set[str] = set()

    def select(self, wanted: Sequence[Wanted], selector: Selector, settings: Selection) -> list[Selected]:
        """What is chosen for each prompt, in order."""
        prompts = list(dict.fromkeys(one.prompt for one in wanted))
        analyses = {prompt: self.read(prompt) for prompt in prompts}
        if settings.analysis == "auto" and not selector.has_choice:  # nothing that is understood would change anything
            return [selector.select(one, analyses[one.prompt]) for one in wanted]
        if self._by_meaning(settings):
            from pipeline.prompting.meaning import fill_by_meaning
            from pipeline.selection.card_similarity import card_similarities

            filled = fill_by_meaning(prompts, [analyses[prompt] for prompt in prompts])
            analyses = dict(zip(prompts, filled, strict=True))
            selector = replace(selector, similarity=card_similarities(prompts, analyses, selector.offers).get)
        rankings: dict[str, tuple[str, ...]] = {}
        unread: dict[str, tuple[str, ...]] = {}
        if asked := self._for_ollama(wanted, analyses, settings):
            rankings, unread = self._ask(asked, analyses, selector, settings)
        selector = replace(selector, ranking=lambda prompt: rankings.get(prompt, ()))
        return [_warned(selector.select(one, analyses[one.prompt]), unread.get(one.prompt, ())) for one in wanted]

    def _by_meaning(self, settings: Selection) -> bool:
        from pipeline.prompting import encoder

        if settings.analysis == "meaning":
            encoder.check_installed()
        return settings.analysis in ("auto", "meaning") and encoder.is_installed()

    def _for_ollama(
        self, wanted: Sequence[Wanted], analyses: Mapping[str, PromptAnalysis], settings: Selection
    ) -> list[Wanted]:
        """The prompts that a language model is to read: all where it is asked for by name, else those that need it."""
        distinct = list({one.prompt: one for one in wanted}.values())
        if settings.analysis == "ollama":
            return distinct
        if settings.analysis != "auto" or not is_installed():
            return []
        needy = [one for one in distinct if _is_unclear(analyses[one.prompt])]
        return needy if needy and is_listening(_ollama_settings(settings).address) else []

    def _ask(
        self,
        asked: Sequence[Wanted],
        analyses: dict[str, PromptAnalysis],
        selector: Selector,
        settings: Selection,
    ) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
        """Fill `analyses` with what the language model found; its order of models by prompt, as references, and for the
        prompts that it did not read, why.
        """
        from pipeline.selection.ollama.understand import understand

        shortlists = [selector.shortlist(one, analyses[one.prompt]) for one in asked]
        questions = [
            Question(one.prompt, analyses[one.prompt], tuple(map(_offered, models)))
            for one, models in zip(asked, shortlists, strict=True)
        ]
        found = understand(questions, _ollama_settings(settings), self._tell)
        self.warnings.update(dict.fromkeys(found.details))
        self.recorded.update(found.warnings)
        rankings: dict[str, tuple[str, ...]] = {}
        for one, models, read in zip(asked, shortlists, found.prompts, strict=True):
            analyses[one.prompt] = read.analysis
            rankings[one.prompt] = tuple(models[place].reference for place in read.ranking)
        unread = {one.prompt: found.warnings for one, read in zip(asked, found.prompts, strict=True) if not read.by_llm}
        return rankings, unread

    def _tell(self, stage: str, done: int, total: int) -> None:
        if not self._quiet:
            doing = {"loading": "loading the language model", "unloading": "unloading the language model"}
            complain(doing.get(stage, f"the language model reads prompt {min(done + 1, total):,} of {total:,}"))


def _warned(selected: Selected, warnings: tuple[str, ...]) -> Selected:
    """The same with warnings in its record."""
    if not warnings:
        return selected
    return replace(selected, choice=replace(selected.choice, warnings=(*selected.choice.warnings, *warnings)))


def _is_unclear(analysis: PromptAnalysis) -> bool:
    subject, medium, style = (getattr(analysis, axis) for axis in _MAIN_AXES)
    return not subject or not (medium or style)


def _ollama_settings(settings: Selection) -> OllamaSettings:
    return OllamaSettings(**settings.ollama.model_dump())


def _offered(model: ModelCandidate) -> Offered:
    card = model.card
    return Offered(model.name, "; ".join(filter(None, (", ".join(card.tags[:8]), card.description))))
