"""The results of requests to hubs, as values: `Ok` with the answer, or a `Problem` with its message for the user.

A hub that refuses, or that cannot be reached, is no fault of the program: nothing here is ever raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from pipeline.system.units import duration_text

Value = TypeVar("Value")

ProblemKind = Literal[
    "not_found", "needs_login", "gated", "early_access", "rate_limited", "offline", "archived", "downloads_disabled",
    "refused",
]  # fmt: skip

PASSING: tuple[ProblemKind, ...] = ("offline", "rate_limited")
"""Answers that may be others the next time."""

_BY_HAND = "download it in a browser instead, and scan its folder with: darkroom models scan FOLDER"
_WITH_TOKEN = "(or set {token} and hub.allow_token=true, which tells the hub who you are)"

_SENTENCES: dict[ProblemKind, str] = {
    "not_found": "{why}; look for it with: darkroom models search",
    "needs_login": f"its author asks for a login; {_BY_HAND} {_WITH_TOKEN}",
    "gated": f"its owner asks to accept conditions on its page first; then {_BY_HAND} {_WITH_TOKEN}",
    "early_access": "is in paid early access{until}; take another one",
    "rate_limited": "the hub asks for fewer requests; try again {when}",
    # The hub cannot be reached, or answers with nothing that makes sense.
    "offline": "{why} (what is on this machine can still be used)",
    # It is shown, and no longer given out.
    "archived": "is archived and can no longer be downloaded; take another one",
    # It may be used on the hub's own machines only.
    "downloads_disabled": "its author does not let it be downloaded; take another one",
    # It could be had, and Darkroom does not take it: a pickle, no checksum, a name that could do harm.
    "refused": "{why}",
}
_TOKEN_SENT: dict[ProblemKind, str] = {
    "needs_login": f"its author asks for a login, and the hub does not take the token in {{token}}; {_BY_HAND}",
    "gated": (
        "its owner asks to accept conditions on its page first, as the user of the token in {token}, which must be "
        "allowed to read such models"
    ),
}
"""The same where a token was sent and is not enough."""


@dataclass(frozen=True, slots=True)
class Ok(Generic[Value]):
    """The hub's answer, given at `at` (UTC, ISO). `stale`: it is old, and the hub could not be asked now."""

    kind: ClassVar[Literal["ok"]] = "ok"
    value: Value
    at: str
    stale: bool = False

    def say(self) -> str:
        """One line for the user."""
        return f"as of {self.at[:10]}; the hub could not be asked now" if self.stale else "found"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why `what` cannot be fetched. Which other fields are set depends on the kind.

    `why` is the reason in words; without one, `not_found` also means what is hidden from those who are not logged in,
    since hubs do not tell these apart. `token` is the environment variable that could hold a token; `token_sent`: one
    was, and is not enough. `until` is when early access ends (the hub's date and time, ISO), `retry_after_s` how long
    the hub wants to be left alone, both if it says so. `lasting`: whether that there is no such thing may be remembered
    for a while; hubs ask not to while their storage is out of reach.
    """

    kind: ProblemKind
    what: str
    why: str = ""
    token: str = ""
    token_sent: bool = False
    until: str = ""
    retry_after_s: float | None = None
    lasting: bool = True

    def say(self) -> str:
        """One line for the user."""
        sentences = _TOKEN_SENT if self.token_sent else _SENTENCES
        said = sentences[self.kind].format(
            why=self.why or "there is none, or it is private",
            token=self.token,
            until=f" until {self.until[:10]}" if self.until else "",
            when="in some minutes" if self.retry_after_s is None else f"in {duration_text(self.retry_after_s)}",
        )
        return f"{self.what}: {said}"


Outcome = Ok[Value] | Problem
"""What a question to a hub ends in."""
