"""How this machine reaches the hubs: by a run's configuration, or as `darkroom` reads it without Hydra."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.config.option_folders import option_folders
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from jobs.config.hub_section import Hub
    from pipeline.hubs.hub_settings import HubSettings
    from pipeline.hubs.transport import Transport

_OVERRIDE = re.compile(r"hub\.(?P<key>\w+)=(?P<value>.*)", re.DOTALL)
_WORDS = {"null": None, "true": True, "false": False}
_ENVIRONMENT = re.compile(r"\$\{oc\.env:(?P<name>\w+)(?:,(?P<otherwise>[^{}]*))?\}")


def hub_settings(section: Hub) -> HubSettings:
    """The section as the hubs' modules take it. Raises `ConfigError` where `HF_ENDPOINT`, which it may leave to, is no
    URL.
    """
    from pipeline.hubs.hub_settings import HubSettings

    return HubSettings(**section.model_dump())


def open_transport(section: Hub, *, quiet: bool = False) -> Transport:
    """A transport for requests to the hubs with this section; sends nothing yet. Importing it takes 0.1 to 0.3 s.

    Waits that last are told on standard error, unless `quiet`.
    """
    return _opened(hub_settings(section), quiet=quiet)


def transport_of_this_machine(overrides: Sequence[str] = ()) -> Transport:
    """A transport with `settings_of_this_machine`; sends nothing yet. Raises as that does."""
    return _opened(settings_of_this_machine(overrides))


def settings_of_this_machine(overrides: Sequence[str] = (), folders: Sequence[Path] | None = None) -> HubSettings:
    """The settings for commands that compose no run: `config.yaml`, over it `local/default.yaml`, over it `overrides`.

    `overrides` are written as for a run, `hub.proxy=socks5h://127.0.0.1:9050`. `folders` are those of the options,
    ours first. Composing takes Hydra half a second, so the files are read as plain YAML. Raises `ConfigError` with
    every fault, also for what in a local file only Hydra could follow: a proxy there must not go unnoticed.
    """
    from pydantic import ValidationError

    from jobs.config.faults import fault_lines
    from jobs.config.hub_section import Hub

    folders = option_folders() if folders is None else folders
    values = _said(folders[0] / "config.yaml")
    for folder in folders:
        values |= _said(folder / "local" / "default.yaml", alone=True)
    for override in overrides:
        match = _OVERRIDE.fullmatch(override)
        if not match:
            raise ConfigError(f"{override.partition('=')[0]}: expected hub.key=value, as in hub.auto_download=true")
        values[match["key"]] = _WORDS.get(match["value"].lower(), match["value"])
    try:
        return hub_settings(Hub.model_validate(values))
    except ValidationError as error:
        raise ConfigError(list(fault_lines(error, Hub, "hub."))) from None


def _opened(settings: HubSettings, *, quiet: bool = False) -> Transport:
    from pipeline.hubs.download_progress import say_beside_bars
    from pipeline.hubs.transport import Transport
    from pipeline.hubs.waiting import say_nothing

    return Transport(settings, say=say_nothing if quiet else say_beside_bars)


def _said(path: Path, *, alone: bool = False) -> dict[str, Any]:
    """What a file says under `hub:`; nothing if there is no such file. `alone`: it may bring in no others."""
    from jobs.config.option_files import read_option

    document = read_option(path, missing_ok=True)
    if alone:
        _refuse_others(path, document.get("defaults"))
    section = document.get("hub")
    if section is not None and not isinstance(section, Mapping):
        raise ConfigError(f"{path}: hub: must be a mapping, as in conf/config.yaml")
    return {str(key): _resolved(f"hub.{key}", value) for key, value in (section or {}).items()}


def _refuse_others(path: Path, defaults: object) -> None:
    for entry in defaults if isinstance(defaults, list) else []:
        names = [str(name) for name in entry] if isinstance(entry, Mapping) else [str(entry)]
        # An option of another group cannot reach `hub`; another file of `local` or `experiment` could.
        if names != ["_self_"] and not names[0].startswith("override "):
            raise ConfigError(
                f"{path}: includes {names[0]!r}, but `darkroom` reads hub: from this file only; copy what that file "
                "sets into this one"
            )


def _resolved(key: str, value: Any) -> Any:
    """The value with what it takes from the environment; all else that only Hydra understands is refused."""
    if not isinstance(value, str) or "${" not in value:
        return value

    def found(match: re.Match[str]) -> str:
        said = os.environ.get(match["name"], match["otherwise"])
        if said is None:
            raise ConfigError(f"{key}: the environment variable {match['name']} is not set")
        return said

    text = _ENVIRONMENT.sub(found, value)
    if "${" in text:
        raise ConfigError(f"{key}: `darkroom` understands ${{oc.env:NAME}} here and no other reference; write it out")
    return _WORDS.get(text.lower(), text)
