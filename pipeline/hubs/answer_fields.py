"""Untrusted JSON as typed values: every field of an answer has its type and bounds, or its default."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from pipeline.registry.card_fields import MOST_WORDS, distinct, sequence
from pipeline.storage.foreign_names import plain


class HubAnswer(BaseModel):
    """An object of a hub's answer. A value of a wrong type loses only that field; unknown fields are ignored.

    The aliases are the hub's names. Answers are kept under ours, so both are read.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, protected_namespaces=())

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """The answer in a JSON value; None if it is no object."""
        return cls.model_validate(value) if isinstance(value, dict) else None

    @field_validator("*", mode="wrap")
    @classmethod
    def _default_for_nonsense(cls, value: Any, read: ValidatorFunctionWrapHandler, about: ValidationInfo) -> Any:
        try:
            return read(value)
        except ValidationError:
            return cls.model_fields[about.field_name or ""].get_default(call_default_factory=True)


def words(value: Any) -> tuple[str, ...]:
    """The texts in a list, or a single text, each as one printable line; without duplicates."""
    parts = [value] if isinstance(value, str) else sequence(value)
    return distinct((plain(part) for part in parts[: 2 * MOST_WORDS]), MOST_WORDS)


def objects(most: int) -> BeforeValidator:
    """The objects in a list, up to a limit; other elements are skipped."""

    def read(value: Any) -> list[Any]:
        return [one for one in sequence(value) if isinstance(one, dict)][:most]

    return BeforeValidator(read)


def line(longest: int) -> BeforeValidator:
    """A text as one printable line, cut at a limit; empty if it is no text."""
    return BeforeValidator(lambda value: plain(value, longest))


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Line = Annotated[str, line(200)]
Words = Annotated[tuple[str, ...], BeforeValidator(words)]
FirstWord = Annotated[str, BeforeValidator(lambda value: next(iter(words(value)), ""))]
"""The first text of a list, or the one there is."""

Truth = Annotated[bool, Strict()]
Number = Annotated[int, Strict(), Field(gt=0, lt=2**63)]
"""A whole number from 1 on that fits into 63 bits, as ids and sizes are; the default is 0, for one that is not told."""

Amount = Annotated[float, Strict(), Field(ge=0, lt=2**43, allow_inf_nan=False)]
Sha256 = Annotated[str, BeforeValidator(_lower), StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""In small letters."""

GitHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
"""Of a commit or of a file's content, by SHA-1."""
