"""Unrated images in the order in which a rating says most: first those of models and looks that were rated least."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from jobs.archive.pictures import is_there
from jobs.archive.search import Found, search
from jobs.manifest.preferences import look_by_rules, read_preferences
from pipeline.learning.rated_pictures import MODEL

MAX_QUEUE = 5_000
"""Images that are considered, the newest ones."""

COLUMNS = (
    "image_id", "job_id", "path", "prompt", "model", "loras", "steps", "guidance_scale", "scheduler", "seed",
    "width", "height", "rating", "picked", "rejected", "removed",
)  # fmt: skip


class RatingQueue:
    """Images without a rating that words and a condition find, and whose files are there."""

    def __init__(self, output_dir: Path, text: str = "", where: str | None = None) -> None:
        self._waiting: dict[tuple[str, str], deque[Found]] = {}
        for row in islice(_unrated(output_dir, text, where), MAX_QUEUE):
            self._waiting.setdefault((row["model"], look_by_rules(row["prompt"])), deque()).append(row)
        preferences = read_preferences(output_dir)
        self._known = {
            # Of two that were never rated in this look, the one whose model is less known comes first.
            (model, cell): (preferences.ratings(MODEL, model, cell), preferences.ratings(MODEL, model))
            for model, cell in self._waiting
        }

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Found]:
        return self

    def __next__(self) -> Found:
        """Take the image that is known least; it counts as known from now on."""
        open_cells = [cell for cell, rows in self._waiting.items() if rows]
        if not open_cells:
            raise StopIteration
        cell = min(open_cells, key=lambda one: (self._known[one], one))
        in_look, in_all = self._known[cell]
        self._known[cell] = in_look + 1, in_all + 1
        return self._waiting[cell].popleft()


def _unrated(output_dir: Path, text: str, where: str | None) -> Iterator[Found]:
    for row in search(output_dir, text, where, COLUMNS):
        is_unrated = row["rating"] is None and not (row["picked"] or row["rejected"] or row["removed"])
        if is_unrated and row["path"] and is_there(output_dir, row["path"]):
            yield row
