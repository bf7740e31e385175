"""One prompt of a set, parsed and checked, with its place for error messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError

from jobs.config.faults import fault_lines, nearest
from jobs.config.sections import Sampling
from jobs.config.values import Seeds
from pipeline.adapters.specs import LoraSpec
from pipeline.errors import ConfigError
from pipeline.metadata.record import ID
from pipeline.ranges import Text, refused_by, text_fault

_SAMPLING_KEYS = tuple(Sampling.model_fields)
UNSET = Sampling()
"""The sampling of a prompt that overrides nothing."""


@dataclass(frozen=True, slots=True)
class LineChoice:
    """What was chosen for a prompt whose set left it open.

    `index` is its place in the set, `template` the text as it was given, None where the model gets the same. `sampling`
    is weaker than what the batch says. `loras` are applied where nobody named any. `selection` is the JSON of what was
    chosen and why.
    """

    index: int
    template: str | None
    sampling: Sampling
    loras: tuple[LoraSpec, ...]
    selection: str


@dataclass(frozen=True, slots=True)
class PromptLine:
    """One prompt and the values that it sets; None leaves a value to the set, the grid and the batch.

    `where` is its place for messages: `colours.csv:12`, `prompts.lines[3]`. `choice` is what was chosen for it, of a
    line whose text stands as the model gets it. `derived_from` is the id of the image whose settings it has.
    """

    text: str
    where: str
    negative_prompt: str | None = None
    seeds: Sequence[int] | None = None
    sampling: Sampling = UNSET
    tags: tuple[str, ...] = ()
    name: str | None = None
    choice: LineChoice | None = None
    derived_from: str | None = None


PromptSource: TypeAlias = Sequence[PromptLine]
"""A prompt set, in its own order. The lines of a file are read when asked for and not kept."""


def _id_fault(value: object) -> str | None:
    is_id = isinstance(value, str) and ID.fullmatch(value)
    return None if is_id else "must be the id of an image, as darkroom show says"


class ChosenLines(list[PromptLine]):
    """Lines as models get them; `origin` is the set that they were chosen from."""

    def __init__(self, origin: PromptSource) -> None:
        super().__init__()
        self.origin = origin


class _Line(Sampling):
    """A prompt as a mapping: in YAML, in a line of JSON, in a row of a CSV file."""

    text: Text
    negative_prompt: Text | None = None
    seeds: Seeds | None = None
    tags: Annotated[list[Text], BeforeValidator(lambda tags: split_tags(tags))] = Field(default=[])
    name: Text | None = None
    derived_from: Annotated[str, refused_by(_id_fault)] | None = None


ALIASES = {"prompt": "text", "seed": "seeds"}
"""Other names under which a line's keys are known."""


def read_line(item: object, where: str) -> PromptLine:
    """A prompt from a text or a mapping. Raises `ConfigError` with its faults, each after `where`."""
    if isinstance(item, str):
        fault = text_fault(item) or _empty_fault(item)
        if fault:
            raise ConfigError(f"{where}: text: {fault}")
        return PromptLine(clean(item), where)
    if not isinstance(item, Mapping):
        raise ConfigError(f"{where}: must be a text in quotes, or a mapping with a text (got {item!r})")
    values: dict[str, Any] = {}
    faults = []
    for key, value in item.items():
        key = ALIASES.get(str(key), str(key))
        if key in values:
            faults.append(f"{where}: {key}: is given twice, under two names")
        values[key] = value
    if fault := _empty_fault(values.get("text")):
        faults.append(f"{where}: text: {fault}")
    if not faults:
        try:
            return _line(_Line.model_validate(values), where)
        except ValidationError as error:
            faults += [f"{where}: {fault}" for fault in fault_lines(error, _Line)]
    raise ConfigError(faults)


def _line(line: _Line, where: str) -> PromptLine:
    return PromptLine(
        text=clean(line.text),
        where=where,
        negative_prompt=None if line.negative_prompt is None else clean(line.negative_prompt),
        seeds=line.seeds,
        sampling=_sampling(*[getattr(line, key) for key in _SAMPLING_KEYS]),
        tags=tuple(line.tags),
        name=line.name,
        derived_from=line.derived_from,
    )


@lru_cache(maxsize=1024)
def _sampling(*values: Any) -> Sampling:
    """One object for all lines that override alike; `UNSET` itself for those that override nothing."""
    if all(value is None for value in values):
        return UNSET
    return Sampling(**dict(zip(_SAMPLING_KEYS, values, strict=True)))


def clean(text: str) -> str:
    """The text with line breaks as `\\n`, so that a file saved on Windows gives the same jobs."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def split_tags(tags: object) -> object:
    """Tags as a list; in one text they are separated by `;` or `,`."""
    parts = re.split(r"[;,]", tags) if isinstance(tags, str) else tags
    if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
        return list(dict.fromkeys(part.strip() for part in parts if part.strip()))
    return parts


def _empty_fault(text: object) -> str | None:
    return "is empty; write a prompt or remove the line" if isinstance(text, str) and not text.strip() else None


def keys_fault(keys: Sequence[str]) -> str | None:
    """What is wrong with the keys that all lines of a file share; None if nothing is."""
    known = [*_Line.model_fields, *ALIASES]
    for key in keys:
        if key not in known:
            return f"{key!r}: unknown key{nearest(key, known)}"
    meant = [ALIASES.get(key, key) for key in keys]
    twice = [key for key in meant if meant.count(key) > 1]
    return f"{twice[0]!r}: is there twice" if twice else None
