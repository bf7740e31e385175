"""The runs of an output folder: each run's state, counts, and the commands that resume it.

Output folders come from strangers too. So what their files say is bounded and typed here before anything is made of it.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from jobs.config.program_name import DARKROOM_RUN, REMOVED, RUN_PY
from jobs.manifest.layout import Layout, command
from jobs.manifest.query import stream
from jobs.manifest.schema import DONE, FAILED, QUARANTINED
from jobs.running.run_folder import BATCH, RUNS, SUMMARY
from pipeline.errors import ConfigError, LeakFound, ManifestLost, ReadError
from pipeline.storage.locks import is_locked

State = Literal["running", "finished", "stopped", "died"]

MAX_BYTES = 10_000_000
"""Of a summary or a batch.yaml; what is larger is none of ours."""

RUN_ID = re.compile(r"[0-9A-Za-z_-]{1,100}")


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `running`: its process lives. `died`: it ended without a summary. Counts are None if they are not known.

    `summary` is what it wrote at its end, empty before. `command` is the one that started it, not `command_complete`
    where something secret stood in it.
    """

    id: str
    folder: Path
    state: State
    started: str | None
    requested: int | None
    made: int | None
    failed: int | None
    left: int | None
    command: str | None
    command_complete: bool
    summary: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class WayOn:
    """A command that continues after a run, and what it does."""

    does: str
    command: str


def list_runs(output_dir: Path) -> list[Run]:
    """All runs, newest first; those of earlier versions too. Raises `ReadError` if there is no output folder."""
    if not output_dir.is_dir():
        raise ReadError(f"{output_dir}: is no folder; name the one with the images with --output-dir")
    return _read_all(output_dir, [path for path in _folders(output_dir) if path.is_dir()])


def running_runs(output_dir: Path) -> list[Run]:
    """The runs that are at work now, newest first; cheap where none is, however many there were."""
    live = [path for path in _folders(output_dir) if not (path / SUMMARY).is_file() and is_locked(path / BATCH)]
    return _read_all(output_dir, live)


def find_run(output_dir: Path, beginning: str) -> Run:
    """The run whose id begins so. Raises `ConfigError` if there is none or more than one."""
    found = [run for run in list_runs(output_dir) if run.id.startswith(beginning)]
    exact = [run for run in found if run.id == beginning]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        some = ", ".join(run.id for run in found[:3])
        raise ConfigError(f"{beginning}: {len(found)} runs begin so ({some}, ...); give more of the id")
    raise ConfigError(f"{beginning}: no run begins so; {command(output_dir, 'runs')} lists them")


def ways_on(run: Run, output_dir: Path) -> list[WayOn]:
    """The commands that make what a run has not made, in the order in which to give them; none if all is made.

    Where the run's own command is not known, it is called the same command.
    """
    if run.state == "running":
        return []
    again, ways = run.command or "the same command", []
    if run.summary.get("stop_kind") == ManifestLost.kind:
        ways.append(WayOn("adds the images to the manifest again; give this first", command(output_dir, "reindex")))
    if run.left or (run.left is None and run.state == "died"):
        left = "the rest" if run.left is None else f"what is left ({run.left:,})"
        ways.append(WayOn(f"makes {left}", again))
    kinds = run.summary.get("failed_by_kind")
    only_refused = isinstance(kinds, dict) and {*kinds} == {LeakFound.kind}  # the prompts are to be changed
    if (run.failed and not only_refused) or _count(run.summary, "failed_before"):
        retry = f"{again} retry_failed=true" if run.command else f"{again} with retry_failed=true"
        ways.append(WayOn("tries failed images again, after you fixed the cause", retry))
    return ways


def _folders(output_dir: Path) -> Iterator[Path]:
    folder = output_dir / RUNS
    return (path for path in (folder.iterdir() if folder.is_dir() else ()) if RUN_ID.fullmatch(path.name))


def _read_all(output_dir: Path, folders: Sequence[Path]) -> list[Run]:
    counts = _counts(output_dir, [path.name for path in folders if not (path / SUMMARY).is_file()])
    return [_read(path, counts.get(path.name, Counter())) for path in sorted(folders, reverse=True)]


def _read(folder: Path, counts: Counter[str]) -> Run:
    head, summary = _head(folder / BATCH), _summary(folder / SUMMARY)
    known = summary or head
    if summary:
        state: State = "stopped" if summary.get("stopped") else "finished"
        made, failed = _count(summary, "made"), _count(summary, "failed")
        left = _count(summary, "left")
        if left is None:  # of earlier versions
            others = [_count(summary, name) or 0 for name in ("duplicates", "skipped", "failed_before")]
            left = max(0, (_count(summary, "requested") or 0) - sum(others) - (made or 0) - (failed or 0))
    else:
        state = "running" if is_locked(folder / BATCH) else "died"
        made, failed = counts[DONE], counts[FAILED] + counts[QUARANTINED]
        to_make = _count(head, "to_make")
        left = None if to_make is None else max(0, to_make - made - failed)
    started = known.get("started")
    text = _command(known.get("command"))
    return Run(
        id=folder.name,
        folder=folder,
        state=state,
        started=started if isinstance(started, str) else None,
        requested=_count(known, "requested"),
        made=made,
        failed=failed,
        left=left,
        command=text,
        command_complete=text is not None and known.get("command_complete") is True,
        summary=summary,
    )


def _counts(output_dir: Path, run_ids: list[str]) -> dict[str, Counter[str]]:
    """How many rows of each status runs have that have not come to their end."""
    counts: dict[str, Counter[str]] = {}
    if not run_ids or not Layout(output_dir).root.is_dir():
        return counts
    ids = ", ".join(f"'{run_id}'" for run_id in run_ids)  # of letters, digits and dashes
    batches = stream(
        output_dir,
        lambda found: found.view("images").filter(f"run_id IN ({ids})").aggregate("run_id, status, count(*)"),
        feedback=False,
    )
    for run_id, status, count in itertools.chain.from_iterable(batches):
        counts.setdefault(run_id, Counter())[status] += count
    return counts


def _head(path: Path) -> dict[str, Any]:
    """The comments above the configurations."""
    try:
        with path.open(encoding="utf-8") as file:
            lines = itertools.takewhile(lambda line: line.startswith("# "), file)
            value = yaml.safe_load("".join(line[2:] for line in itertools.islice(lines, 100)))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def _summary(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _command(value: object) -> str | None:
    """A recorded command as it can be pasted: one of ours, each word quoted anew, none that starts another program."""
    try:
        words = shlex.split(value) if isinstance(value, str) else []
    except ValueError:
        return None
    program = " ".join(words[:2])
    if program not in (RUN_PY, DARKROOM_RUN):
        return None
    return " ".join((program, *(shlex.quote(word) for word in words[2:] if not _starts_program(word))))


def _starts_program(word: str) -> bool:
    return word.lstrip("+~").partition("=")[0] == "on_end" and not word.endswith(f"={REMOVED}")


def _count(values: dict[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
