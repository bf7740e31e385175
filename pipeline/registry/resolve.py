"""Resolves a reference to a file or folder on this machine.

The registry's database is opened, and its code imported, only where a path does not decide.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.weights.references import (
    ADDRESSES,
    EMBEDDED,
    REPOSITORY,
    SCHEMES,
    Reference,
    asked_for,
    parse,
)


def resolve(reference: str, noun: str = "model") -> Path:
    """The local file or folder for a reference; no hub is asked.

    That is an embedded model's name, a path (`~` is understood), or what the registry knows by a hub's reference, a
    hash or a name. What was fetched is checked to be as it was. `noun` says in messages what was looked for; embedded
    names count for models only, and pictures (`image`) are found by path alone. Raises `ModelError` for what is not
    there, in one line that says what to do.
    """
    if noun == "model" and reference in EMBEDDED:
        return EMBEDDED[reference]
    if not reference.startswith((*SCHEMES, *ADDRESSES)) and (path := existing(reference)):
        return path
    if noun == "image":
        raise ModelError(f"image {reference!r}: no such file (looked in {Path.cwd()})")
    try:
        parsed = parse(reference)
    except ModelError as error:
        raise ModelError(f"{noun} {error}") from None
    if parsed.scheme == "path":
        raise _not_here(parsed, noun)
    from pipeline.registry.database import RegistryError
    from pipeline.registry.lookup import find_place

    try:
        place = find_place(parsed, noun)
    except RegistryError as error:
        if parsed.scheme != "name":
            raise
        raise ModelError(f"{_not_here(parsed, noun)}; the registry was not asked: {error}") from None
    if place is None:
        raise _not_here(parsed, noun)
    return place


def existing(reference: str) -> Path | None:
    """The file or folder at a path, if there is one; a file by the name it was asked for.

    In Hugging Face's cache files are links to nameless content, and it is the name that says what they are.
    """
    try:
        path = Path(reference).expanduser()
        if not reference.strip() or not path.exists():
            return None
        return path.parent.resolve() / path.name if path.is_file() else path.resolve()
    except (OSError, ValueError, RuntimeError):  # a name too long, with a null character, a home that is none
        return None


def is_remote(reference: str, noun: str = "model") -> bool:
    """Whether a reference names weights on another machine (`hf:org/name`, `civitai:123`) that are not on this one.

    `noun` is as in `resolve`. False for what is no reference: `resolve` says what is wrong with it. Raises `ModelError`
    if the registry cannot be read.
    """
    if not reference.startswith(SCHEMES):
        return False
    try:
        parsed = parse(reference)
    except ModelError:
        return False
    from pipeline.registry.lookup import is_known

    return not is_known(asked_for(parsed, noun))


def name_of(reference: str, path: Path) -> str:
    """The name of what `resolve` found at `path`: a path's file or folder name, else the registry's name.

    What lies in a hub's cache or in the store has a hash for a name. Raises `ModelError` if the registry cannot be
    read.
    """
    if reference in EMBEDDED:
        return reference
    named = Path(reference)
    if not existing(reference):
        from pipeline.registry.lookup import name_at

        if known := name_at(path):
            return known
        named = path
    return named.stem if path.is_file() else named.name or path.name


def _not_here(reference: Reference, noun: str) -> ModelError:
    text = reference.text
    fetched_with = f"darkroom models download {shlex.quote(asked_for(reference, noun).text)}"
    if reference.scheme in ("hf", "civitai"):
        return ModelError(
            f"{noun} {text!r}: not on this machine; fetch it with: {fetched_with} (with hub.auto_download=true a run "
            "does so itself)"
        )
    if reference.scheme == "sha256":
        whole = f", or ask CivitAI for it with: {fetched_with}" if len(reference.sha256 or "") == 64 else ""
        return ModelError(
            f"{noun} {text!r}: no file on this machine is known to have this hash; scan its folder with: "
            f"darkroom models scan FOLDER, and hash new files with: darkroom models verify{whole}"
        )
    if REPOSITORY.fullmatch(text):
        hub = f"; for the repository on Hugging Face write hf:{text}"
    else:
        hub = f"; download the model of this name with: {fetched_with}" if reference.scheme == "name" else ""
    looked = f"{noun} {text!r}: no such {'folder or file' if noun == 'model' else 'file'} (looked in {Path.cwd()})"
    named = ", and `darkroom models list` shows no such name" if reference.scheme == "name" else ""
    if noun != "model":
        return ModelError(f"{looked}{named}{hub}")
    return ModelError(
        f"{looked}{named}; expected a diffusers folder with a model_index.json, a .safetensors or .gguf file, or one "
        f"of the embedded models: {', '.join(EMBEDDED)}{hub}"
    )
