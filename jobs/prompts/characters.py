"""Prompt sets of characters: rows of attributes that show every pair of values, as prompts with tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from jobs.config.faults import first_faults
from jobs.config.sections import Characters
from jobs.prompts.lines import PromptLine, clean
from pipeline.errors import ConfigError
from pipeline.prompting.character_values import changed
from pipeline.prompting.characters import draw_characters, known_vocabulary


class CharacterLines(Sequence[PromptLine]):
    """A line for each row, made when asked for; `made` has the rows, and which pairs of values they show.

    Raises `ConfigError` with the faults of the settings, the first 20.
    """

    def __init__(self, settings: Characters) -> None:
        try:
            vocabulary = changed(known_vocabulary(), settings.template, settings.attributes, settings.constraints)
            self.made = draw_characters(vocabulary, settings.count, settings.seed)
        except ConfigError as error:
            raise ConfigError(first_faults([f"prompts.characters.{fault}" for fault in error.faults])) from None

    def __len__(self) -> int:
        return len(self.made.rows)

    @overload
    def __getitem__(self, index: int) -> PromptLine: ...
    @overload
    def __getitem__(self, index: slice) -> list[PromptLine]: ...

    def __getitem__(self, index: int | slice) -> PromptLine | list[PromptLine]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return PromptLine(
            clean(self.made.prompt(place)), f"prompts.characters: row {place + 1}", tags=self.made.tags(place)
        )
