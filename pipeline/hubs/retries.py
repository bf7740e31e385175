"""When and how often a request is retried."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipeline.hubs.waiting import TOLD_S, Say, say_nothing
from pipeline.system.units import duration_text


@dataclass(frozen=True, slots=True)
class Patience:
    """Waits that double, shortened at random so that many clients do not retry together.

    `attempts` are those in a row without anything gained. A server that is busy is waited for from `first_s` on; one
    that asks for fewer requests from `crowded_s` on, as CivitAI's anonymous callers may share one allowance. Never
    longer than `longest_s`: who wants to be left alone for longer is.
    """

    attempts: int = 5
    first_s: float = 1.0
    crowded_s: float = 30.0
    longest_s: float = 600.0
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random

    def wait(
        self,
        failures: int,
        *,
        crowded: bool = False,
        asked_s: float | None = None,
        why: str = "",
        say: Say = say_nothing,
    ) -> bool:
        """Sleep after this many failures in a row, or as long as the server asked; False if that is too long.

        `say` is told of a longer wait, and `why`.
        """
        if failures >= self.attempts or (asked_s or 0.0) > self.longest_s:
            return False
        longest = min(self.longest_s, (self.crowded_s if crowded else self.first_s) * 2.0 ** (failures - 1))
        seconds = longest * (0.5 + self.chance() / 2) if asked_s is None else asked_s
        if seconds > TOLD_S:
            say(f"{why}; trying again in {duration_text(seconds)}")
        self.sleep(seconds)
        return True


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait before the next request: from `Retry-After` (a number or a date) or `RateLimit: "api";r=0;t=55`.

    `headers` have small letters. None where neither is given or makes sense.
    """
    said = headers.get("retry-after", "").strip()
    if _is_number(said):
        return float(said)
    if said:
        try:
            date = parsedate_to_datetime(said)
        except ValueError:
            return None
        return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds())
    for part in headers.get("ratelimit", "").split(";"):
        name, _, seconds = part.strip().partition("=")
        if name == "t" and _is_number(seconds):
            return float(seconds)
    return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
