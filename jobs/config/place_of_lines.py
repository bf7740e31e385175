"""Where prompts were written, for messages about one of them: the prompt set, another file, the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.config.option_files import read_in_order
from jobs.config.prompt_argument import PROMPT

_LINES_WITHIN = re.compile(r"\s*\{(?:.*,)?\s*lines\s*:", re.DOTALL)

_OVERLAYS = ("profile", "local", "experiment")
"""Groups whose options may set `prompts.lines`; what the first one sets wins (`defaults` in conf/config.yaml)."""


def place_of_lines(
    overrides: Sequence[str], choices: Mapping[str, str | None], folders: Sequence[Path] = ()
) -> str | None:
    """What messages call the place of a configuration's `prompts.lines`; None where the prompt set's name says it.

    `overrides` are those of the command line, `choices` the option chosen of every group, `folders` those that Hydra
    searches for options, in this order.
    """
    given = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    if given.get(PROMPT, "null") != "null":
        return f"{PROMPT}= on the command line"
    if "prompts.lines" in given or _LINES_WITHIN.match(given.get("prompts", "")):
        return "prompts.lines on the command line"
    for option in (*(f"{group}/{choices.get(group)}" for group in _OVERLAYS), "config"):
        for place, values in read_in_order(option, folders):
            if _has_lines(values.get("prompts")):
                return f"prompts.lines in {place}.yaml"
            if values.get(PROMPT) is not None:
                return f"{PROMPT} in {place}.yaml"
    return _place_in_the_set(f"prompts/{choices.get('prompts')}", folders)


def _place_in_the_set(option: str, folders: Sequence[Path]) -> str | None:
    """None where the set's name is that of the lines: it came with them, or was given to them by what inherits them."""
    is_named = False
    for place, values in read_in_order(option, folders):
        is_named = is_named or values.get("name") is not None
        if _has_lines(values):
            return None if is_named else f"lines in {place}.yaml"
    return None


def _has_lines(prompts: object) -> bool:
    return isinstance(prompts, Mapping) and prompts.get("lines") is not None
