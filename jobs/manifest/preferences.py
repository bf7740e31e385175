"""What ratings of an output folder say of models, LoRAs, schedulers and guidance: rows and ratings, brought together.

A picture counts with the last word on it, at the moment when that was said. A `reset` starts counting anew.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.manifest.query import connect, raise_if_vanished, read_retried
from jobs.manifest.ratings_events import PICK, RATING, REJECT, RESET, YES
from jobs.manifest.ratings_view import LOST, Said, read_said
from jobs.manifest.snapshot import Snapshot
from pipeline.errors import ReadError
from pipeline.learning.kept_preferences import kept
from pipeline.learning.preferences import NO_PREFERENCES, Preferences, learn
from pipeline.learning.rated_pictures import MODEL, RatedPicture, credit
from pipeline.prompting.analysis import AXES, PromptAnalysis, main_look
from pipeline.selection.choice import read_choice

MAX_PICTURES = 5_000
"""Pictures that are learned from: with a half-life of 500 ratings, older ones would count less than a thousandth."""

_MAX_SELECTION = 1_000_000
"""Characters of what was recorded of a choice; what is longer is none of ours."""


def read_preferences(output_dir: Path) -> Preferences:
    """What was learned from the ratings of this output folder; `NO_PREFERENCES` where there are none.

    Raises `ReadError` for a damaged manifest.
    """
    pictures = read_rated(output_dir)
    return learn(pictures) if pictures else NO_PREFERENCES


def read_rated(output_dir: Path) -> list[RatedPicture]:
    """The rated pictures since the last reset, in the order in which the last word on them was said.

    Of more than `MAX_PICTURES` the latest.
    """
    verdicts = _verdicts(read_said(output_dir))
    for image_id in list(verdicts)[:-MAX_PICTURES]:
        del verdicts[image_id]
    if not verdicts:
        return []
    rows = read_retried(output_dir, functools.partial(_rows, ids=list(verdicts)))
    return [_picture(verdicts[image_id], rows[image_id]) for image_id in verdicts if image_id in rows]


_COLUMNS = (
    "image_id", "prompt", "model", "loras", "lora_weights", "scheduler", "guidance_scale", "selection",
)  # fmt: skip


def _rows(snapshot: Snapshot, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    import duckdb

    query = (
        f"SELECT {', '.join(_COLUMNS)} FROM images WHERE status = 'done' AND image_id IN (SELECT unnest(?::VARCHAR[]))"
    )
    try:
        with raise_if_vanished(snapshot), connect(snapshot, feedback=False) as connection:
            found = connection.execute(query, [ids]).fetchall()
    except duckdb.Error as error:
        raise ReadError(f"ratings cannot be learned from: {str(error).splitlines()[0]}") from error
    return {row[0]: dict(zip(_COLUMNS, row, strict=True)) for row in found}


@dataclass(slots=True)
class _Verdict:
    """The last word on an image: its stars, its place in a group, and the stars in that group."""

    stars: int | None = None
    verdict: float = 0.0
    group: Sequence[str] = ()
    group_mean: float | None = None


def _verdicts(said: Sequence[Said]) -> dict[str, _Verdict]:
    """The last word on each image that was rated, picked, rejected or compared, in order of time."""
    groups: dict[str, list[str]] = {}
    found: dict[str, _Verdict] = {}
    for image_id, kind, _, _, event in said:
        if kind in (PICK, LOST):
            groups.setdefault(event, []).append(image_id)
    for image_id, kind, value, _, event in said:
        if kind == RESET:
            found.clear()
        if kind not in (RATING, PICK, LOST, REJECT):
            continue
        one = found.pop(image_id, None) or _Verdict()
        found[image_id] = one  # behind all others: the last word on it was said now
        if kind == RATING:
            one.stars = int(value) if value in ("1", "2", "3", "4", "5") else None
        elif kind == PICK:
            one.verdict, one.group = float(value == YES and len(groups[event]) > 1), groups[event]
        elif kind == LOST:
            one.verdict, one.group = -1 / (len(groups[event]) - 1), groups[event]
        else:
            one.verdict, one.group = -float(value == YES), ()
    for one in found.values():
        stars = [other.stars for image_id in one.group if (other := found.get(image_id)) and other.stars is not None]
        one.group_mean = sum(stars) / len(stars) if stars else None
    return {image_id: one for image_id, one in found.items() if one.stars is not None or one.verdict}


def _picture(said: _Verdict, row: dict[str, Any]) -> RatedPicture:
    choice = _choice(row["selection"])
    model, score = row["model"], choice.score
    loras, weights = row["loras"] or [], row["lora_weights"] or []
    scores = [choice.loras.get(name) for name in loras]
    if score is not None and all(one is not None for one in scores):
        shares = credit(model, score, [(name, one or 0.0) for name, one in zip(loras, scores, strict=True)])
    else:
        shares = credit(model, 1.0, [(name, abs(weight)) for name, weight in zip(loras, weights, strict=False)])
    return RatedPicture(
        stars=said.stars,
        verdict=said.verdict,
        group_mean=said.group_mean,
        look=choice.look or look_by_rules(choice.prompt or row["prompt"]),
        shares=shares,
        scheduler=row["scheduler"],
        guidance_scale=row["guidance_scale"],
        score=score,
    )


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Of a recorded choice what learning needs. `score` is what the rules gave the model that they chose."""

    score: float | None = None
    loras: dict[str, float] = field(default_factory=dict)
    prompt: str = ""
    look: str = ""


def _choice(selection: str | None) -> _Chosen:
    """Anybody may have written it: what is not as expected is not there."""
    if not selection or len(selection) > _MAX_SELECTION:
        return _Chosen()
    try:
        content = json.loads(selection)
        choice = read_choice(content["choice"])
        analysis, statistics = content.get("analysis"), content.get("statistics")
    except (ReadError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _Chosen()
    look = _recorded_look(analysis)
    score = None if choice.model.source == "asked" else choice.model.score
    if score is not None and statistics is not None:
        # The rules are held to account for what they gave, not for what had been learned from the same ratings.
        learned = _kept(statistics) if isinstance(statistics, str) and look else None
        score = None if learned is None else score - learned.effect(MODEL, choice.model.chosen, look)
    return _Chosen(score, {one.chosen: one.score for one in choice.loras}, choice.prompt.own, look)


def _recorded_look(analysis: Any) -> str:
    """The look of a recorded analysis, as `main_look` has it; empty where there is none."""
    if not isinstance(analysis, dict):
        return ""
    styles, media = (tuple(_texts(analysis.get(axis), AXES[axis])) for axis in ("style", "medium"))
    return main_look(PromptAnalysis(style=styles, medium=media))


def _texts(values: Any, known: Sequence[str]) -> list[str]:
    return [one for one in values if one in known] if isinstance(values, list) else []


@functools.cache
def _kept(hash: str) -> Preferences | None:
    """The preferences that a choice used; None where they are not here any more."""
    try:
        return kept(hash)
    except ReadError:
        return None


@functools.lru_cache(maxsize=MAX_PICTURES)
def look_by_rules(prompt: str) -> str:
    """The look that the rules find in a prompt."""
    from pipeline.prompting.rules import analyse

    return main_look(analyse(prompt))
