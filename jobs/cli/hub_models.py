"""Models on the hubs as `darkroom models` prints them: for people, and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jobs.terminal import aligned
from pipeline.hubs.cards import Card
from pipeline.hubs.remote_models import LABELS, SearchHit
from pipeline.hubs.results import Problem, ProblemKind
from pipeline.system.units import size_text
from pipeline.weights.families import FAMILIES

if TYPE_CHECKING:
    from pipeline.hubs.find_or_fetch import Attempt, DownloadPlan

HIT_COLUMNS = (
    "source", "reference", "name", "kind", "family", "base_model", "licence", "bytes", "downloads", "path", "obstacle",
    "obstacle_text",
)  # fmt: skip

_SHOWN = ("name", "kind", "family", "size", "where", "reference", "obstacle")
_SIZE = (_SHOWN.index("size"),)
_OBSTACLES: dict[ProblemKind, str] = {
    "needs_login": "login", "early_access": "early access", "downloads_disabled": "no downloads",
    "refused": "unsafe or unusable",
}  # fmt: skip
"""What keeps a model from being had, in a word; others are called as they are."""

_LINES_OF_TEXT = 20


def hits_table(hits: Sequence[SearchHit]) -> list[str]:
    """A line for each search result, below a heading."""
    rows = [_SHOWN]
    for hit in hits:
        where = "here" if hit.path else LABELS[hit.source] if hit.source != "local" else ""
        size = "" if hit.bytes is None else size_text(hit.bytes)
        kind = hit.obstacle.kind if hit.obstacle else None
        obstacle = _OBSTACLES.get(kind, kind) if kind else ""
        rows.append((hit.name, hit.kind or "", hit.family or "", size, where, hit.reference, obstacle))
    return aligned(rows, _SIZE)


def hit_row(hit: SearchHit) -> dict[str, Any]:
    """A search result for JSON and CSV. `path` is null if the model is not here; `obstacle_text` is a sentence."""
    said = {name: getattr(hit, name) for name in HIT_COLUMNS if hasattr(hit, name)}
    return said | {"path": str(hit.path) if hit.path else None} | _obstacle(hit.obstacle)


def card_row(card: Card) -> dict[str, Any]:
    """A card for JSON."""
    return asdict(card) | _obstacle(card.obstacle)


def card_lines(card: Card) -> list[tuple[str, str]]:
    """Names and values for people; fields that the hub does not give are left out."""
    values = {
        "name": card.name,
        "kind": card.kind,
        "family": FAMILIES[card.family].label if card.family in FAMILIES else card.family,
        "base model": card.base_model,
        "trigger words": ", ".join(card.trigger_words),
        "settings": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in card.settings.items()),
        "tags": ", ".join(card.tags),
        "licence": card.licence,
        "reference": card.reference,
        "card": f"{LABELS[card.hub]}, {card.at[:10]}",
    }
    return [(name, value) for name, value in values.items() if value]


def text_lines(text: str) -> list[str]:
    """The beginning of the author's text, below an empty line."""
    lines = text.splitlines()
    more = [f"... and {len(lines) - _LINES_OF_TEXT} more lines (--json has all)"] if len(lines) > _LINES_OF_TEXT else []
    return ["", *lines[:_LINES_OF_TEXT], *more] if lines else []


def attempt_lines(tried: Sequence[Attempt]) -> list[tuple[str, str]]:
    """The places that were searched, in order, with the answer of each."""
    return [(attempt.where, attempt.said) for attempt in tried]


def attempt_rows(tried: Sequence[Attempt]) -> list[dict[str, str]]:
    """The same for JSON."""
    return [{"where": attempt.where, "said": attempt.said} for attempt in tried]


def plan_lines(plan: DownloadPlan) -> list[tuple[str, str]]:
    """What a download would fetch, for people."""
    model = plan.model
    here = len(model.files) - len(plan.missing)
    files = f"{len(plan.missing)} file{'' if len(plan.missing) == 1 else 's'}" + (
        f", {here} more are on this machine" if here else ""
    )
    values = [
        ("reference", model.reference),
        ("name", model.name),
        ("licence", model.licence or "unknown"),
        ("to fetch", f"{plan.bytes:,} bytes ({size_text(plan.bytes)}), {files}"),
        ("free", f"{plan.free_bytes:,} bytes ({size_text(plan.free_bytes)}){'' if plan.fits else ': too little'}"),
    ]
    for file in sorted(plan.missing, key=lambda one: -(one.bytes or 0)):
        values.append(("file", f"{'?' if file.bytes is None else size_text(file.bytes):>10}  {file.name}"))
    return [*values, *(("note", note) for note in model.notes)]


def plan_row(plan: DownloadPlan) -> dict[str, Any]:
    """What a download would fetch, for JSON."""
    missing = {file.name for file in plan.missing}
    return {
        "reference": plan.model.reference,
        "name": plan.model.name,
        "kind": plan.model.kind,
        "licence": plan.model.licence,
        "bytes": plan.bytes,
        "free_bytes": plan.free_bytes,
        "fits": plan.fits,
        "files": [
            {"name": file.name, "bytes": file.bytes, "sha256": file.sha256, "here": file.name not in missing}
            for file in plan.model.files
        ],
        "notes": list(plan.model.notes),
    }


def _obstacle(problem: Problem | None) -> dict[str, Any]:
    return {"obstacle": problem.kind if problem else None, "obstacle_text": problem.say() if problem else None}
