"""Files that a scan finds, as small as they can be, and a store as downloads leave it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from published_weights import write_header

from pipeline.registry.content import blob_path, snapshot, suffix_of
from pipeline.registry.database import Registry
from pipeline.registry.records import StoredFile, StoredModel
from pipeline.registry.storing import add
from pipeline.weights.references import EMBEDDED

_LAYER = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
WIDTHS = {"sd15": 768, "sdxl": 2048}


def write_lora(path: Path, family: str = "sdxl", rank: int = 4, metadata: Mapping[str, str] | None = None) -> Path:
    """A LoRA of one layer; its weights are zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {f"{_LAYER}.lora_down.weight": (rank, WIDTHS[family]), f"{_LAYER}.lora_up.weight": (640, rank)}
    return write_header(path, shapes, metadata=metadata)


def write_embedding(path: Path, vectors: int = 2) -> Path:
    """A textual inversion for SD 1.5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_header(path, {"emb_params": (vectors, 768)}, dtype="F32")


def write_demo(folder: Path) -> Path:
    """The embedded model as somebody's diffusers folder, without its code."""
    shutil.copytree(EMBEDDED["demo"], folder, ignore=shutil.ignore_patterns("*.py", "*.md", "__pycache__"))
    return folder


def write_hub_cache(hub: Path, name: str, commit: str, files: Mapping[str, Path], branch: str = "main") -> Path:
    """A repository as Hugging Face's programs cache it: blobs by hash, and a snapshot of links; that is returned."""
    folder = hub / f"models--{name.replace('/', '--')}"
    snapshot_folder = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / branch).write_text(commit)
    for inside, source in files.items():
        blob = folder / "blobs" / hashlib.sha256(source.read_bytes()).hexdigest()
        shutil.copyfile(source, blob)
        link = snapshot_folder / inside
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(*[".."] * (len(link.relative_to(folder).parts) - 1), "blobs", blob.name))
    return snapshot_folder


def below(folder: Path) -> dict[str, Path]:
    """The files of a folder by their relative names."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def into_store(source: Path, name: str | None = None) -> StoredFile:
    """A file in the store, as a download leaves it."""
    name = name or source.name
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    blob = blob_path(sha256, suffix_of(name))
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, blob)
    return StoredFile.at(blob, name, sha256=sha256, owned=True)


def fetched(registry: Registry, source: Path, version_id: int, **values: object) -> StoredModel:
    """A LoRA that was fetched from CivitAI."""
    file = into_store(source)
    said = {"name": source.stem, "kind": "lora", "family": "sdxl", **values}
    reference = f"civitai:{version_id}"
    model = StoredModel(
        source="civitai", reference=reference, path=file.path, bytes=file.bytes, version_id=version_id, **said
    )  # type: ignore[arg-type]
    return add(registry, model, [file])


def fetched_folder(registry: Registry, source: Path, name: str, commit: str) -> StoredModel:
    """A diffusers folder that was fetched from Hugging Face."""
    blobs = {inside: into_store(path, inside) for inside, path in below(source).items()}
    folder = snapshot({inside: file.sha256 or "" for inside, file in blobs.items()})
    files = [StoredFile.at(folder / n, n, sha256=file.sha256, owned=True) for n, file in blobs.items()]
    model = StoredModel(
        name=name.rpartition("/")[2],
        source="huggingface",
        reference=f"hf:{name}@{commit}",
        kind="checkpoint",
        path=folder,
        bytes=sum(file.bytes for file in files),
        revision=commit,
        branches=("main",),
    )
    return add(registry, model, files)


def write_sidecar(model: Path, ending: str, value: object) -> Path:
    """What another program noted beside a file of weights."""
    path = model.with_name(model.stem + ending)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
