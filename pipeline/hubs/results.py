"""What a hub said, as values: one class per kind of answer, each with its line for the user.

A hub that refuses, or that cannot be reached, is no fault of the program: nothing here is ever raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from pipeline.system.units import duration_text

Value = TypeVar("Value")

AnswerKind = Literal[
    "ok", "not_found", "needs_login", "gated", "early_access", "rate_limited", "offline", "archived",
    "downloads_disabled", "refused",
]  # fmt: skip

PASSING: tuple[AnswerKind, ...] = ("offline", "rate_limited")
"""Answers that may be others the next time."""

_BY_HAND = "download it in a browser instead, and take the folder it lies in with: darkroom models scan FOLDER"


@dataclass(frozen=True, slots=True)
class Ok(Generic[Value]):
    """The hub has it, or had it at `at` (UTC, ISO). `stale`: that is long ago, and the hub could not be asked now."""

    kind: ClassVar[AnswerKind] = "ok"
    value: Value
    at: str
    stale: bool = False

    def say(self) -> str:
        """One line for the user."""
        return f"as it was on {self.at[:10]}; the hub could not be asked now" if self.stale else "found"


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is no such thing, or it is hidden from those who are not logged in: hubs do not tell these apart.

    Not `lasting` is what the hub itself asks not to be remembered: its storage was out of reach.
    """

    kind: ClassVar[AnswerKind] = "not_found"
    what: str
    why: str = "there is none, or it is private"
    lasting: bool = True

    def say(self) -> str:
        """One line for the user."""
        return f"{self.what}: {self.why}; look for it with: darkroom models search"


@dataclass(frozen=True, slots=True)
class NeedsLogin:
    """Its author lets only those download it who are logged in; `has_token`: the token that was sent is not enough."""

    kind: ClassVar[AnswerKind] = "needs_login"
    what: str
    token: str
    has_token: bool = False

    def say(self) -> str:
        """One line for the user; `token` is the environment variable that could hold one."""
        if self.has_token:
            refused = f"and the hub does not take the token in {self.token}"
            return f"{self.what}: its author asks for a login, {refused}; {_BY_HAND}"
        return (
            f"{self.what}: its author asks for a login; {_BY_HAND} (or set {self.token} and hub.allow_token=true, "
            "which tells the hub who you are)"
        )


@dataclass(frozen=True, slots=True)
class Gated:
    """Its owner asks to accept conditions first; `has_token`: whoever the token that was sent is of has not."""

    kind: ClassVar[AnswerKind] = "gated"
    what: str
    token: str
    has_token: bool = False

    def say(self) -> str:
        """One line for the user; `token` is the environment variable that could hold one."""
        if self.has_token:
            return (
                f"{self.what}: its owner asks to accept conditions on its page first, as the user of the token in "
                f"{self.token}, which must be allowed to read such models"
            )
        return (
            f"{self.what}: its owner asks to accept conditions on its page first; then {_BY_HAND} (or set {self.token} "
            "and hub.allow_token=true, which tells the hub who you are)"
        )


@dataclass(frozen=True, slots=True)
class EarlyAccess:
    """Only those who pay have it now; `until` is the hub's date and time (ISO), if it gives one."""

    kind: ClassVar[AnswerKind] = "early_access"
    what: str
    until: str | None = None

    def say(self) -> str:
        """One line for the user."""
        until = f" until {self.until[:10]}" if self.until else ""
        return f"{self.what}: is in paid early access{until}; take another one"


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Too many requests; the hub wants to be left alone for `retry_after_s` seconds, if it says so."""

    kind: ClassVar[AnswerKind] = "rate_limited"
    what: str
    retry_after_s: float | None = None

    def say(self) -> str:
        """One line for the user."""
        wait = f"in {duration_text(self.retry_after_s)}" if self.retry_after_s is not None else "in some minutes"
        return f"{self.what}: the hub asks for fewer requests; try again {wait}"


@dataclass(frozen=True, slots=True)
class Offline:
    """The hub cannot be reached, or answers with nothing that makes sense."""

    kind: ClassVar[AnswerKind] = "offline"
    what: str
    why: str

    def say(self) -> str:
        """One line for the user."""
        return f"{self.what}: {self.why} (what is on this machine can still be used)"


@dataclass(frozen=True, slots=True)
class Archived:
    """It is shown, and no longer given out."""

    kind: ClassVar[AnswerKind] = "archived"
    what: str

    def say(self) -> str:
        """One line for the user."""
        return f"{self.what}: is archived and can no longer be downloaded; take another one"


@dataclass(frozen=True, slots=True)
class DownloadsDisabled:
    """Its author lets it be used on the hub's own machines only."""

    kind: ClassVar[AnswerKind] = "downloads_disabled"
    what: str

    def say(self) -> str:
        """One line for the user."""
        return f"{self.what}: its author does not let it be downloaded; take another one"


@dataclass(frozen=True, slots=True)
class Refused:
    """It could be had, and Darkroom does not take it: a pickle, no checksum, a name that could do harm."""

    kind: ClassVar[AnswerKind] = "refused"
    what: str
    why: str

    def say(self) -> str:
        """One line for the user."""
        return f"{self.what}: {self.why}"


Problem = (
    NotFound
    | NeedsLogin
    | Gated
    | EarlyAccess
    | RateLimited
    | Offline
    | Archived
    | DownloadsDisabled
    | Refused
)  # fmt: skip
"""Every answer but `Ok`."""

Outcome = Ok[Value] | Problem
"""What a question to a hub ends in."""
