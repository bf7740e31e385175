"""Cached prompt embeddings: in memory up to a size, and on disk for encoders that are dropped."""

from __future__ import annotations

import contextlib
import json
import os
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from pipeline.request import PromptTokens
from pipeline.storage.durable import write_whole
from pipeline.storage.user_folders import cache_folder, make_folder

if TYPE_CHECKING:
    import torch

MEMORY_BYTES = 512 * 2**20
"""SDXL's embeddings take 0.3 MB, those of T5 and Qwen about 4 MB each: hundreds of prompts at the least."""

DISK_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Embedding:
    """The encoded arguments of a pipeline's call for one text, by name; tensors on the CPU, one row each.

    `ragged` names those that the call takes as a list of tensors of their own lengths, without a row for the image.
    """

    tensors: dict[str, torch.Tensor]
    ragged: tuple[str, ...] = ()
    tokens: tuple[PromptTokens, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The size of all tensors together."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class EmbeddingCache:
    """A cache that drops the least recently used entries beyond its size; a file that cannot be read counts as missing.

    The folder on disk is the user's, private, and shared by all processes.
    """

    def __init__(self) -> None:
        self._memory: OrderedDict[str, Embedding] = OrderedDict()
        self._held_bytes = 0
        self._folder = cache_folder() / "embeddings"

    def get(self, key: str, *, on_disk: bool = False) -> Embedding | None:
        """The embedding stored under a key, also by an earlier process if `on_disk`."""
        known = self._memory.get(key)
        if known is not None:
            self._memory.move_to_end(key)
            return known
        found = self._read(key) if on_disk else None
        if found is not None:
            self._remember(key, found)
        return found

    def put(self, key: str, embedding: Embedding, *, on_disk: bool = False) -> None:
        """Store in memory, and if `on_disk` in a file too; a full or read-only disk is no error."""
        self._remember(key, embedding)
        if on_disk:
            with contextlib.suppress(OSError):
                self._write(key, embedding)

    def _remember(self, key: str, embedding: Embedding) -> None:
        before = self._memory.pop(key, None)
        self._held_bytes += embedding.size_bytes - (before.size_bytes if before else 0)
        self._memory[key] = embedding
        while self._held_bytes > MEMORY_BYTES and len(self._memory) > 1:
            self._held_bytes -= self._memory.popitem(last=False)[1].size_bytes

    def _read(self, key: str) -> Embedding | None:
        from safetensors import SafetensorError, safe_open

        path = self._folder / f"{key}.safetensors"
        try:
            with safe_open(path, framework="pt") as file:
                notes = json.loads(file.metadata()["embedding"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            tokens = tuple(PromptTokens(**one) for one in notes["tokens"])
            embedding = Embedding(tensors, tuple(notes["ragged"]), tokens)
            os.utime(path)
        except (OSError, SafetensorError, ValueError, TypeError, KeyError):
            return None
        return embedding

    def _write(self, key: str, embedding: Embedding) -> None:
        from safetensors.torch import save

        notes = {"ragged": embedding.ragged, "tokens": [asdict(one) for one in embedding.tokens]}
        tensors = {name: tensor.contiguous() for name, tensor in embedding.tensors.items()}
        content = save(tensors, metadata={"embedding": json.dumps(notes)})
        make_folder(self._folder.parent, cache_folder())
        self._folder.mkdir(mode=0o700, exist_ok=True)  # also in a cache folder of before, which others may read
        write_whole(self._folder / f"{key}.safetensors", content, mode=0o600, sync=False)
        self._make_room()

    def _make_room(self) -> None:
        files = [(entry, entry.stat()) for entry in self._folder.glob("*.safetensors")]
        held = sum(status.st_size for _, status in files)
        for path, status in sorted(files, key=lambda one: one[1].st_mtime_ns):
            if held <= DISK_BYTES:
                return
            path.unlink(missing_ok=True)
            held -= status.st_size
