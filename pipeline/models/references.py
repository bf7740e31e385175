"""From what a user writes to a file or folder on this machine."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ModelError

EMBEDDED = {"demo": Path(__file__).resolve().parent.parent / "demo"}
"""Models that are shipped with the program, by name."""

EMBEDDED_DEFAULTS = {"demo": (20, 2.0)}
"""Steps and guidance scale that suit the embedded models; the same values stand in their profiles in `conf/model`."""

_REMOTE = ("hf:", "civitai:", "sha256:", "http:", "https:")


def resolve(reference: str, noun: str = "model") -> Path:
    """The local file or folder that a reference means: an embedded model's name, or a path (`~` is understood).

    `noun` says in messages what was looked for; embedded names count for models only. Raises `ModelError` for what is
    not there and for references that are not local.
    """
    if noun == "model" and reference in EMBEDDED:
        return EMBEDDED[reference]
    if is_remote(reference):
        raise ModelError(
            f"{noun} {reference!r}: only models on this machine can be used; give the path of a file or folder"
        )
    path = Path(reference).expanduser()
    try:
        there = path.exists()
    except (OSError, ValueError):  # a name too long, or with a null character
        there = False
    if there:
        return path.resolve()
    if noun != "model":
        raise ModelError(f"{noun} {reference!r}: no such file (looked in {Path.cwd()})")
    raise ModelError(
        f"model {reference!r}: no such folder or file (looked in {Path.cwd()}); expected a diffusers folder with a "
        f"model_index.json, a .safetensors or .gguf file, or one of the embedded models: {', '.join(EMBEDDED)}"
    )


def is_remote(reference: str) -> bool:
    """Whether a reference names weights on another machine (`hf:org/name`, `civitai:123`, a web address)."""
    return reference.startswith(_REMOTE)
