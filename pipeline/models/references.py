"""From what a user writes to a folder on this machine."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ModelError

EMBEDDED = {"demo": Path(__file__).resolve().parent.parent / "demo"}
"""Models that are shipped with the program, by name."""

EMBEDDED_DEFAULTS = {"demo": (20, 2.0)}
"""Steps and guidance scale that suit the embedded models; the same values stand in their profiles in `conf/model`."""

_REMOTE = ("hf:", "civitai:", "sha256:", "http:", "https:")


def resolve(reference: str) -> Path:
    """The local folder that a reference means: an embedded model's name, or a path (`~` is understood).

    Raises `ModelError` for a folder that is not there and for references that are not local.
    """
    if reference in EMBEDDED:
        return EMBEDDED[reference]
    if reference.startswith(_REMOTE):
        raise ModelError(
            f"model {reference!r}: only models on this machine can be used; "
            "give the path of a diffusers folder as model.source"
        )
    path = Path(reference).expanduser()
    if not path.exists():
        raise ModelError(
            f"model {reference!r}: no such folder (looked in {Path.cwd()}); expected a diffusers folder with a "
            f"model_index.json, or one of the embedded models: {', '.join(EMBEDDED)}"
        )
    return path.resolve()
