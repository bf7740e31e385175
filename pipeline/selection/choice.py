"""What was chosen for a prompt, and why: numbers and words that a record can carry and a person can read.

A record may have been written by anybody, so what is read back from one is typed and bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter, ValidationError

from pipeline.errors import ReadError
from pipeline.prompting.proposals import Finite, Line, Name, Setting, Source, TextChoice

_Points = Annotated[Finite, PlainSerializer(lambda points: round(points, 3))]

_Reference = Annotated[str, BeforeValidator(lambda _value: ""), Field(exclude=True)]
"""What finds a file on this machine: never written into an image, and never taken from one."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause of a choice in words; `points` is the difference that it makes between winner and runner-up."""

    feature: Name
    words: Line
    points: _Points


_Reasons = Annotated[tuple[Reason, ...], Field(max_length=20)]


class RunnerUp(NamedTuple):
    """The model that came second."""

    name: Name
    score: Finite


def _known_keys(said: Any) -> Any:
    """Without what a newer version may add, which a named tuple, other than a dataclass, would refuse."""
    return {key: said[key] for key in RunnerUp._fields if key in said} if isinstance(said, Mapping) else said


_RunnerUp = Annotated[
    RunnerUp,
    BeforeValidator(_known_keys),
    PlainSerializer(lambda one: {"name": one.name, "score": round(one.score, 3)}),
]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model that won."""

    chosen: Name
    reference: _Reference = ""
    score: _Points = 0.0
    source: Source = "rule"
    runner_up: _RunnerUp | None = None
    reasons: _Reasons = ()
    against: Reason | None = None
    flip: Line | None = None
    override: Line = ""


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """A LoRA that is applied, with the trigger words that the prompt gets for it."""

    chosen: Name
    weight: Finite
    reference: _Reference = ""
    score: _Points = 0.0
    source: Source = "rule"
    triggers: Annotated[tuple[Name, ...], Field(max_length=100)] = ()
    reasons: _Reasons = ()
    override: Line = ""


@dataclass(frozen=True, slots=True)
class VaeChoice:
    """A VAE other than the model's own."""

    chosen: Name
    reference: _Reference = ""
    reasons: _Reasons = ()
    override: Line = ""


@dataclass(frozen=True, slots=True)
class Excluded:
    """How many candidates a filter left out, with up to two of their names."""

    count: Annotated[int, Field(ge=0)]
    examples: Annotated[tuple[Name, ...], Field(max_length=20)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Everything that was chosen for one prompt. `prompt` is the text that the model gets.

    `sampling` holds only what was open: what the user has set is not in it. `warnings` are one line each.
    """

    model: ModelChoice
    loras: Annotated[tuple[LoraChoice, ...], Field(max_length=100)] = ()
    vae: VaeChoice | None = None
    sampling: Annotated[dict[Name, Setting], Field(max_length=50)] = field(default_factory=dict)
    prompt: TextChoice
    negative_prompt: TextChoice
    excluded: Annotated[dict[Name, Excluded], Field(max_length=50)] = field(default_factory=dict)
    warnings: Annotated[tuple[Line, ...], Field(max_length=200)] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values that may be written into an image: without references. Points are rounded to 3 digits."""
        values: dict[str, Any] = _plain_values().dump_python(self, mode="json")
        return values


def read_choice(values: Mapping[str, Any]) -> Choice:
    """The choice of a record (`Choice.to_json`); of a private image it has no reasons. Raises `ReadError`."""
    try:
        return _plain_values().validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ReadError(f"the recorded choice cannot be read: {place}: {first['msg']}") from None


@cache
def _plain_values() -> TypeAdapter[Choice]:
    return TypeAdapter(Choice)
