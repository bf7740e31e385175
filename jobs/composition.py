"""Hydra's command line as far as we must know it: the folders it reads, and what it says when it cannot compose."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from pathlib import Path

from jobs.faults import keys_at, nearest
from pipeline.errors import ConfigError

_NO_OPTION = re.compile(
    r"Could not find '(?P<group>[^']+)/(?P<option>[^'/]+)'"
    r".*?Available options in '[^']+':\n(?P<known>(?:\t[^\n]*\n?)+)",
    re.DOTALL,
)
_OVERRIDE = re.compile(r"[A-Za-z_][\w.+]*=")
_NO_KEY = re.compile(r"Could not override '(?P<key>[^']+)'")


def user_folders(arguments: list[str]) -> list[Path]:
    """The folders that Hydra would read besides ours. Raises `ConfigError` for those that could not be checked."""
    if any(argument.lstrip("+~").startswith("hydra.searchpath") for argument in arguments):
        raise ConfigError("hydra.searchpath: is not taken; give your folder with --config-dir DIR")
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path, action="append", default=[])
    return list(parser.parse_known_args(arguments)[0].config_dir)


def known_overrides(arguments: list[str]) -> list[str]:
    """The arguments, with `++` before keys of ours that the chosen option files may leave out.

    Hydra takes `naming.folder=x` only where naming/standard.yaml has the key; with `++` it takes it anywhere.
    """
    from jobs.config import BatchConfig

    def known(key: str) -> bool:
        *parents, last = key.split(".")
        return bool(parents) and (parents[0] == "grid" or last in keys_at(BatchConfig, parents))

    return [
        f"++{argument}" if _OVERRIDE.match(argument) and known(argument.partition("=")[0]) else argument
        for argument in arguments
    ]


def explain(message: str) -> str:
    """One line for a refusal: what, what was expected, the nearest right spelling. Others keep their words."""
    if match := _NO_OPTION.search(message):
        known = match["known"].split()
        return f"{match['group']}={match['option']}: no such option{nearest(match['option'], known)}"
    if match := _NO_KEY.search(message):
        key = match["key"].lstrip("+~")
        from jobs.config import BatchConfig

        *parents, last = key.split(".")
        return f"{key}: unknown key{nearest(last, keys_at(BatchConfig, parents))}"
    return " ".join(line.strip() for line in message.splitlines() if line.strip())[:500]
