"""pydantic's errors in Darkroom's words: for configurations, the Python API and records alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

UNSHOWN = "unshown"
"""The type of a `PydanticCustomError` whose value is not repeated, since it may hold a password or break a line."""

NOT_TEXT = "not_text"
"""The type of a `PydanticCustomError` for a value of another kind where a text belongs; in YAML, quotes make it one."""

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""Pydantic's types for a key that a model, or a dataclass, does not have."""

_EXPECTED = {
    "missing": "is missing",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dataclass_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    **dict.fromkeys(UNKNOWN, "unknown key"),
}
_CHOICE = re.compile(r"'([^']*)'")


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One fault: the keys and indices that lead to it, pydantic's type of error, and what was expected.

    `choices` are those of a value that must be one of some. `value` is what was given, `got` the end of a message that
    repeats it; empty where it is a whole mapping or may not be shown.
    """

    location: tuple[int | str, ...]
    kind: str
    expected: str
    value: object
    choices: tuple[str, ...] = ()

    @property
    def got(self) -> str:
        hidden = self.kind in (UNSHOWN, "missing") or isinstance(self.value, Mapping) or is_dataclass(self.value)
        return "" if hidden else f" (got {_shorten(self.value)})"


def faults_of(error: ValidationError) -> Iterator[FieldFault]:
    """Every fault that pydantic found, in the order of the fields."""
    for fault in error.errors(include_url=False):
        location = fault["loc"]
        if location and location[-1] == "[key]":  # a key of a mapping is the value at fault, not where it lies
            location = location[:-2]
        kind, message = fault["type"], fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        choices = tuple(_CHOICE.findall(fault["msg"])) if kind == "literal_error" else ()
        if choices:
            message = f"must be one of {', '.join(choices)}" if len(choices) > 1 else f"must be {choices[0]}"
        yield FieldFault(
            # Pydantic adds the names of validators and union branches to the path; keys are what users know.
            tuple(part for part in location if isinstance(part, int) or part.isidentifier() or "." in part),
            kind,
            _EXPECTED.get(kind, message[0].lower() + message[1:]),
            fault["input"],
            choices,
        )


def _shorten(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
