"""`prompt=TEXT` on the command line: the text as its user's shell hands it over, written so that Hydra reads just that.

For Hydra, commas, braces, brackets, quotes and `=` have meanings of their own, and `${...}` refers to something. A
prompt is none of this, so it is put into quotes here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from jobs.config.program_name import REMOVED

PROMPT = "prompt"
PROMPT_SET = "prompts=prompt"
"""The set of this one line: conf/prompts/prompt.yaml, which refers to the key."""
PROMPT_ALONE = ('++prompts.lines=["${prompt}"]', "++prompts.file=null")
"""Its line again, over those of an experiment and the like, which win over any set."""

_QUOTED = re.compile(r""" "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' """, re.VERBOSE | re.DOTALL)
_REFERENCE = re.compile(r"(?P<escapes>\\*)\$\{")
_RESOLVER = re.compile(r"(?<!\\)(?:\\\\)*\$\{[^{}]*:")
_SOURCE = re.compile(r"(?!\{) | \{ (?:.*[{,])? \s* (?:lines|file) \s* :", re.VERBOSE | re.DOTALL)
"""A value of `prompts=` that says what to make: the name of a set, or a mapping with the prompts."""
_OPENING, _CLOSING = "([{", ")]}"


def gives_prompts(key: str, value: str) -> bool:
    """Whether an override of the command line says what to make in another way than `prompt=`."""
    return key in ("prompts.lines", "prompts.file") or (key == "prompts" and _SOURCE.match(value) is not None)


def prompt_override(text: str, *, is_sweep: bool) -> str:
    """The value of `prompt=` for Hydra; of a sweep, all its values, separated by commas."""
    parts = prompts_of_sweep(text) if is_sweep else [text]
    return ",".join(part if _QUOTED.fullmatch(part) or part == "null" else quoted(part) for part in parts)


def prompt_faults(text: str, others: Sequence[str]) -> Iterator[str]:
    """What is wrong with `prompt=TEXT` beside the `others` that give prompts, as far as it can be told from these."""
    if others:
        yield f"{PROMPT}: {others[0]}= is given too; give one of the two"
    if not text.strip("\"' \t\r\n"):
        yield f"{PROMPT}: is empty; write what the picture should show"
    elif text == REMOVED:
        yield f"{PROMPT}: the prompt was not kept in this command; put it in place of {REMOVED}"
    elif match := _RESOLVER.search(text):
        asked = match[0].lstrip("\\")[:40]
        yield f"{PROMPT}: uses {asked}...}}; a prompt takes nothing from outside; write the text itself"


def prompts_of_sweep(text: str) -> list[str]:
    """The prompts of `-m prompt=a,b`.

    A comma separates two prompts unless white space follows it, as it does within a sentence; it stands between two
    digits; or it is in quotes or brackets.
    """
    parts, start, depth, index = list[str](), 0, 0, 0
    while index < len(text):
        if text[index] in "\"'" and index == start and (quoted := _QUOTED.match(text, index)):
            index = quoted.end()
            continue
        if text[index] == '"' and (end := text.find('"', index + 1)) > 0:
            index = end
        elif text[index] in _OPENING:
            depth += 1
        elif text[index] in _CLOSING:
            depth = max(0, depth - 1)
        elif text[index] == "," and depth == 0 and _separates(text[max(0, index - 1) : index], text[index + 1 :][:1]):
            parts.append(text[start:index])
            start = index + 1
        index += 1
    return [*parts, text[start:]]


def _separates(before: str, after: str) -> bool:
    return after != "" and not after.isspace() and not (before.isdecimal() and after.isdecimal())


def quoted(text: str) -> str:
    """The text in quotes of Hydra's: a backslash counts before quotes only, and before `${`, where it takes the
    meaning from it."""
    literal = _REFERENCE.sub(_escaped, text)
    return '"' + re.sub(r'(\\*)("|\Z)', lambda end: end[1] * 2 + (f"\\{end[2]}" if end[2] else ""), literal) + '"'


def _escaped(reference: re.Match[str]) -> str:
    """The beginning of `${...}` so that it stands for itself in a configuration."""
    escapes = reference["escapes"]
    return reference[0] if len(escapes) % 2 else f"{escapes * 2}\\${{"
