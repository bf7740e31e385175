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
_GRID = re.compile(r"grid[.=]")
_QUOTED_OR_CALL = re.compile(
    r"""'(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | \b(?:glob|range)\((?:[^()'"]|'[^']*'|"[^"]*")*\)""", re.VERBOSE
)
_OVERLAYS = ("experiment", "local")
_MAPPINGS = ("scheduler_options", "parameters")
"""Keys whose own keys are the user's choice."""
_NO_KEY = re.compile(r"Could not override '(?P<key>[^']+)'")


def user_folders(arguments: list[str]) -> list[Path]:
    """The folders that Hydra would read besides ours. Raises `ConfigError` for those that could not be checked."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path, action="append", default=[])
    for flag in ("--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun"):
        parser.add_argument(flag, action="append", default=[], dest="refused")
    found = parser.parse_known_args(arguments)[0]
    own = [word for word in arguments if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
    if found.refused or own:
        raise ConfigError(
            f"{own[0].partition('=')[0] if own else found.refused[0]}: what steers Hydra itself is not taken; "
            "give your own options with --config-dir DIR"
        )
    return list(found.config_dir)


def known_overrides(arguments: list[str]) -> list[str]:
    """The arguments, overrides last, with `++` before keys of ours that the chosen option files may leave out, and
    quotes around the functions of a grid.

    Last, because Hydra understands no overrides on both sides of an option such as `--config-dir DIR`.
    Hydra takes `naming.folder=x` only where naming/standard.yaml has the key; with `++` it takes it anywhere. Raises
    `ConfigError` with every key that is none of ours; Hydra would name the first alone.
    """
    overrides = [argument for argument in arguments if _OVERRIDE.match(argument)]
    if not overrides:
        return [_grid_quoted(argument) for argument in arguments]
    from jobs.config import BatchConfig

    faults = []
    for key in (override.partition("=")[0] for override in overrides):
        *parents, last = key.split(".")
        choices = keys_at(BatchConfig, parents)
        free = (parents or [last])[0] in ("grid", "seeds", *_OVERLAYS) or not {*_MAPPINGS}.isdisjoint(parents)
        if not free and last not in choices:
            faults.append(f"{key}: unknown key{nearest(last, choices)}")
    if faults:
        raise ConfigError(faults)
    others = [word for word in arguments if not _OVERRIDE.match(word.lstrip("+~"))]
    ours = (word for word in arguments if word not in others)
    prefixed = (f"++{word}" if word in overrides and "." in word.partition("=")[0] else word for word in ours)
    return others + [_grid_quoted(word) for word in prefixed]


def _grid_quoted(override: str) -> str:
    """`glob(...)` and `range(...)` in a grid are ours; without quotes Hydra would take them for its own sweeps."""
    if not _GRID.match(override.lstrip("+")):
        return override

    def quoted(match: re.Match[str]) -> str:
        text = match[0]
        if text[0] in "'\"":
            return text
        return f'"{text}"' if '"' not in text else f"'{text}'" if "'" not in text else text

    return _QUOTED_OR_CALL.sub(quoted, override)


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
    if "hydra.cc" in message:  # the grammar of overrides
        return (
            f"command line: {message.splitlines()[0]}; put quotes around values with commas, brackets, braces or spaces"
        )
    return " ".join(line.strip() for line in message.splitlines() if line.strip())[:500]
