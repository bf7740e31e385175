"""Profiles: settings kept under a name, as option files of the group `profile` in the user's own folder.

A profile has the options that were chosen of other groups and the keys that were set, as the command line gave them.
`default` is the one that `darkroom profile use` chose, `last` what the last run was given.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from jobs.config.composition import GROUPS, OVERLAYS, asks_for_sweep, known_overrides, overrides_of
from jobs.config.faults import nearest
from jobs.config.option_files import read_in_order
from jobs.config.prompt_argument import PROMPT, PROMPT_ALONE, PROMPT_SET
from jobs.config.trust import faults_of_text
from pipeline.errors import ConfigError
from pipeline.storage.user_folders import config_folder, make_folder

GROUP, DEFAULT, LAST = "profile", "default", "last"

NAME = re.compile(r"(?!(?:null|true|false|default|last)$)[^\W\d_][\w-]{0,63}", re.IGNORECASE)
"""Of a profile of the user's; Hydra reads other words as values, and `default` and `last` are ours."""

_log = logging.getLogger("darkroom.run")

_HEADER = "# @package _global_\n"
_PATH_KEYS = ("source", "vae", "config", "tiny_vae", "encoder", "image", "file")
"""The last parts of keys whose values are what a run reads; a profile is used in other folders, too."""
_WHAT_TO_MAKE = ("name", "lines", "file")
_PLAIN_NAMES = re.compile(r"[\w.-]+(?:,[\w.-]+)*")
_REFERENCE = re.compile(r"(\\*)\$\{")


@dataclass(frozen=True, slots=True)
class KeptSettings:
    """What a profile says: `choices` are options by their group, `values` the keys of a configuration, nested, their
    texts as in a file: `${...}` refers to another key, and `\\${` is the signs."""

    choices: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def under(self, other: KeptSettings) -> KeptSettings:
        """These settings where the `other` ones say nothing else."""
        return KeptSettings({**self.choices, **other.choices}, _merged(self.values, other.values))

    def beside(self, chosen: Container[str]) -> KeptSettings:
        """What is left of these settings where the command line chooses options of these groups.

        It wins: `sampling=quality` is all of this option, whatever a profile has of `sampling`. Of the prompts, only
        what to make goes; a negative prompt and the like hold for another set as well.
        """
        values = {key: value for key, value in self.values.items() if key not in chosen}
        prompts = self.values.get("prompts")
        if "prompts" in chosen and isinstance(prompts, Mapping):
            kept = {key: value for key, value in prompts.items() if key not in _WHAT_TO_MAKE}
            values |= {"prompts": kept} if kept else {}
        return KeptSettings(self.choices, values)

    def text(self) -> str:
        """The option file."""
        defaults = [{f"override /{group}": option} for group, option in self.choices.items()]
        document = {**({"defaults": defaults} if defaults else {}), **self.values}
        return _HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120) * bool(document)

    def without_prompts(self) -> KeptSettings:
        """The same without any text of a prompt."""
        choices = {group: option for group, option in self.choices.items() if f"{group}={option}" != PROMPT_SET}
        values = {key: value for key, value in self.values.items() if key not in (PROMPT, "prompts", "grid")}
        return KeptSettings(choices, values)


def profile_folder() -> Path:
    """Where profiles are kept; it may not exist yet."""
    return config_folder() / "conf" / GROUP


def known_profiles(folders: Sequence[Path]) -> list[str]:
    """The names of all profiles in these configuration folders."""
    return sorted({path.stem for folder in folders for path in (folder / GROUP).glob("*.yaml")})


def known_choices(overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The overrides, if the profiles among them exist: Hydra would leave out others without a word, since there need be
    no default, and cannot leave out one where there is none. Raises `ConfigError`.
    """
    known = known_profiles(folders)
    faults = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key == GROUP and _PLAIN_NAMES.fullmatch(value):
            faults += [f"{GROUP}={one}: {unknown_profile(one, known)}" for one in value.split(",") if one not in known]
    if faults:
        raise ConfigError(faults)
    return [override for override in overrides if known or override != f"~{GROUP}"]


@contextmanager
def profiles_below(overrides: Sequence[str], folders: Sequence[Path]) -> Iterator[list[Path]]:
    """A folder to be searched before the others, if one is needed: it has the profiles as `KeptSettings.beside` the
    options that the overrides choose."""
    pairs = [override.lstrip("+").partition("=") for override in overrides]
    chosen = {key for key, _, value in pairs if key in GROUPS and not value.startswith("{")}
    texts = {}
    for name in known_profiles(folders) if chosen else ():
        settings = read_profile(name, folders)
        if (beside := settings.beside(chosen)) != settings:
            texts[name] = beside.text()
    if not texts:
        yield []
        return
    with TemporaryDirectory(prefix="darkroom-") as place:
        Path(place, GROUP).mkdir()
        for name, text in texts.items():
            Path(place, GROUP, f"{name}.yaml").write_text(text, encoding="utf-8")
        yield [Path(place)]


def unknown_profile(name: str, known: Sequence[str]) -> str:
    """What is wrong with the name of a profile that does not exist."""
    if name == LAST:
        return "there was no run yet"
    hint = nearest(name, [one for one in known if one != DEFAULT])
    return f"no such profile{hint or '; darkroom profile save NAME key=value keeps one'}"


def read_profile(name: str, folders: Sequence[Path]) -> KeptSettings:
    """A profile with those that it inherits; empty if there is none."""
    found = KeptSettings()
    for _, document in read_in_order(f"{GROUP}/{name}", folders):
        found = KeptSettings(dict(_choices(document)), {k: v for k, v in document.items() if k != "defaults"}).under(
            found
        )
    return found


def settings_given(arguments: Sequence[str], config: Mapping[str, Any], folders: Sequence[Path]) -> KeptSettings:
    """What the arguments of a command line say, over the profile that they or the user's default choose.

    `config` is what Hydra composed of them, from which the values are taken. Secrets are left out, and so is what
    removes keys (`~key`), which no file can do.
    """
    found, chosen = KeptSettings(), DEFAULT
    for override in overrides_of(known_overrides(list(arguments))):
        key, equals, value = override.lstrip("+").partition("=")
        if override == f"~{GROUP}":
            chosen = ""
        if not equals or key.startswith("~") or override in PROMPT_ALONE:
            continue
        if key == GROUP:
            chosen = value.strip("\"'")
        elif key in (*GROUPS, *OVERLAYS) and not value.startswith("{"):
            found = found.under(KeptSettings(choices={key: value.strip("\"'")}))
        else:
            path = ["grid"] if key.startswith("grid.") else key.split(".")
            found = found.under(KeptSettings(values=_nested(path, config)))
    whole = read_profile(chosen, folders).beside(found.choices).under(found) if chosen else found
    return KeptSettings(whole.choices, _without_secrets(whole.values))


def keep_last(arguments: Sequence[str], config: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Keep what a run was given as the profile `last`; of private pictures without the prompts. A sweep is no profile.

    What cannot be kept costs a warning in the log.
    """
    if asks_for_sweep(arguments):
        return
    is_private = (config.get("metadata") or {}).get("profile") == "private"
    try:
        given = settings_given(arguments, config, folders)
        write_profile(LAST, given.without_prompts() if is_private else given)
    except (OSError, ConfigError, yaml.YAMLError) as error:
        _log.warning("profile=%s is not of this run: %s", LAST, error)


def write_profile(name: str, settings: KeptSettings) -> Path:
    """Write or replace a profile. Raises `OSError`, and `ConfigError` for what no option file may say."""
    from pipeline.storage.durable import write_whole

    text = settings.text()
    if faults := faults_of_text(text, f"{GROUP}/{name}.yaml"):
        raise ConfigError([f"{GROUP}={name}: {fault}" for fault in faults])
    folder = profile_folder()
    make_folder(folder, config_folder())
    write_whole(folder / f"{name}.yaml", text.encode(), mode=0o600)
    return folder / f"{name}.yaml"


def literal(value: Any) -> Any:
    """Resolved values as a file writes them: what looks like a reference in them is text."""
    if isinstance(value, Mapping):
        return {key: literal(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [literal(entry) for entry in value]
    return _REFERENCE.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def _choices(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for entry in document.get("defaults") or ():
        for key, option in entry.items() if isinstance(entry, Mapping) else ():
            if str(key).startswith("override /") and option is not None:
                yield str(key).removeprefix("override /"), str(option)


def _nested(path: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """The value at a path of a configuration, in mappings of its own; nothing where there is none."""
    value: Any = config
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return {}
        value = value[part]
    value = literal(_from_anywhere(value, path[-1]))
    for part in reversed(path):
        value = {part: value}
    return dict(value)


def _from_anywhere(value: Any, key: str) -> Any:
    """Relative paths of what is there, from the root on; names stay as they are."""
    if isinstance(value, Mapping):
        return {name: _from_anywhere(entry, str(name).rpartition(".")[2]) for name, entry in value.items()}
    if isinstance(value, list):
        return [_from_anywhere(entry, key) for entry in value]
    is_path = key in _PATH_KEYS and isinstance(value, str) and len(Path(value).parts) > 1
    return str(Path(value).absolute()) if is_path and Path(value).exists() else value


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings key by key, as Hydra merges them."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            merged[key] = _merged(below[key], above[key])
    return merged


def _without_secrets(value: Any, key: str = "") -> Any:
    """The same without secret keys, and without texts that hold a key of some service."""
    from jobs.config.batch_config import SECRET_KEYS

    if isinstance(value, Mapping):
        inner = {name: (entry, f"{key}.{name}" if key else str(name)) for name, entry in value.items()}
        kept = {
            name: (entry, _without_secrets(entry, place))
            for name, (entry, place) in inner.items()
            if place not in SECRET_KEYS and not _holds_key(entry)
        }
        return {name: clean for name, (entry, clean) in kept.items() if clean != {} or entry == {}}
    if isinstance(value, list):
        return [_without_secrets(entry, key) for entry in value if not _holds_key(entry)]
    return value


def _holds_key(value: object) -> bool:
    from pipeline.metadata.leaks import scrub

    return isinstance(value, str) and "[key]" in scrub(value).replace("[key]", "", value.count("[key]"))
