"""Selects the files of a repository to fetch: those that pictures need, in one precision, none that can run code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from pipeline.hubs.huggingface_protocol import RepositoryFile
from pipeline.registry.lookup import listed
from pipeline.storage.foreign_names import fault_of_name, same_file
from pipeline.weights.headers.base import PICKLES, WEIGHTS

SMALL = (".json", ".txt", ".model", ".jinja")
"""Configurations and vocabularies. Never taken: pickles (.bin, .ckpt, .pt), code (.py), other runtimes' weights."""

MOST_SMALL_BYTES = 64 * 2**20
"""No vocabulary is larger: Gemma's tokenizer.json, the largest known, has 33 MB."""

_LIBRARIES = ("diffusers", "transformers")
_NAMED_AS_LOADED = ("diffusion_pytorch_model", "model")
_WEIGHTS = re.compile(
    r"(?P<stem>[^/.]+?)(?:\.(?P<variant>[A-Za-z0-9_]+))?(?:-(?P<part>\d{5})-of-(?P<parts>\d{5}))?\.safetensors"
)
_VARIANTS = ("fp16", "bf16", None, "fp32")
"""The precision to fetch if a component has several: the one used on GPUs, at half the bytes."""

_LORA_FILES = ("pytorch_lora_weights.safetensors", "lora.safetensors")
_SHOWN = 8


class Unfit(Exception):
    """Raised if nothing in the repository can be used; the message says why."""


def named_files(listed: Iterable[RepositoryFile]) -> list[RepositoryFile]:
    """The files with safe names. Of names that some file systems treat as one, none is kept."""
    named = [file for file in listed if not fault_of_name(file.name)]
    names = Counter(same_file(file.name) for file in named)
    return [file for file in named if names[same_file(file.name)] == 1]


def is_pipeline(files: Iterable[RepositoryFile]) -> bool:
    """Whether the repository is a whole diffusers folder."""
    return any(file.name == "model_index.json" for file in files)


def pipeline_files(
    files: Sequence[RepositoryFile], index: Mapping[str, Any], *, weights: bool = True
) -> list[RepositoryFile]:
    """The files that a diffusers folder needs, by its `model_index.json`: small files, one set of weights a component.

    Left out are what text-to-image does without (safety checker), single-file copies beside the folders, other
    precisions; with `weights=False` all weights. Raises `Unfit` for code of its own and for weights that are only
    pickles.
    """
    from pipeline.weights.folder_inspection import NOT_LOADED  # with it comes all that detects families

    if not isinstance(index.get("_class_name"), str):
        raise Unfit("its model_index.json names no pipeline of diffusers")
    chosen = [file for file in files if file.name == "model_index.json"]
    for name, value in index.items():
        if name.startswith("_") or name in NOT_LOADED or not isinstance(value, list):
            continue
        if len(value) != 2 or None in value:
            continue
        if value[0] not in _LIBRARIES:
            raise Unfit(f"its component {name[:60]!r} is code from {str(value[0])[:60]!r}, which is never run")
        if fault_of_name(name) or "/" in name:
            raise Unfit(f"its model_index.json names a component {name[:60]!r}, which is no name")
        inside = [file for file in files if file.name.startswith(f"{name}/") and file.name.count("/") == 1]
        if not inside:
            raise Unfit(f"it lacks the folder {name}/, which its model_index.json names")
        chosen += _component(inside, name) if weights else _small(inside)
    return chosen


def component_files(files: Sequence[RepositoryFile]) -> list[RepositoryFile] | None:
    """The files that a component's repository (a VAE, a ControlNet) needs; None if it is none. Raises `Unfit`."""
    top = [file for file in files if "/" not in file.name]
    named = [file for file in top if (known := _WEIGHTS.fullmatch(file.name)) and known["stem"] in _NAMED_AS_LOADED]
    if not named or not any(file.name == "config.json" for file in top):
        return None
    return [*(file for file in top if file.name.endswith(".json")), *_weights(named, "it")]


def folder_files(files: Sequence[RepositoryFile], folder: str) -> list[RepositoryFile] | None:
    """The files that a component's folder in a repository needs; None if it is none. Raises `Unfit`."""
    inside = [file for file in files if str(PurePosixPath(file.name).parent) == folder]
    return _component(inside, folder) if any(file.name == f"{folder}/config.json" for file in inside) else None


def single_file(files: Sequence[RepositoryFile], name: str | None, repository: str) -> RepositoryFile:
    """The weights file to fetch: the named one, else the only one, else one with the usual name of a LoRA.

    Raises `Unfit`, with the candidates where there are several.
    """
    weights = [file for file in files if PurePosixPath(file.name).suffix.lower() in WEIGHTS]
    if name is not None:
        found = next((file for file in files if file.name == name), None)
        if found in weights and found is not None:
            return found
        if found is not None:
            raise Unfit(f"{name} is not taken: {_why_not(name)}")
        raise Unfit(f"has no file {name!r}{_candidates(weights, repository, '; it has')}")
    if len(weights) == 1:
        return weights[0]
    usual = [file for file in weights if PurePosixPath(file.name).name in _LORA_FILES]
    if len(usual) == 1:
        return usual[0]
    if weights:
        raise Unfit(f"holds several models{_candidates(weights, repository, '; say which:')}")
    pickle = next((file.name for file in files if PurePosixPath(file.name).suffix.lower() in PICKLES), None)
    if pickle:
        raise Unfit(
            f"has its weights only as {PurePosixPath(pickle).name}, a pickle, which can run code when opened; look for "
            "a copy as safetensors"
        )
    raise Unfit("holds no weights that could be used (.safetensors, .gguf)")


def has_weights(names: Iterable[str]) -> bool:
    """Whether any of these files is a weights file of a supported format."""
    return any(PurePosixPath(name).suffix.lower() in WEIGHTS for name in names)


def _component(inside: Sequence[RepositoryFile], name: str) -> list[RepositoryFile]:
    small = _small(inside)
    if not any(file.name == f"{name}/config.json" for file in small):
        return small  # a tokenizer, a scheduler
    weights = [file for file in inside if file.name.endswith(".safetensors")]
    named = [file for file in weights if _match(file)["stem"] in _NAMED_AS_LOADED] or weights
    if named:
        return small + _weights(named, f"{name}/")
    pickles = [file.name for file in inside if PurePosixPath(file.name).suffix.lower() in PICKLES]
    if pickles:
        raise Unfit(
            f"has the weights of {name}/ only as {PurePosixPath(pickles[0]).name}, a pickle, which can run code when "
            "opened; look for a copy as safetensors"
        )
    if any(PurePosixPath(file.name).name == "tokenizer_config.json" for file in small):
        return small
    raise Unfit(f"has no weights in {name}/ (*.safetensors)")


def _small(inside: Sequence[RepositoryFile]) -> list[RepositoryFile]:
    small = [file for file in inside if PurePosixPath(file.name).suffix.lower() in SMALL]
    large = next((file for file in small if (file.bytes or 0) > MOST_SMALL_BYTES), None)
    if large:
        raise Unfit(f"its {large.name} has {large.bytes:,} bytes, which no configuration or vocabulary has")
    return small


def _weights(files: Sequence[RepositoryFile], where: str) -> list[RepositoryFile]:
    """One precision of a component, with all its parts."""
    variants = {_match(file)["variant"] for file in files}
    # Other words than precisions (`non_ema`, `ema_only`) are for those who train on.
    wanted = next((variant for variant in _VARIANTS if variant in variants), sorted(map(str, variants))[0])
    chosen = [file for file in files if _match(file)["variant"] == wanted]
    parts = [file for file in chosen if _match(file)["parts"]]
    whole = [file for file in chosen if file not in parts]
    if whole:
        return whole
    count = int(_match(parts[0])["parts"] or 0)
    if len(parts) != count:
        raise Unfit(f"{where} has {len(parts)} of {count} parts of its weights")
    return parts


def _match(file: RepositoryFile) -> Mapping[str, str | None]:
    known = _WEIGHTS.fullmatch(PurePosixPath(file.name).name)
    return known.groupdict() if known else {"stem": file.name, "variant": "unknown", "part": None, "parts": None}


def _why_not(name: str) -> str:
    if PurePosixPath(name).suffix.lower() in PICKLES:
        return "it is a pickle, which can run code when opened"
    return f"expected a file that ends in {' or '.join(WEIGHTS)}"


def _candidates(weights: Sequence[RepositoryFile], repository: str, words: str) -> str:
    if not weights:
        return ""
    return f"{words} {listed([f'hf:{repository}/{file.name}' for file in weights], _SHOWN)}"
