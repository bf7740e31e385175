"""`runs/<run_id>/metrics.jsonl`: a line for each bundle, and one every few seconds for the machine's load."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.metadata.leaks import scrub
from pipeline.storage.durable import write_all

if TYPE_CHECKING:
    from jobs.engines.bundle_metrics import BundleMetrics
    from pipeline.system.resources import Resources

BUNDLE, RESOURCES = "bundle", "resources"
"""What `kind` says of a line."""

SAMPLE_EVERY_S = 10.0


class RunMetrics:
    """Appends lines, from any thread. Lines that cannot be written are dropped and counted."""

    def __init__(self, path: Path, device: str) -> None:
        self._path, self._device = path, device
        self._lock = threading.Lock()
        self._dropped, self._error = 0, ""

    def bundle(self, one: BundleMetrics, *, made: int, failed: int, queue: int) -> None:
        """Append a bundle's measurements and the run's progress: images saved, failed, and left."""
        per_second = one.images_per_second
        self._append(
            BUNDLE,
            {
                "device": scrub(self._device),
                "model": scrub(one.model),
                "width": one.width,
                "height": one.height,
                "batch_sizes": list(one.batch_sizes),
                "images": one.images,
                "failures": one.failures,
                "seconds": {
                    "load": round(one.load_seconds, 3),
                    "encode": round(one.encode_seconds, 3),
                    "denoise": round(one.denoise_seconds, 3),
                    "decode": round(one.decode_seconds, 3),
                },
                "images_per_second": None if per_second is None else round(per_second, 3),
                "peak_vram_bytes": one.peak_vram_bytes,
                "peak_rss_bytes": one.peak_rss_bytes,
                "made": made,
                "failed": failed,
                "queue": queue,
            },
        )

    def resources(self, sample: Resources) -> None:
        """Append the machine's load; `rss_bytes` is the worker's."""
        self._append(RESOURCES, asdict(sample))

    @property
    def fault(self) -> str | None:
        """How many lines were lost and why, for the user; None if none was."""
        return f"{self._dropped} lines of it are lost: {self._error}" if self._dropped else None

    def _append(self, kind: str, values: dict[str, Any]) -> None:
        entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "kind": kind, **values}
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            try:
                fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
                try:
                    write_all(fd, line)
                finally:
                    os.close(fd)
            except OSError as error:
                self._dropped, self._error = self._dropped + 1, error.strerror or str(error)
