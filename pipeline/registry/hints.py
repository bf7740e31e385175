"""Claims about a model: its card, what identifies it on a hub, and the settings that its author advises, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.registry.card_fields import merged
from pipeline.registry.records import ModelCard


@dataclass(frozen=True, slots=True)
class Hints:
    """Claims of one source or of several; everything may be empty. Texts are plain and bounded.

    `said` are settings by the names of `settings_in_text`, as the author puts them: numbers, ranges, words.
    """

    card: ModelCard = field(default_factory=ModelCard)
    said: Mapping[str, str] = field(default_factory=dict)
    sha256: str | None = None
    version_id: int | None = None
    model_id: int | None = None

    def filled(self, other: Hints) -> Hints:
        """These with the gaps filled from others; where they differ, these win."""
        return Hints(
            merged(self.card, other.card),
            self.said or other.said,
            self.sha256 or other.sha256,
            self.version_id or other.version_id,
            self.model_id or other.model_id,
        )
