"""Selects the file of a CivitAI version to fetch, and maps CivitAI's kinds."""

from __future__ import annotations

from pipeline.hubs.civitai_protocol import ModelVersion, VersionFile
from pipeline.registry.records import StoredKind
from pipeline.storage.foreign_names import plain

KINDS: dict[str, StoredKind] = {
    "Checkpoint": "checkpoint", "UNet": "checkpoint", "LORA": "lora", "LoCon": "lora", "DoRA": "lora", "VAE": "vae",
    "Controlnet": "controlnet", "TextualInversion": "embedding",
}  # fmt: skip
"""Kinds of models on CivitAI that Darkroom uses; all others are refused."""

_WEIGHTS = ("Model", "Pruned Model", "UNet", "Diffusion Model", "ControlNet", "Negative")
"""Types of files that hold a version's own weights; `VAE` and the like are files of other versions put beside them."""

_PRECISIONS = ("fp16", "bf16", "", "fp32")
"""The order in which they are taken; packed ones come last, since not every one of them can be run."""


def chosen_file(version: ModelVersion, sha256: str | None = None) -> VersionFile | str:
    """The file of a version to fetch, or why there is none.

    It must be safetensors by its format and its name, scanned and found clean, and have a SHA-256: `sha256` if that is
    given. Of several, 16-bit ones come first, then pruned ones, the author's main one, the smallest.
    """
    own = [one for one in version.files if one.of_version in (0, version.id)]
    if sha256:
        own = [one for one in own if one.sha256 == sha256]
    weights = [one for one in own if one.type in _WEIGHTS] or [one for one in own if one.type == "VAE"]
    if not weights:
        return "has no file of weights"
    faults = [(_fault(one), one) for one in weights]
    sound = [one for fault, one in faults if not fault]
    if not sound:
        return faults[0][0]
    return min(sound, key=_order)


def _fault(file: VersionFile) -> str:
    """Why a file is not taken; empty for a sound one."""
    scans = [scan or "missing" for scan in (file.pickle_scan, file.virus_scan)]
    if file.format == "PickleTensor":
        return "has its weights only as a pickle, which can run code when opened; look for a copy as safetensors"
    if file.format not in ("SafeTensor", ""):  # not told of some; what the file is shows when it comes
        return f"has its weights only as {file.format}; safetensors are taken"
    if not file.name.endswith(".safetensors"):
        return f"calls its safetensors file {plain(file.name, 60)!r}, which is refused"
    if bad := next((result for result in scans if result != "Success"), None):
        return f"has not passed CivitAI's scan for malware (it says {bad!r})"
    if file.sha256 is None:
        return "has no SHA-256 by which the download could be checked"
    if not file.id:
        return "has a file without an id by which it could be requested"
    return ""


def _order(file: VersionFile) -> tuple[int, bool, bool, int, int]:
    place = _PRECISIONS.index(file.precision) if file.precision in _PRECISIONS else len(_PRECISIONS)
    return place, file.extent != "pruned", not file.primary, file.bytes or 0, file.id
