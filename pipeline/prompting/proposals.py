"""What is proposed for a prompt, one value or text at a time, and who says so.

Lengths are those of a record, which anybody may have written, where a choice is read back from one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Source = Literal["asked", "card", "profile", "family", "rule", "learned", "ollama"]
"""Who decided: the user, the model's card, its profile, its family's usual values, our rules, ratings, an LLM."""

Name = Annotated[str, Field(max_length=400)]
Line = Annotated[str, Field(max_length=2_000)]
_Text = Annotated[str, Field(max_length=20_000)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Setting:
    """One sampling value and who decided it."""

    value: Finite | int | Name | None
    source: Source


@dataclass(frozen=True, slots=True)
class TextChoice:
    """A text that is made of the user's own and what was added to it; `why` says why nothing was, where so."""

    text: _Text
    own: _Text = ""
    added: Annotated[tuple[Line, ...], Field(max_length=200)] = ()
    why: Line = ""
