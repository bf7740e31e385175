"""Describes the model that a scan found, including notes beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipeline.registry.huggingface_cache import claimed_sha256
from pipeline.registry.inspected import look_at
from pipeline.registry.records import StoredFile, StoredModel
from pipeline.registry.sidecars import Hints, read_hints
from pipeline.registry.walking import FoundModel
from pipeline.storage.foreign_names import plain
from pipeline.weights.headers.read import read_weights

GENERIC = ("diffusion_pytorch_model", "pytorch_lora_weights", "model")
"""File names that say nothing of a model; it is then called like its folder or repository."""

LAYOUT = frozenset(
    {"checkpoints", "diffusion_models", "unet", "loras", "vae", "controlnet", "embeddings", "ipadapter", "clip",
     "clip_vision", "text_encoders", "models", "stable-diffusion", "lora", "lycoris", "vae-approx", "snapshots",
     "diffusers", "model_patches"}
)  # fmt: skip
"""Folders of ComfyUI and A1111 that sort by kind. What is in a file decides, so these only are no tags."""

_TAGS_FROM_FOLDERS = 3


def described(item: FoundModel) -> tuple[StoredModel, list[StoredFile]]:
    """The model of an item, and its files. Raises `ModelError` if it is none, `OSError` if it is gone.

    The header says kind and family; sidecars and the names of folders only add words to search by.
    """
    look = look_at(item.path)
    hints = read_hints(list(item.sidecars))
    if look.kind == "lora" and not hints.trigger_words:
        hints = _from_header(item.path, hints)
    repository = item.repository
    files = [
        StoredFile.at(
            path,
            path.relative_to(item.path).as_posix() if path != item.path else path.name,
            claimed_sha256=claimed_sha256(path) if repository else hints.sha256,
        )
        for path in look.files
    ]
    model = StoredModel(
        name=_name(item),
        source="huggingface" if repository else "local",
        reference=repository.reference if repository else str(item.path),
        kind=look.kind,
        path=item.path,
        bytes=sum(file.bytes for file in files),
        family=look.family,
        precision=look.precision,
        base_model=hints.base_model or None,
        trigger_words=hints.trigger_words,
        tags=_tags(item, hints),
        revision=repository.commit if repository else None,
        branches=repository.branches() if repository else (),
        version_id=hints.version_id,
        model_id=hints.model_id,
    )
    return model, files


def _name(item: FoundModel) -> str:
    """The file's name without its ending, or the folder's; of a repository its own where the file's says nothing."""
    repository = item.repository
    if repository:
        own = PurePosixPath(repository.inside).stem if repository.inside else ""
        return repository.name.rpartition("/")[2] if own in ("", *GENERIC) else own
    if item.path.is_dir():
        return item.path.name
    return item.path.parent.name if item.path.stem in GENERIC else item.path.stem


def _tags(item: FoundModel, hints: Hints) -> tuple[str, ...]:
    """The sidecar's tags and title, and the names of the nearest folders that the user made."""
    parents = () if item.repository else item.folders[-_TAGS_FROM_FOLDERS:]
    folders = (plain(part) for part in parents if part.lower() not in LAYOUT)
    return tuple(dict.fromkeys(word for word in (*hints.tags, hints.title, *folders) if word))


def _from_header(path: Path, hints: Hints) -> Hints:
    """What trainers wrote into a LoRA's own header (modelspec, kohya)."""
    if path.is_dir():
        return hints
    said = read_weights(path).metadata
    words = (plain(word) for word in said.get("modelspec.trigger_phrase", "").split(","))
    base = hints.base_model or plain(said.get("ss_base_model_version"))
    return replace(hints, trigger_words=tuple(word for word in words if word), base_model=base)
