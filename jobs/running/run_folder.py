"""The files of a run below `runs/<run_id>/`, and the lock that tells a running run from a dead one."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from jobs.config.batch_config import BatchConfig
from jobs.running.command_line import PATH_KEYS
from pipeline.metadata.leaks import scrub
from pipeline.storage.durable import write_whole
from pipeline.storage.locks import lock
from pipeline.version import VERSION

if TYPE_CHECKING:
    from jobs.planning.plan import Plan
    from jobs.running.command_line import KeptCommand
    from jobs.running.loop import Result

RUNS = "runs"
BATCH, SUMMARY, LOG, METRICS = "batch.yaml", "summary.json", "run.log", "metrics.jsonl"

_NOT_KEPT = {"hub", "on_end"}
"""How hubs are reached and who is told of the end change no picture, and both may hold a password."""


class RunFolder:
    """The folder of one run. `begin` at its start, `end` with its summary, `close` to release the lock."""

    def __init__(self, output_dir: Path, run_id: str) -> None:
        self.path = output_dir / RUNS / run_id
        self._lock: int | None = None

    def begin(self, configs: Sequence[BatchConfig], head: Mapping[str, Any]) -> None:
        """Write `batch.yaml`, the resolved configurations without paths and secrets, and lock it until `close`.

        `head` is what is known of the run from the start; it stands above them as comments, which are YAML as well.
        Raises `OSError`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        comments = yaml.safe_dump(scrubbed(dict(head)), sort_keys=False, allow_unicode=True, width=math.inf)
        documents = [scrubbed(config.model_dump(exclude=_NOT_KEPT)) for config in configs]
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # ten times faster, for a batch of thousands of lines
        text = yaml.dump_all(documents, Dumper=dumper, sort_keys=False, allow_unicode=True)
        content = "".join(f"# {line}\n" for line in comments.splitlines()) + text
        write_whole(self.path / BATCH, content.encode())
        with contextlib.suppress(OSError):  # a file system without locks: the run will not be seen to be alive
            self._lock = os.open(self.path / BATCH, os.O_RDWR)
            lock(self._lock)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`. Raises `OSError`."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / SUMMARY, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def head(run_id: str, started: datetime, device: str, plan: Plan, command: KeptCommand | None) -> dict[str, Any]:
    """The facts of a run that are known from its start."""
    return {
        "run_id": run_id,
        "darkroom": VERSION,
        "started": started.isoformat(timespec="seconds"),
        "device": device,
        "requested": plan.requested,
        "to_make": plan.to_make,
        "command": command.text if command else None,
        "command_complete": command.complete if command else False,
    }


def summary(
    run_id: str, plan: Plan, result: Result, started: datetime, exit_code: int, command: KeptCommand | None
) -> dict[str, Any]:
    """The results of a run."""
    finished = datetime.now(UTC)
    return {
        "run_id": run_id,
        "darkroom": VERSION,
        "python": platform.python_version(),
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": round((finished - started).total_seconds(), 3),
        "exit_code": exit_code,
        "command": command.text if command else None,
        "command_complete": command.complete if command else False,
        "requested": plan.requested,
        "duplicates": plan.duplicates,
        "skipped": plan.done + result.made_elsewhere,
        "failed_before": plan.failed_before,
        "made": result.made,
        "failed": sum(result.failed.values()),
        "left": result.left(plan),
        "failed_by_kind": dict(result.failed),
        "failures": [
            {"job_id": job_id, "kind": kind, "message": scrub(message)} for job_id, kind, message in result.failures
        ],
        "stopped": scrub(result.stopped) if result.stopped else None,
        "stop_kind": result.stop_kind,
        "model_loads": result.loads,
        "model_loads_minimum": plan.minimum_loads,
        "workers_lost": result.deaths,
        "workers_recycled": result.recycled,
        "seconds_per_phase": {
            "load": round(result.load_seconds, 3),
            "encode": round(result.phases.encode, 3),
            "denoise": round(result.phases.denoise, 3),
            "decode": round(result.phases.decode, 3),
        },
        "peak_vram_bytes": result.peak_vram_bytes,
        "peak_rss_bytes": result.peak_rss_bytes,
        "resources": {
            "mean": asdict(result.resources_mean) if result.resources_mean else None,
            "peak": asdict(result.resources_peak) if result.resources_peak else None,
        },
        "memory_stages": [asdict(peak) for peak in result.stages.all()],
    }


def scrubbed(value: Any) -> Any:
    """The same plain data without absolute paths, home folders, user names and keys."""
    if isinstance(value, dict):
        return {key: _scrubbed_path(key, entry) for key, entry in value.items()}
    if isinstance(value, range):  # as it may be given; ten million seeds would be ten million lines
        return f"range({value.start}, {value.stop}, {value.step})"
    if isinstance(value, list):
        return [scrubbed(entry) for entry in value]
    return scrub(value) if isinstance(value, str) else value


def _scrubbed_path(key: Any, value: Any) -> Any:
    """A path as its last part; the grid names such keys as `init.image` and `adapters.loras.0.source`."""
    if str(key).rpartition(".")[2] not in PATH_KEYS:
        return scrubbed(value)
    if isinstance(value, list):
        return [_scrubbed_path(key, entry) for entry in value]
    return _last_part(value) if isinstance(value, str) else scrubbed(value)


def _last_part(path: str) -> str:
    return scrub(Path(path).name if Path(path).expanduser().is_absolute() else path)
