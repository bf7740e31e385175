"""Small weights, and a download of them as the tests of the downloader start it."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hub_server import HubServer

from pipeline.hubs.connecting import Pace
from pipeline.hubs.downloading import Download
from pipeline.hubs.file_sources import FileSource
from pipeline.hubs.hub_settings import HubSettings
from pipeline.hubs.limits import Limits, RequestKind
from pipeline.hubs.retries import Patience
from pipeline.hubs.transport import Transport


def weights(body_bytes: int = 300_000, seed: int = 0) -> bytes:
    """A sound safetensors file with one tensor of random bytes."""
    entry = {"dtype": "U8", "shape": [body_bytes], "data_offsets": [0, body_bytes]}
    header = json.dumps({"weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + random.Random(seed).randbytes(body_bytes)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Fetching:
    """Downloads from one server into a folder. `waits` are the pauses that were made, in seconds; none really is."""

    def __init__(self, server: HubServer, folder: Path, pace: Pace | None = None) -> None:
        self.server, self.folder = server, folder
        self.waits: list[float] = []
        self.patience = Patience(sleep=self.waits.append, chance=lambda: 1.0)
        settings = HubSettings(huggingface_url=f"{server.url}/hf", civitai_url=f"{server.url}/civitai")
        limits = Limits(folder / "limits", sleep=lambda seconds: None)
        self.transport = Transport(settings, limits=limits, pace=pace)

    def offer(self, content: bytes, *, path: str = "/hf/a", **options: Any) -> FileSource:
        """Serve the content under this path."""
        return self.source(self.server.file(path, content, **options))

    def source(self, url: str) -> FileSource:
        kind: RequestKind = "civitai.file" if "/civitai/" in url else "huggingface.file"
        return FileSource(url, kind)

    def target(self, content: bytes, suffix: str = ".safetensors") -> Path:
        return self.folder / "store" / f"{sha256(content)}{suffix}"

    def partial(self, content: bytes) -> Path:
        target = self.target(content)
        return target.with_name(f"{target.name}.partial")

    def fetch(self, content: bytes, sources: FileSource | Sequence[FileSource], **options: Any) -> Path:
        """Download what should be this content."""
        given = {
            "sha256": sha256(content), "size_bytes": len(content), "transport": self.transport, "name": "a",
            "patience": self.patience, **options,
        }  # fmt: skip
        target = given.pop("target", self.target(content))
        return Download([sources] if isinstance(sources, FileSource) else sources, target, **given).run()

    def left(self) -> list[str]:
        """The names of all that lies in the store."""
        store = self.folder / "store"
        return sorted(path.name for path in store.iterdir()) if store.exists() else []

    def ranges(self) -> list[str | None]:
        """The Range of each request that came, in order."""
        return [request.header("Range") for request in self.server.requests]
