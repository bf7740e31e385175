"""The registry's data about a model and its files, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from pipeline.storage.file_state import state_of

Source = Literal["local", "huggingface", "civitai"]
"""Where a model came from. `local` is what a scanned folder holds and no hub's layout tells the origin of."""

StoredKind = Literal["checkpoint", "lora", "vae", "controlnet", "embedding", "ip_adapter"]

KINDS: tuple[StoredKind, ...] = get_args(StoredKind)
"""What models are for. A denoiser without encoders is a checkpoint too: `model.source` takes both."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model on this machine: a file, a diffusers folder or the folder of one component.

    `reference` is canonical: `hf:org/name@<commit>`, with `/file` where it is one file of a repository,
    `civitai:<versionId>`, or the path. `id` is 0 until the registry has given one. `bytes` are those of its files.
    `revision` is the commit, `branches` are names that pointed to it when it was last looked. `version_id` and
    `model_id` are CivitAI's, of a scanned file as a file beside it claims. Times are UTC, in ISO format; `last_used` is
    None for what was never used by its reference or name.
    """

    name: str
    source: Source
    reference: str
    kind: StoredKind
    path: Path
    bytes: int
    family: str | None = None
    precision: str | None = None
    base_model: str | None = None
    licence: str | None = None
    trigger_words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    last_used: str | None = None
    added_at: str = ""
    revision: str | None = None
    branches: tuple[str, ...] = ()
    version_id: int | None = None
    model_id: int | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a model. `name` is the author's name for it, never a path to write to.

    `sha256` is what the file must hold: of a fetched file as the hub said and the download confirmed, of a scanned one
    as it was when it was first hashed; None until then. `claimed_sha256` is what a file beside it says, unchecked.
    `tensor_hash` is that of `pipeline.weights.hashes`. `owned`: fetched by Darkroom into its store, so it may be
    removed.
    """

    name: str
    path: Path
    bytes: int
    mtime_ns: int
    inode: int
    sha256: str | None = None
    tensor_hash: str | None = None
    claimed_sha256: str | None = None
    owned: bool = False
    model_id: int = 0

    @classmethod
    def at(
        cls,
        path: Path,
        name: str,
        *,
        sha256: str | None = None,
        claimed_sha256: str | None = None,
        owned: bool = False,
    ) -> StoredFile:
        """The record of the file at a path as it is now. Raises `OSError`."""
        return cls(name, path, *state_of(path.stat()), sha256, claimed_sha256=claimed_sha256, owned=owned)

    def now(self) -> StoredFile:
        """The same file with size, time and inode as they are now. Raises `OSError`."""
        size, mtime_ns, inode = state_of(self.path.stat())
        return replace(self, bytes=size, mtime_ns=mtime_ns, inode=inode)

    def unchanged(self) -> bool:
        """Whether size, time and inode are as recorded; then the content is too, as far as can be told unread."""
        try:
            return state_of(self.path.stat()) == (self.bytes, self.mtime_ns, self.inode)
        except OSError:
            return False


def now() -> str:
    """The current time as the registry writes it: UTC, in ISO format, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What authors, sidecars and headers say of a model: claims, bounded and plain text, that decide no file access.

    `base_model` is the base's own name (`Pony`, `SDXL 1.0`). `tag_counts` are the commonest tags of a LoRA's training
    captions (`ss_tag_frequency`) with their counts, the commonest first. `weight`, `weight_min` and `weight_max` are
    the author's advice for a LoRA. `settings` are advised sampling values by the names of `sampling`. `downloads`,
    `thumbs_up` are what a hub counted, None where none told. `v_prediction`: the file's own marks say so.
    """

    title: str = ""
    description: str = ""
    base_model: str = ""
    licence: str = ""
    tags: tuple[str, ...] = ()
    trigger_words: tuple[str, ...] = ()
    example_prompts: tuple[str, ...] = ()
    tag_counts: tuple[tuple[str, int], ...] = ()
    negative_words: tuple[str, ...] = ()
    weight: float | None = None
    weight_min: float | None = None
    weight_max: float | None = None
    settings: tuple[tuple[str, float | int | str], ...] = ()
    downloads: int | None = None
    thumbs_up: int | None = None
    v_prediction: bool = False
