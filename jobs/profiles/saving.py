"""Saves, reads, chooses and deletes the user's profiles; `jobs.config.profiles` says what one is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.archive.runs import find_run
from jobs.config.batch_config import parse_configs
from jobs.config.composition import asks_for_sweep, overrides_of
from jobs.config.option_files import read_option
from jobs.config.option_folders import option_folders
from jobs.config.profiles import (
    DEFAULT,
    GROUP,
    LAST,
    NAME,
    KeptSettings,
    known_profiles,
    profile_folder,
    read_profile,
    settings_given,
    unknown_profile,
    write_profile,
)
from jobs.config.trust import check_trust
from pipeline.errors import ConfigError
from pipeline.storage.durable import write_whole

Compose = Callable[[list[str]], dict[str, Any]]
"""The configuration that the arguments of a run stand for; raises `ConfigError`."""


@dataclass(frozen=True, slots=True)
class SavedProfile:
    """A profile as it is listed. `is_used`: for every run that names no other."""

    name: str
    path: Path
    settings: KeptSettings
    is_used: bool


def list_profiles() -> list[SavedProfile]:
    """All profiles of the user's, and `last`, by their names. Raises `ConfigError` for files that no run would read."""
    folders = option_folders()
    check_trust(folders, folders[0] / "config.yaml", folders)
    used = used_profile()
    return [
        SavedProfile(name, _path(name), read_profile(name, folders), name == used)
        for name in known_profiles(folders)
        if name != DEFAULT
    ]


def find_profile(name: str) -> SavedProfile:
    """The profile with this name. Raises `ConfigError` with the nearest ones."""
    found = {profile.name: profile for profile in list_profiles()}
    if name not in found:
        raise ConfigError(f"{GROUP}={name}: {unknown_profile(name, list(found))}")
    return found[name]


def save_profile(name: str, arguments: Sequence[str], compose: Compose, below: KeptSettings | None = None) -> Path:
    """Save what the arguments of a run say, over the settings `below`, and return the file.

    It replaces a profile of that name, unless `ConfigError` is raised: for a name that cannot be one, for arguments
    that no run would accept, and where nothing is said.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{GROUP}: {name!r} cannot be a name; one begins with a letter, has up to 64 letters, digits, - and _, and "
            f"is none of {DEFAULT}, {LAST}, null, true, false"
        )
    if asks_for_sweep(arguments):
        raise ConfigError(f"{GROUP}: a sweep (-m) has several settings; save one of them, or put the values in `grid`")
    given = [*arguments] if any(_names_profile(word) for word in arguments) else [f"~{GROUP}", *arguments]
    settings = settings_given(given, compose(given), option_folders())
    whole = below.under(settings) if below else settings
    if whole == KeptSettings():
        raise ConfigError(f"{GROUP} {name}: nothing to keep; give key=value, group=option, --from-run or --from-image")
    before = _path(name).read_bytes() if _path(name).is_file() else None
    path = write_profile(name, whole)
    try:
        parse_configs([compose([f"{GROUP}={name}"])])
    except BaseException:
        if before is None:
            path.unlink()
        else:
            write_whole(path, before, mode=0o600)
        raise
    return path


def arguments_of_run(output_dir: Path, beginning: str) -> list[str]:
    """What the run whose id begins so was given, as arguments. Raises `ConfigError` if that is not all known."""
    run = find_run(output_dir, beginning)
    if run.command is None or not run.command_complete:
        raise ConfigError(
            f"{run.id}: its command was not kept whole, since something private stood in it; give the keys themselves"
        )
    words = shlex.split(run.command)[2:]
    if asks_for_sweep(words):
        raise ConfigError(f"{run.id}: was a sweep (-m), which has several settings; give the keys of one of them")
    return overrides_of(words)


def used_profile() -> str | None:
    """The profile of every run that names no other."""
    entries = read_option(_path(DEFAULT), missing_ok=True).get("defaults")
    return next((entry for entry in entries or () if isinstance(entry, str) and entry != "_self_"), None)


def use_profile(name: str | None) -> None:
    """Choose a profile for every run that names no other; None for no profile. Raises `ConfigError`, `OSError`."""
    if name is None:
        _path(DEFAULT).unlink(missing_ok=True)
        return
    find_profile(name)
    text = f"# @package _global_\n# Every run that names no other profile takes this one: darkroom profile use {name}\n"
    write_whole(_path(DEFAULT), f"{text}defaults: [{name}, _self_]\n".encode(), mode=0o600)


def delete_profile(profile: SavedProfile) -> None:
    """Delete a profile; if it was in use, no profile is. Raises `OSError`."""
    if profile.is_used:
        use_profile(None)
    profile.path.unlink(missing_ok=True)


def _path(name: str) -> Path:
    return profile_folder() / f"{name}.yaml"


def _names_profile(word: str) -> bool:
    return word.lstrip("+~").partition("=")[0] == GROUP
