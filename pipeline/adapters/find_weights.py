"""Finds the weights of an adapter on this machine, and checks their kind and whether they fit the model."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import JobFailure, ModelError
from pipeline.registry.resolve import name_of, resolve
from pipeline.weights.families import FAMILIES, Family
from pipeline.weights.hashes import file_hash, folder_hash
from pipeline.weights.inspection import FileFacts, ModelFiles, component_weights, inspect_file
from pipeline.weights.references import called


def find(source: str, kind: str, way_out: str) -> tuple[Path, FileFacts]:
    """The file or folder of an adapter and the facts in its header. Raises `ModelError` if it is of another kind.

    `way_out` says what is expected instead.
    """
    noun = kind.replace("_", "-")
    path = resolve(source, noun)
    with called(source, path):
        try:
            facts = inspect_file(path)
        except ModelError as error:
            raise ModelError(f"{noun} {error}") from None
        if facts.kind != kind:
            raise ModelError(f"{noun} {path.name}: is {_a(facts.kind)}, not {_a(kind)}; {way_out}")
    return path, facts


def check_family(noun: str, name: str, facts: FileFacts, files: ModelFiles, *, by_width: bool = True) -> None:
    """Raises `ModelError` if an adapter was made for another family than the model's, as far as headers tell.

    `by_width`: the adapter's `attention_width` means the same as the model's, so that they must be equal.
    """
    if facts.families and files.family and files.family not in facts.families:
        made_for = " or ".join(FAMILIES[family].label for family in facts.families)
        label = FAMILIES[files.family].label
        raise ModelError(f"{noun} {name}: was made for {made_for}, the model is {label}; take one made for {label}")
    own = files.attention_width
    if by_width and facts.attention_width and own and facts.attention_width != own:
        raise ModelError(
            f"{noun} {name}: was made for a model of width {facts.attention_width}, this one has {own}; "
            f"take one made for {files.label}"
        )


def family_label(files: ModelFiles) -> tuple[Family | None, str]:
    """The model's family, None if it is not a known one, and its name."""
    family = FAMILIES.get(files.family or "")
    return family, family.label if family else files.pipeline_class


def public_name(name: str | None, source: str, path: Path) -> str:
    """A name that may be written into images: the given one, or the name of what `source` resolves to, at `path`."""
    text = name or name_of(source, path)
    return re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip("-.") or "adapter"


def deciding_files(folder: Path) -> tuple[tuple[Path, ...], str | None]:
    """The files of a component's folder that pictures depend on, and their variant (`fp16` or None)."""
    weights, variant = component_weights(folder, folder.name)
    return (folder / "config.json", *weights), variant


def file_now(source: str, sha256: str, noun: str, name: str) -> Path:
    """The planned file. Raises `JobFailure` if it is gone or has changed."""
    path = Path(source)
    try:
        same = file_hash(path) == sha256
    except OSError:
        raise JobFailure(f"{noun} {name}: {path.name} is gone; put it back and run the same command again") from None
    if not same:
        raise JobFailure(f"{noun} {name}: {path.name} has changed since this was planned; run the command again")
    return path


def folder_now(source: str, sha256: str, noun: str, name: str) -> tuple[tuple[Path, ...], str | None]:
    """The files of the planned folder, and their variant. Raises `JobFailure` as `file_now` does."""
    folder = Path(source)
    try:
        files, variant = deciding_files(folder)
        same = folder_hash(folder, files) == sha256
    except (OSError, ModelError):
        raise JobFailure(f"{noun} {name}: {folder.name} is gone; put it back and run the same command again") from None
    if not same:
        raise JobFailure(f"{noun} {name}: {folder.name} has changed since this was planned; run the command again")
    return files, variant


def _a(kind: str) -> str:
    words = {"ip_adapter": "an IP-Adapter", "lora": "a LoRA", "embedding": "an embedding", "controlnet": "a ControlNet"}
    return words.get(kind, f"a {kind.replace('_', ' ')}")
