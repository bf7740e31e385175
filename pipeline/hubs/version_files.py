"""Which file of a CivitAI version is fetched, and what its words mean: base models, kinds, permissions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.hubs.json_fields import mapping, number, objects, sha256_of, words
from pipeline.registry.records import StoredKind
from pipeline.storage.foreign_names import plain

KINDS: dict[str, StoredKind] = {
    "Checkpoint": "checkpoint", "UNet": "checkpoint", "LORA": "lora", "LoCon": "lora", "DoRA": "lora", "VAE": "vae",
    "Controlnet": "controlnet", "TextualInversion": "embedding",
}  # fmt: skip
"""Kinds of models on CivitAI that Darkroom uses; all others are refused."""

TYPES: dict[StoredKind, tuple[str, ...]] = {
    "checkpoint": ("Checkpoint", "UNet"),
    "lora": ("LORA", "LoCon", "DoRA"),
    "vae": ("VAE",),
    "controlnet": ("Controlnet",),
    "embedding": ("TextualInversion",),
}
"""What is asked for in a search, by the kind that is looked for."""

_FAMILIES: dict[str, tuple[str, ...]] = {
    "sd15": ("SD 1.4", "SD 1.5", "SD 1.5 LCM", "SD 1.5 Hyper"),
    "sdxl": ("SDXL 0.9", "SDXL 1.0", "SDXL 1.0 LCM", "SDXL Lightning", "SDXL Hyper", "SDXL Turbo", "SDXL Distilled",
             "Pony", "Illustrious", "NoobAI"),
    "sd3": ("SD 3", "SD 3.5", "SD 3.5 Medium", "SD 3.5 Large", "SD 3.5 Large Turbo"),
    "flux": ("Flux.1 D", "Flux.1 S"),
    "flux2_klein": ("Flux.2 Klein 4B", "Flux.2 Klein 4B-base", "Flux.2 Klein 9B", "Flux.2 Klein 9B-base"),
    "qwen_image": ("Qwen",),
    "z_image": ("ZImageTurbo", "ZImageBase"),
    "lumina2": ("Lumina",),
    "chroma": ("Chroma",),
}  # fmt: skip
_FAMILY_OF = {base: family for family, bases in _FAMILIES.items() for base in bases}

_WEIGHTS = ("Model", "Pruned Model", "UNet", "Diffusion Model", "ControlNet", "Negative")
"""Types of files that hold a version's own weights; `VAE` and the like are files of other versions put beside them."""

_PRECISIONS = ("fp16", "bf16", "", "fp32")
"""The order in which they are taken; packed ones come last, since not every one of them can be run."""

_PERMISSIONS = {
    "allowNoCredit": "credit to the author",
    "allowDerivatives": "no merges",
    "allowDifferentLicense": "same permissions for merges",
}
"""What a model asks for where the field says false."""


def family_of_base(base_model: str) -> str | None:
    """The family of `pipeline.weights.families` that runs models of this base; None for the ever new ones.

    The name decides nothing: what is fetched is known by its tensors.
    """
    return _FAMILY_OF.get(base_model)


def chosen_file(version: Mapping[str, Any], sha256: str | None = None) -> Mapping[str, Any] | str:
    """The file of a version that is fetched, as CivitAI describes it, or why there is none.

    It must be safetensors by its format and its name, scanned and found clean, and have a SHA-256: `sha256` if that is
    given. Of several, 16-bit ones come first, then pruned ones, the author's main one, the smallest.
    """
    version_id = number(version.get("id"))
    whose = (None, version_id)
    own = [one for one in objects(version.get("files")) if number(one.get("modelVersionId")) in whose]
    if sha256:
        own = [one for one in own if digest_of(one) == sha256]
    weights = [one for one in own if one.get("type") in _WEIGHTS] or [one for one in own if one.get("type") == "VAE"]
    if not weights:
        return "has no file of weights"
    faults = [(_fault(one), one) for one in weights]
    sound = [one for fault, one in faults if not fault]
    if not sound:
        return faults[0][0]
    return min(sound, key=_order)


def permissions(model: Mapping[str, Any]) -> str | None:
    """What an author asks of those who use a model, in words; None where the answer says nothing of it."""
    asked = [said for field, said in _PERMISSIONS.items() if model.get(field) is False]
    commercial = model.get("allowCommercialUse")
    if isinstance(commercial, str | list):
        allowed = [use for use in words(commercial) if use != "None"]
        asked.append(f"commercial use: {', '.join(allowed)}" if allowed else "no commercial use")
    return "; ".join(asked) or None


def bytes_of(file: Mapping[str, Any]) -> int | None:
    """The size that CivitAI gives in KiB, as bytes."""
    size = file.get("sizeKB")
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < 2**43:
        return None
    return round(size * 1024)


def is_exact(file: Mapping[str, Any]) -> bool:
    """Whether the size is to the byte: in KiB with a fraction that makes whole bytes. Others somebody has rounded."""
    size = file.get("sizeKB")
    return isinstance(size, float) and not size.is_integer() and (size * 1024).is_integer()


def digest_of(file: Mapping[str, Any]) -> str | None:
    """The SHA-256 that CivitAI gives, usually in capitals."""
    return sha256_of(mapping(file.get("hashes")).get("SHA256"))


def _fault(file: Mapping[str, Any]) -> str:
    """Why a file is not taken; empty for a sound one."""
    said = plain(mapping(file.get("metadata")).get("format"))
    name = file.get("name")
    scans = [plain(file.get(scan)) or "missing" for scan in ("pickleScanResult", "virusScanResult")]
    if said == "PickleTensor":
        return "has its weights only as a pickle, which can run code when opened; look for a copy as safetensors"
    if said not in ("SafeTensor", ""):  # not told of some; what the file is shows when it comes
        return f"has its weights only as {said}; safetensors are taken"
    if not isinstance(name, str) or not name.lower().endswith(".safetensors"):
        return f"calls its safetensors file {plain(name, 60)!r}, which is refused"
    if bad := next((result for result in scans if result != "Success"), None):
        return f"has not passed CivitAI's scan for malware (it says {bad!r})"
    if digest_of(file) is None:
        return "has no SHA-256 by which the download could be checked"
    if number(file.get("id")) is None:
        return "has a file without a number by which it could be asked for"
    return ""


def _order(file: Mapping[str, Any]) -> tuple[int, bool, bool, int, int]:
    about = mapping(file.get("metadata"))
    precision = plain(about.get("fp"))
    place = _PRECISIONS.index(precision) if precision in _PRECISIONS else len(_PRECISIONS)
    return place, about.get("size") != "pruned", file.get("primary") is not True, bytes_of(file) or 0, file["id"]
