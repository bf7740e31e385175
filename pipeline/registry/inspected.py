"""Inspects a file or folder for the registry, from headers and small files only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ModelError
from pipeline.registry.records import KINDS, StoredKind
from pipeline.weights.families import family_of_base

if TYPE_CHECKING:
    from pipeline.weights.model_files import FileFacts


@dataclass(frozen=True, slots=True)
class Look:
    """Kind, family and precision as far as headers tell; `files` are those that pictures depend on.

    `families` are all that the tensors fit, as in `FileFacts`.
    """

    kind: StoredKind
    family: str | None
    precision: str | None
    files: tuple[Path, ...]
    families: tuple[str, ...] = ()

    def family_by(self, base_model: str) -> str | None:
        """The family; of an adapter whose header does not tell, that of the base which is claimed, if it fits."""
        if self.family or self.kind == "checkpoint":
            return self.family
        claimed = family_of_base(base_model)
        return claimed if not self.families or claimed in self.families else None


def look_at(path: Path, *, configuration: bool = False) -> Look:
    """Inspect a weights file, a diffusers folder or a component's folder.

    `configuration`: a diffusers folder without its weights. Raises `ModelError` for what is damaged, refused, of no
    known kind, or of a kind that is nothing by itself.
    """
    from pipeline.weights.folder_inspection import inspect_folder, read_json
    from pipeline.weights.inspection import inspect_file, inspect_model

    if configuration:
        without = inspect_folder(path, supplied=read_json(path / "model_index.json", "not a diffusers folder"))
        return Look("checkpoint", without.family, None, without.files)
    if (path / "model_index.json").is_file():
        model = inspect_model(path)
        denoiser = model.component(model.denoiser)
        precision = model.quantization or (denoiser.dtype if denoiser else None)
        return Look("checkpoint", model.family, precision, model.files)
    return as_stored(inspect_file(path))


def as_stored(facts: FileFacts) -> Look:
    """The same of an inspected file or component. Raises `ModelError` for a kind that is nothing by itself."""
    kind = "checkpoint" if facts.kind == "denoiser" else facts.kind
    if kind == "text_encoder" and "Vision" in (facts.class_name or ""):
        kind = "ip_adapter"  # the image encoder that goes with some
    known = next((one for one in KINDS if one == kind), None)
    if known is None:
        raise ModelError(
            f"{facts.path.name}: is {facts.label}, a {kind.replace('_', ' ')}, which is not used by itself"
        )
    return Look(known, facts.family, facts.quantization or facts.dtype, facts.files, facts.families)
