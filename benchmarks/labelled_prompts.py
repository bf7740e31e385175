"""How much of what a prompt says an analysis finds: against prompts labelled by hand, and GenEval's counts and colours.

`tests/data/prompts/README.md` says how they were labelled. Of each group of axes two shares are taken: of the labels,
how many were found; of the values given, how many are right. Values on which careful readers differ (`maybe`) and the
general medium beside a particular one (a painting in oil) count neither way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring import ROOT
from pipeline.prompting.analysis import PromptAnalysis

FOLDER = ROOT / "tests" / "data" / "prompts"

Analyse = Callable[[str], PromptAnalysis]

GROUPS: Mapping[str, tuple[tuple[str, ...], float]] = {
    "medium": (("medium",), 0.90),
    "style": (("style",), 0.85),
    "subject": (("subject",), 0.85),
    "camera and light": (("shot", "lighting", "time"), 0.85),
    "count and text": (("count", "text"), 0.90),
    "negated": (("negated",), 0.95),
}
"""The axes that are measured together, and the least share of their labels that must be found."""

PRECISION = 0.90
HELD_OUT_ALLOWANCE = 0.07
GENEVAL = 0.95
"""The least share of values that must be right; what held-out prompts may lose of either; counts and colours found."""

SUBJECTS = 2
"""How many subjects of an analysis are compared: the main one and the next."""

_GENERAL = {
    "painting": {"oil", "watercolour", "acrylic", "gouache", "digital_painting"},
    "drawing": {"ink", "pencil", "charcoal", "pastel", "comic_art"},
    "illustration": {"vector", "digital_painting", "comic_art"},
}
_ARTICLE = re.compile(r"^(?:any|an?|the|un[ao]?s?|el|l[ao]s?|ning[uú]na?)\s+", re.IGNORECASE)
_JOINED = re.compile(r"\s*(?:,|\b(?:or|and|nor|y|e|o|u|ni)\b)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LabelledPrompt:
    """A prompt, the values that it states by axis, and those on which readers differ."""

    prompt: str
    labels: Mapping[str, Any]
    maybe: Mapping[str, Any]

    @property
    def held_out(self) -> bool:
        """Whether it belongs to the quarter that rules are not written for; by its hash, never by its place."""
        return int(hashlib.sha256(self.prompt.encode()).hexdigest(), 16) % 4 == 0


@dataclass(frozen=True, slots=True)
class Score:
    """Of all prompts: how many `labels` there are, how many were `found`, how many values were `given` and `right`."""

    labels: int = 0
    found: int = 0
    given: int = 0
    right: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.labels + other.labels, self.found + other.found, self.given + other.given, self.right + other.right
        )

    @property
    def found_share(self) -> float:
        """Of the labels, how many were found."""
        return self.found / self.labels if self.labels else 1.0

    @property
    def precision(self) -> float:
        """Of the values given, how many are right."""
        return self.right / self.given if self.given else 1.0


@dataclass(frozen=True, slots=True)
class Mistake:
    """What one prompt's analysis missed of a group, and what it gave too much."""

    prompt: str
    missed: tuple[str, ...]
    wrong: tuple[str, ...]


def labelled_prompts() -> list[LabelledPrompt]:
    """All of them, in the order of the file."""
    with (FOLDER / "labelled.jsonl").open(encoding="utf-8") as file:
        return [LabelledPrompt(one["prompt"], one, one.get("maybe", {})) for one in map(json.loads, file)]


def score(group: str, prompts: Iterable[LabelledPrompt], analyse: Analyse) -> tuple[Score, list[Mistake]]:
    """The sum over the prompts, and every prompt that was not read as its label says."""
    total, mistakes = Score(), []
    for one in prompts:
        analysis = analyse(one.prompt)
        missed: list[str] = []
        wrong: list[str] = []
        for axis in GROUPS[group][0]:
            labels = _values(axis, one.labels.get(axis))
            ignored = _values(axis, one.maybe.get(axis)) - labels
            if axis == "medium":
                ignored |= {general for general, particular in _GENERAL.items() if particular & labels} - labels
            said = getattr(analysis, axis)
            given = _values(axis, said[:SUBJECTS] if axis == "subject" else said) - ignored
            total += Score(len(labels), len(labels & given), len(given), len(labels & given))
            missed += sorted(labels - given)
            wrong += sorted(given - labels)
        if missed or wrong:
            mistakes.append(Mistake(one.prompt, tuple(missed), tuple(wrong)))
    return total, mistakes


def _values(axis: str, value: Any) -> set[str]:
    """The values of an axis as comparable texts, of a label or of an analysis."""
    if value is None:
        return set()
    if axis == "count":
        return {str(value)}
    if axis == "negated":  # "boats or houses" is as good as "boats" and "houses"
        parts = (part for phrase in value for part in _JOINED.split(phrase.casefold()))
        return {_ARTICLE.sub("", part.strip(" .")) for part in parts if part.strip(" .")}
    return set(value)


def geneval_rows(*tags: str) -> list[dict[str, Any]]:
    """The rows of GenEval of these tags: `prompt`, and `include`, objects with `class`, `count` and perhaps `color`."""
    with (FOLDER / "geneval.jsonl").open(encoding="utf-8") as file:
        return [row for row in map(json.loads, file) if row["tag"] in tags]


def counts_found(rows: Sequence[Mapping[str, Any]], analyse: Analyse) -> Score:
    """How many prompts of counting rows gave the number of their one object."""
    right = sum(analyse(row["prompt"]).count == row["include"][0]["count"] for row in rows)
    return Score(len(rows), right, len(rows), right)


def colours_found(rows: Sequence[Mapping[str, Any]], analyse: Analyse) -> Score:
    """How many coloured objects came with their colour, and how many of the pairs that were given are one of these.

    An object is found under its name or the last word of it (*keyboard* for *computer keyboard*).
    """
    total = Score()
    for row in rows:
        pairs = {(colour, thing.casefold().split()[-1]) for colour, thing in analyse(row["prompt"]).colours if thing}
        asked = {(one["color"], one["class"].split()[-1]) for one in row["include"] if "color" in one}
        found = len(asked & pairs)
        total += Score(len(asked), found, len(pairs), found)
    return total
