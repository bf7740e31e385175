"""Hydra's command line as far as Darkroom must know it: the folders that it reads, and its errors in plain words."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.config.faults import keys_at, nearest, unknown_key
from jobs.config.prompt_argument import PROMPT, PROMPT_ALONE, PROMPT_SET, gives_prompts, prompt_faults, prompt_override
from pipeline.errors import ConfigError

_NO_OPTION = re.compile(
    r"Could not (?:find|load) '(?P<group>[^']+)/(?P<option>[^'/]*)'"
    r"(?:.*?Available options in '[^']+':\n(?P<known>(?:\t[^\n]*\n?)+))?",
    re.DOTALL,
)
_NO_KEY = re.compile(r"Could not override '(?P<key>[^']+)'")
_SWEEP = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(?P<override>.*?)'(?:\n| requires)", re.DOTALL)

_OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w./@:-]*=")
_DELETION = re.compile(r"~[A-Za-z_][\w./@:-]*")
_STEERS_HYDRA = re.compile(r"[+~\s]*(?:hydra(?:[./@:=]|$)|[^=]*@[^=]*=)")
"""An override of Hydra's own node, or of a group's place (`group@package=option`), which may be that node."""
_QUOTED_OR_CALL = re.compile(
    r"""'(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | \b(?:glob|range)\((?:[^()'"]|'[^']*'|"[^"]*")*\)""", re.VERBOSE
)
_WORD = re.compile(r"[^,\[\]\s'\"()]+")
_NO_NAME = re.compile(r"null|true|false|[-+]?[\d._]+(?:e[-+]?\d+)?", re.IGNORECASE)
"""A word that Hydra reads as something else than the name of an option."""

GROUPS = ("prompts", "model", "memory", "sampling", "naming", "metadata", "engine", "selection")
OVERLAYS = ("experiment", "local", "profile")
"""Groups whose options may set keys of the whole batch, with the header `# @package _global_`."""
_MAPPINGS = ("scheduler_options", "parameters", "attributes")
"""Keys whose own keys are the user's choice."""

_WITH_VALUE = ("--cfg", "--package", "--config-path", "--config-name", "--config-dir", "--experimental-rerun")
_WITH_VALUE_SHORT = ("-c", "-p", "-cp", "-cn", "-cd")


def user_folders(arguments: list[str]) -> list[Path]:
    """The folders that Hydra would read besides those of `option_folders`.

    Raises `ConfigError` for those that could not be checked.
    """
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path, action="append", default=[])
    for flag in ("--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun"):
        parser.add_argument(flag, action="append", default=[], dest="refused")
    found = parser.parse_known_args(arguments)[0]
    own = [word for word in arguments if _STEERS_HYDRA.match(word)]
    if found.refused or own:
        what = own[0].lstrip("+").partition("=")[0] if own else found.refused[0]
        raise ConfigError(f"{what}: Hydra's own settings are not accepted; add your own options with --config-dir DIR")
    return list(found.config_dir)


def asks_for_completion(arguments: Sequence[str]) -> bool:
    """Whether a shell requests completions, or the script for them."""
    return any(word == "-sc" or (len(word) > 3 and "--shell-completion".startswith(word)) for word in arguments)


def known_overrides(arguments: list[str]) -> list[str]:
    """The arguments in the form that Hydra needs: options first, then overrides.

    Hydra understands no overrides on both sides of an option such as `--config-dir DIR`. It takes `naming.folder=x`
    only where naming/standard.yaml has the key, with `++` anywhere; `+experiment=x` not at all, since the key is there;
    and an option's name only where it reads it as a text. Raises `ConfigError` with every key that is none of ours, of
    which Hydra would name the first alone, and with the words that are no override.
    """
    options, others = _apart(arguments)
    if asks_for_completion(options):
        return list(arguments)
    words = [word for word in others if not _OVERRIDE.match(word) and not _DELETION.fullmatch(word)]
    overrides = [word for word in others if word not in words]
    faults = [_no_override(words)] if words else []
    faults += _prompt_faults(overrides)
    if overrides:
        from jobs.config.batch_config import BatchConfig

        for key in (word.partition("=")[0].lstrip("+") for word in overrides):
            *parents, last = key.split(".")
            free = (parents or [last])[0] in ("grid", "seeds", *OVERLAYS) or not {*_MAPPINGS}.isdisjoint(parents)
            if not free and not key.startswith(("~", "hydra.", "hydra/")) and last not in keys_at(BatchConfig, parents):
                faults.append(f"{key}: {unknown_key(BatchConfig, [*parents, last])}")
    if faults:
        raise ConfigError(faults)
    is_sweep = asks_for_sweep(options)
    return options + [_as_meant(word, is_sweep=is_sweep) for word in _with_prompt_set(overrides)]


def asks_for_sweep(arguments: Sequence[str]) -> bool:
    """Whether several values of a key are several configurations."""
    return any(word == "-m" or (len(word) > 3 and "--multirun".startswith(word)) for word in arguments)


def overrides_of(arguments: Sequence[str]) -> list[str]:
    """The arguments without Hydra's options and their values."""
    return _apart(arguments)[1]


def _prompt_faults(overrides: Sequence[str]) -> Iterator[str]:
    pairs = [_pair(word) for word in overrides]
    others = [key for key, value in pairs if gives_prompts(key, value)]
    for key, value in pairs:
        if key == PROMPT and value != "null":
            yield from prompt_faults(value, others)
    if PROMPT_SET in overrides and not any(key == PROMPT for key, _ in pairs):
        yield f"{PROMPT_SET}: is the set of a prompt on the command line; give it as {PROMPT}=TEXT alone"


def _with_prompt_set(overrides: Sequence[str]) -> list[str]:
    """With the set that takes the prompt of the command line, or without the prompt of a file that other prompts of the
    command line replace."""
    pairs = [_pair(word) for word in overrides]
    given = [value for key, value in pairs if key == PROMPT]
    if given:
        return [*overrides, *([PROMPT_SET, *PROMPT_ALONE] if given[-1] != "null" else [])]
    return [*overrides, *([f"{PROMPT}=null"] if any(gives_prompts(*pair) for pair in pairs) else [])]


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value


def _apart(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options with their values, and the other words."""
    options, others = list[str](), list[str]()
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            others.append(word)
            continue
        options.append(word)
        long = len(word) > 3 and word.startswith("--")
        if word in _WITH_VALUE_SHORT or (long and any(flag.startswith(word) for flag in _WITH_VALUE)):
            options += [value for value in [next(words, None)] if value is not None]
        elif word in ("--info", "-i"):  # its value may be left out
            value = next(words, None)
            (options if value and "=" not in value else others).extend([value] if value else [])
    return options, others


def _as_meant(override: str, *, is_sweep: bool) -> str:
    """One override, written so that Hydra does what its user means."""
    key, equals, value = override.lstrip("+").partition("=")
    if key.startswith("~") or not equals:
        return override
    if key == PROMPT:
        return f"{PROMPT}={prompt_override(value, is_sweep=is_sweep)}"
    if key in ("experiment", "profile") and value == "null":
        return f"~{key}"
    if key in (*GROUPS, *OVERLAYS) and not value.startswith("{"):
        value = _WORD.sub(lambda word: f'"{word[0]}"' if _NO_NAME.fullmatch(word[0]) else word[0], value) or '""'
    if key in ("grid", "seeds") or key.startswith("grid."):
        value = _calls_quoted(value)
    return f"{'++' if '.' in key or value.startswith('{') else ''}{key}={value}"


def _calls_quoted(value: str) -> str:
    """`glob(...)` and `range(...)` of a grid and of seeds are ours; without quotes Hydra would sweep over them."""

    def quoted(match: re.Match[str]) -> str:
        text = match[0]
        if text[0] in "'\"":
            return text
        return f'"{text}"' if '"' not in text else f"'{text}'" if "'" not in text else text

    return _QUOTED_OR_CALL.sub(quoted, value)


def _no_override(words: Sequence[str]) -> str:
    text = " ".join(words).replace('"', "'")
    example = shlex.quote(f"prompt={text}")
    return f"{text!r}: is not key=value; a prompt is given as {example}, a set of prompts as prompts=NAME"


def explain(message: str) -> str:
    """One line for an error of Hydra: what, what was expected, the nearest right spelling. Unknown errors are kept."""
    if match := _NO_OPTION.search(message):
        hint = nearest(match["option"], (match["known"] or "").split())
        if match["group"] == "prompts" and "did you mean" not in hint:
            hint += "; a prompt of your own is given as prompt=TEXT"
        return f"{match['group']}={match['option']}: no such option{hint}"
    if match := _NO_KEY.search(message):
        from jobs.config.batch_config import BatchConfig

        key = match["key"].lstrip("+~")
        return f"{key}: {unknown_key(BatchConfig, key.split('.'))}"
    if match := _SWEEP.search(message):
        key, _, value = match["override"].lstrip("+").partition("=")
        if key in (*GROUPS, *OVERLAYS):
            return f"{key}: several options ({value}); -m makes each of them"
        axis = shlex.quote(f"grid={{{key}: [{value}]}}") if key != "seeds" else f"'seeds=[{value}]'"
        return f"{key}: several values ({value}); -m or {axis} make each of them, inner quotes make one text of them"
    if "hydra.cc" in message:  # the grammar of overrides
        return (
            f"command line: {message.splitlines()[0]}; put quotes around values with commas, brackets, braces or spaces"
        )
    return " ".join(line.strip() for line in message.splitlines() if line.strip())[:500]
