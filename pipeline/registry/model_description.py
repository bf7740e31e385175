"""Describes the model that a scan found, including notes beside it."""

from __future__ import annotations

from pipeline.registry.huggingface_cache import GENERIC, claimed_sha256, name_in_repository
from pipeline.registry.inspected import look_at
from pipeline.registry.readme import readme_hints
from pipeline.registry.records import ModelCard, StoredFile, StoredModel
from pipeline.registry.sidecars import read_hints
from pipeline.registry.training_notes import header_hints
from pipeline.registry.walking import FoundModel
from pipeline.storage.foreign_names import plain

LAYOUT = frozenset(
    {"checkpoints", "diffusion_models", "unet", "loras", "vae", "controlnet", "embeddings", "ipadapter", "clip",
     "clip_vision", "text_encoders", "models", "stable-diffusion", "lora", "lycoris", "vae-approx", "snapshots",
     "diffusers", "model_patches"}
)  # fmt: skip
"""Folders of ComfyUI and A1111 that sort by kind. What is in a file decides, so these only are no tags."""

_TAGS_FROM_FOLDERS = 3


def described(item: FoundModel) -> tuple[StoredModel, list[StoredFile], ModelCard]:
    """The model of an item, its files and its card. Raises `ModelError` if it is none, `OSError` if it is gone.

    The header says kind and family; sidecars, remarks in the header, a README and the names of folders only add what
    is claimed, of an adapter also the family where its header tells none.
    """
    from pipeline.registry.advised_settings import advised_card  # with it come all ranges and schedulers

    look = look_at(item.path)
    beside = read_hints(list(item.sidecars))
    hints = beside.filled(header_hints(item.path, look.kind)).filled(readme_hints(item.readme))
    family = look.family_by(hints.card.base_model)
    card = advised_card(hints, look.kind, family)
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
        family=family,
        precision=look.precision,
        base_model=card.base_model or None,
        licence=card.licence or None,
        trigger_words=card.trigger_words,
        tags=_tags(item, card.tags, beside.card.title),
        revision=repository.commit if repository else None,
        branches=repository.branches() if repository else (),
        version_id=hints.version_id,
        model_id=hints.model_id,
    )
    return model, files, card


def header_card(model: StoredModel) -> ModelCard:
    """The card of a model by its own header alone."""
    from pipeline.registry.advised_settings import advised_card

    return advised_card(header_hints(model.path, model.kind), model.kind, model.family)


def _name(item: FoundModel) -> str:
    """The file's name without its ending, or the folder's; of a repository its own where the file's says nothing."""
    if item.repository:
        return name_in_repository(item.repository.name, item.repository.inside)
    if item.path.is_dir():
        return item.path.name
    return item.path.parent.name if item.path.stem in GENERIC else item.path.stem


def _tags(item: FoundModel, tags: tuple[str, ...], title: str) -> tuple[str, ...]:
    """The tags that are claimed, the title beside the file, and the names of the nearest folders that the user made."""
    parents = () if item.repository else item.folders[-_TAGS_FROM_FOLDERS:]
    folders = (plain(part) for part in parents if part.lower() not in LAYOUT)
    return tuple(dict.fromkeys(word for word in (*tags, title, *folders) if word))
