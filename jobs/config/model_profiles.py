"""The model profiles of the folders of options, read as plain YAML where Hydra composes no run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs.config.faults import nearest
from jobs.config.option_files import read_option
from jobs.config.option_folders import option_folders
from jobs.config.sections import Model
from jobs.config.selection_section import CHOSEN
from pipeline.errors import ConfigError

_NO_MODEL = (None, "???", CHOSEN)
"""The source of a form to be filled in, and that of the option that leaves the choice open."""


def profile_files(folders: Sequence[Path] | None = None) -> Iterator[Path]:
    """The files of model profiles in `folders` of options (None: ours and the user's own), in their order."""
    for folder in folders or option_folders():
        yield from sorted((folder / "model").glob("*.yaml"))


def read_profile(path: Path) -> dict[str, Any] | None:
    """The content of a profile; None if it names no weights. Raises `ConfigError`."""
    document = read_option(path)
    return None if document.get("source") in _NO_MODEL else document


def profile_in(path: Path) -> Model | None:
    """The profile in a file; None if it names no weights. Raises `ConfigError` and `pydantic.ValidationError`."""
    document = read_profile(path)
    if document is None:
        return None
    return Model.model_validate({key: value for key, value in document.items() if key != "defaults"})


def profile_called(name: str, folders: Sequence[Path], key: str) -> Model:
    """The model profile of this name. Raises `ConfigError`, which names the `key` that asks for it."""
    files = {path.stem: path for path in profile_files(folders)}
    if name not in files:
        raise ConfigError(f"{key}: {name!r}: no such model profile{nearest(name, [*files])}")
    if (model := profile_in(files[name])) is None:
        raise ConfigError(f"{key}: {name}: names no weights; choose another profile")
    return model
