"""The ranges of all settings that decide a picture, and of texts and paths: one definition of each.

Configurations, the Python API, and records as read from an image are checked by them, and in the same words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from pipeline.faults import NOT_TEXT, UNSHOWN
from pipeline.request import MAX_SEED

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
"""Of every model that checks what a person has written."""

MAX_TEXT_LENGTH = 2**20
"""Characters of a prompt, or of any other text in a record; no text encoder reads a thousandth of them."""

# Control characters break terminals, XML and PNG text; half a surrogate pair cannot be written as UTF-8 at
# all. Tabs, line breaks, emoji and right-to-left marks are ordinary text.
_REFUSED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `least` to `most`, both included; with `above`, `least` itself is not. `whole`: no fractions."""

    least: int | float
    most: int | float
    whole: bool = False
    above: bool = False

    @property
    def limits(self) -> BeforeValidator:
        """The same for pydantic, as in `Annotated[int, STEPS.limits]`; texts and booleans are no numbers."""
        return refused_by(self.fault)

    def fault(self, value: Any) -> str | None:
        """What is expected instead of this value; None where it lies within."""
        is_number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if is_number and self.least <= value <= self.most and not (self.above and value == self.least):
            return None
        kind = "a whole number" if self.whole else "a number"
        if self.above:
            return f"must be {kind} above {_plain(self.least)}, up to {_plain(self.most)}"
        return f"must be {kind} from {_plain(self.least)} to {_plain(self.most)}"


def refused_by(fault_of: Callable[[Any], str | None]) -> BeforeValidator:
    """For pydantic: refuses a value with the message that the function returns, accepts it if that is None."""

    def checked(value: Any) -> Any:
        if fault := fault_of(value):
            raise ValueError(fault)
        return value

    return BeforeValidator(checked)


def one_of(choices: Iterable[str]) -> BeforeValidator:
    """For pydantic: refuses all other texts. For choices that are the keys of a table; others are a `Literal`."""
    known = tuple(choices)
    return refused_by(lambda value: None if value in known else f"must be one of {', '.join(known)}")


STEPS = Range(1, 1000, whole=True)
GUIDANCE = Range(0, 100)
SIDE = Range(16, 4096, whole=True)
"""Pixels; `side_fault` also wants a multiple of 8."""

CLIP_SKIP = Range(1, 32, whole=True)
"""The deepest text encoder of which layers can be left out, OpenCLIP bigG, has 32; those of a model narrow it."""

BATCH_SIZE = Range(1, 256, whole=True)
WEIGHT = Range(-10, 10)
OPTION = Range(-1e6, 1e6)
"""Of arguments of schedulers, some of which become the length of an array."""

QUALITY = Range(1, 100, whole=True)
EXCERPT_LENGTH = Range(1, 120, whole=True)
"""Characters of a prompt in a file's name."""


def side_fault(value: Any) -> str | None:
    """What is wrong with the width or height of a picture, in pixels; None if nothing."""
    fault = SIDE.fault(value)
    if fault or not value % 8:
        return fault
    return f"must be a multiple of 8 pixels, for instance {value // 8 * 8} or {value // 8 * 8 + 8}"


def option_fault(value: Any) -> str | None:
    """What is wrong with a value for an argument of a scheduler; None if nothing."""
    if isinstance(value, str):
        return text_fault(value)
    if isinstance(value, bool):
        return None
    if not isinstance(value, int | float):
        return "must be a number, a text, true or false"
    return OPTION.fault(value)


def text_fault(text: str) -> str | None:
    """What is wrong with a text that is too long, or holds a control character or half a surrogate pair; else None."""
    if len(text) > MAX_TEXT_LENGTH:
        return f"has {len(text):,} characters, more than {MAX_TEXT_LENGTH:,}"
    match = _REFUSED.search(text)
    if not match:
        return None
    code = ord(match[0])
    kind = "half a surrogate pair" if unicodedata.category(match[0]) == "Cs" else "a control character"
    name = "U+0000 (NUL)" if code == 0 else f"U+{code:04X}"
    return f"holds {name}, {kind}, as character {match.start() + 1:,}; remove it"


def _plain(number: int | float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise PydanticCustomError(NOT_TEXT, "must be text")
    if fault := text_fault(value):
        raise PydanticCustomError(UNSHOWN, "{fault}", {"fault": fault})
    return value


def _path(value: Any) -> Any:
    if not isinstance(value, str | Path):
        raise PydanticCustomError(NOT_TEXT, "must be a path")
    return _text(value) if isinstance(value, str) else value


Seed = Annotated[int, Range(0, MAX_SEED, whole=True).limits]
Steps = Annotated[int, STEPS.limits]
Guidance = Annotated[float, GUIDANCE.limits]
Side = Annotated[int, refused_by(side_fault)]
ClipSkip = Annotated[int, CLIP_SKIP.limits]
SequenceLength = Annotated[int, Range(16, 4096, whole=True).limits]
BatchSize = Annotated[int, BATCH_SIZE.limits]
Weight = Annotated[float, WEIGHT.limits]
Strength = Annotated[float, Range(0, 2).limits]
"""Of ControlNets and IP-Adapters."""

InitStrength = Annotated[float, Range(0, 1, above=True).limits]
Share = Annotated[float, Range(0, 1).limits]
Option = Annotated[bool | int | float | str, refused_by(option_fault)]
Gigabytes = Annotated[float, Range(0, 4096, above=True).limits]
CpuThreads = Annotated[int, Range(1, 1024, whole=True).limits]
EncoderQuality = Annotated[int, QUALITY.limits]
ChosenLoras = Annotated[int, Range(0, 10, whole=True).limits]
"""LoRAs that are chosen for one picture, at most."""

Count = Annotated[int, Range(0, MAX_SEED, whole=True).limits]
"""Bytes, tokens, places: what is counted, and must fit into a column of the manifest."""

Text = Annotated[str, BeforeValidator(_text)]
PathText = Annotated[str | Path, BeforeValidator(_path)]
"""A path as people write it; it need not exist."""
