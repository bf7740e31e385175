"""LoRA tags in prompts, as A1111 writes them: `<lora:NAME>`, `<lora:NAME:0.8>`, and `lyco` for `lora`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.ranges import WEIGHT

_TAG = re.compile(r"<(?:lora|lyco):([^<>:\n]{1,200})((?::[^<>:\n]{0,40}){0,4})>", re.IGNORECASE)
_MOST = 20
"""Tags that are read of a prompt; more are text."""

_CLOSES = (",", ".", ";", ":", "!", "?", ")", "]", "}", "|", "\n")
_OPENS = ("(", "[", "{", "|", "\n")


@dataclass(frozen=True, slots=True)
class LoraTag:
    """A tag with its place: first character, and the one behind the last.

    `weight` is None where none is said. `fault` is one line on a tag that cannot be applied as it stands: its weight is
    no number of `pipeline.ranges.WEIGHT`, or it has several.
    """

    name: str
    weight: float | None
    start: int
    end: int
    fault: str = ""


def lora_tags(prompt: str) -> tuple[LoraTag, ...]:
    """The tags of a prompt in their order, those with a fault included."""
    if "<" not in prompt:
        return ()
    found = [match for match in _TAG.finditer(prompt) if match[1].strip()]
    return tuple(_tag(match) for match in found[:_MOST])


def without_tags(prompt: str, tags: Iterable[LoraTag]) -> str:
    """The prompt without these of its tags, and without the commas and blanks that they leave; all else stays."""
    places = [(tag.start, tag.end) for tag in tags]
    if not places:
        return prompt
    text, end = prompt[: places[0][0]], places[0][1]
    for start, next_end in [*places[1:], (len(prompt), len(prompt))]:
        text, end = _joined(text, prompt[end:start]), next_end
    return text if prompt[places[-1][1] :].strip() else text.rstrip(" \t,")


def blanked(prompt: str, tags: Iterable[LoraTag]) -> str:
    """The prompt with blanks where the tags were, so that all places stay."""
    for tag in tags:
        prompt = f"{prompt[: tag.start]}{' ' * (tag.end - tag.start)}{prompt[tag.end :]}"
    return prompt


def _tag(match: re.Match[str]) -> LoraTag:
    said = match[2].split(":")[1:]
    weights = {_number(one) for one in said}
    weight = _number(said[0]) if said else None
    fault = ""
    if len(weights) > 1:  # A1111 has one for the text encoder, one for the denoiser, and blocks
        fault = f"{match[0]}: has several weights; one is applied to all of a LoRA, as in <lora:NAME:0.8>"
    elif said and (wrong := WEIGHT.fault(weight)):
        fault = f"{match[0]}: its weight {wrong}"
    return LoraTag(match[1].strip(), None if fault else weight, *match.span(), fault)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _joined(left: str, right: str) -> str:
    left, right = left.rstrip(" \t"), right.lstrip(" \t")
    if right.startswith(",") and (not left or left.endswith((",", *_OPENS))):
        right = right[1:].lstrip(" \t")
    if not right:
        return left
    if not left or left.endswith(_OPENS) or right.startswith(_CLOSES):
        return left + right
    return f"{left} {right}"
