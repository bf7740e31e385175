"""One run in detail: models, memory, warnings of its log, and its failures by cause."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.archive.runs import Run
from jobs.archive.search import search
from jobs.manifest.schema import FAILED, QUARANTINED
from jobs.running.run_folder import LOG, METRICS
from jobs.running.run_log import BACKUPS
from jobs.running.run_metrics import BUNDLE, RESOURCES
from pipeline.errors import DarkroomError

MAX_CAUSES = 20
RECENT_BUNDLES = 5
"""From which the speed of a run that goes on is known."""

_EVENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (WARNING|ERROR|CRITICAL) (.*)")
_LEFT_OUT = re.compile(r"job [0-9a-f]{8} failed|refused: |.* times so far\)$")
"""Single images that failed, which are told elsewhere, and warnings that have been told."""

_ID = re.compile(r"\b(?=\w*\d)[0-9a-f]{8,}\b")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(slots=True)
class Cause:
    """Failures or warnings that differ only in numbers and ids: how many, the first one, and its time."""

    count: int
    example: str
    kind: str = ""
    time: str | None = None


@dataclass(slots=True)
class ModelUse:
    """The images and times of one model in a run; seconds by phase."""

    name: str
    images: int = 0
    failures: int = 0
    loads: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metrics:
    """The content of `metrics.jsonl`: the final speed of each model, and the last sample of the machine."""

    models: tuple[ModelUse, ...] = ()
    images_per_second: float | None = None
    resources: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Details:
    """The details of one run besides its counts."""

    metrics: Metrics
    warnings: tuple[Cause, ...]
    failures: tuple[Cause, ...]


def details(run: Run, output_dir: Path) -> Details:
    """Read the files of a run, and the causes of its failures from the manifest."""
    return Details(read_metrics(run), _by_cause(_warnings(run)), _by_cause(_failures(run, output_dir)))


def entries(run: Run, name: str) -> list[dict[str, Any]]:
    """A list of mappings in the summary of a run."""
    value = run.summary.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def read_metrics(run: Run) -> Metrics:
    """The measurements of a run so far; incomplete or unknown lines are skipped."""
    models: dict[str, ModelUse] = {}
    recent: deque[tuple[int, float]] = deque(maxlen=RECENT_BUNDLES)
    resources: dict[str, Any] | None = None
    for line in _json_lines(run.folder / METRICS):
        if line.get("kind") == RESOURCES:
            resources = line
        if line.get("kind") != BUNDLE:
            continue
        seconds = {name: _number(value) for name, value in _mapping(line.get("seconds")).items()}
        name, images = str(line.get("model")), int(_number(line.get("images")))
        use = models.setdefault(name, ModelUse(name))
        use.images += images
        use.failures += int(_number(line.get("failures")))
        use.loads += seconds.get("load", 0.0) > 0
        for phase, value in seconds.items():
            use.seconds[phase] = use.seconds.get(phase, 0.0) + value
        recent.append((images, sum(seconds.values())))
    made, took = sum(images for images, _ in recent), sum(seconds for _, seconds in recent)
    return Metrics(tuple(models.values()), made / took if made and took else None, resources)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError):
                    continue
                if isinstance(line, dict):
                    yield line
    except OSError:
        return


def _warnings(run: Run) -> Iterator[tuple[str, str, str | None]]:
    """Kind, text and time of the warnings in the log, oldest first."""
    paths = [run.folder / f"{LOG}.{number}" for number in range(BACKUPS, 0, -1)]
    for path in (*paths, run.folder / LOG):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                matches = (_EVENT.match(line) for line in file)
                yield from ((m[2], m[3], m[1]) for m in matches if m and not _LEFT_OUT.match(m[3]))
        except OSError:
            continue


def _failures(run: Run, output_dir: Path) -> Iterator[tuple[str, str, str | None]]:
    """Kind and message of each image that failed; of the first hundred where there is no manifest any more."""
    where = f"run_id = '{run.id}' AND status IN ('{FAILED}', '{QUARANTINED}')"
    try:
        for row in search(output_dir, where=where, columns=("error_kind", "error_message"), sort="created_at"):
            yield str(row["error_kind"]), str(row["error_message"]), None
    except DarkroomError:
        for one in entries(run, "failures"):
            yield str(one.get("kind")), str(one.get("message")), None


def _by_cause(entries: Iterable[tuple[str, str, str | None]]) -> tuple[Cause, ...]:
    """Those that differ in numbers and ids only as one, the most frequent first."""
    causes: dict[tuple[str, str], Cause] = {}
    for kind, text, time in entries:
        key = kind, _NUMBER.sub("n", _ID.sub("id", text))
        if key in causes:
            causes[key].count += 1
        else:
            causes[key] = Cause(1, text, kind, time)
    return tuple(sorted(causes.values(), key=lambda cause: -cause.count)[:MAX_CAUSES])


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0.0
