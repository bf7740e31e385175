"""What was chosen for a prompt of the Python API, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.metadata.record import SelectionRecord
from pipeline.prompting.analysis import PromptAnalysis
from pipeline.selection.choice import Choice
from pipeline.selection.explain import paragraph
from pipeline.selection.keeping import kept_selection


@dataclass(frozen=True, slots=True)
class Explanation:
    """A prompt as its user wrote it, what it asks for, and what was chosen; as a text, a paragraph that says why.

    `key` is the hash of the prompt and of the settings of the choice.
    """

    prompt: str
    analysis: PromptAnalysis
    choice: Choice
    key: str

    def __str__(self) -> str:
        return paragraph(self.choice)

    def to_json(self) -> dict[str, Any]:
        """As plain values, in the form of `darkroom explain --format jsonl`."""
        return {"prompt": self.prompt, "analysis": self.analysis.to_json(), "choice": self.choice.to_json()}

    @property
    def record(self) -> SelectionRecord:
        """What an image's record keeps of it."""
        return kept_selection({"key": self.key, "analysis": self.analysis.to_json(), "choice": self.choice.to_json()})
