"""Reads long lists of a hub page by page: each page names the next by a cursor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import BeforeValidator

from pipeline.hubs.answer_fields import HubAnswer, objects
from pipeline.hubs.results import Ok, Outcome
from pipeline.hubs.waiting import Say
from pipeline.storage.foreign_names import plain

PER_PAGE = 100
"""What CivitAI gives at most; Hugging Face would give more."""

MOST_PAGES = 20
"""Longer lists are cut: nobody reads them, and hubs are asked once a second at most."""

_MOST_ON_A_PAGE = 1_000
"""Hubs that send more than was asked for are read up to here."""

_LONGEST_CURSOR = 2_000

Item = TypeVar("Item", bound=HubAnswer)


def _cursor(value: Any) -> str:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if text == plain(text, _LONGEST_CURSOR) else ""


class Page(HubAnswer, Generic[Item]):
    """A part of a list; `next` is the cursor of the next part, empty for the last."""

    items: Annotated[tuple[Item, ...], objects(_MOST_ON_A_PAGE)] = ()
    next: Annotated[str, BeforeValidator(_cursor)] = ""


AskPage = Callable[[int, str | None], Outcome[Page[Item]]]
"""Asks for so many finds from a cursor on (None: from the first)."""


def cursor_in(link: str) -> str:
    """The cursor in a `Link` header (RFC 8288) whose relation is `next`; empty without one.

    Of the address there only the cursor is used: the next page is asked for where the first was.
    """
    for part in link.split(","):
        target, _, relation = part.partition(">")
        if 'rel="next"' in relation:
            return next(iter(parse_qs(urlsplit(target.strip().removeprefix("<")).query).get("cursor", ())), "")
    return ""


def paged(ask_page: AskPage[Item], wanted: int | None, label: str, say: Say) -> Outcome[list[Item]]:
    """The first `wanted` items of a hub's list, by default of up to `MOST_PAGES` pages; `say` is told of more.

    What came before a page that fails is given all the same.
    """
    found: Ok[list[Item]] | None = None
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        had = len(found.value) if found else 0
        said = ask_page(PER_PAGE if wanted is None else min(PER_PAGE, wanted - had), cursor)
        if not isinstance(said, Ok):
            if found is None:
                return said
            say(f"{label}: has more, but {said.say()}")
            return found
        items = said.value.items
        found = Ok([*(found.value if found else ()), *items], said.at, said.stale or bool(found and found.stale))
        cursor = said.value.next
        if not cursor or not items or (wanted is not None and len(found.value) >= wanted):
            return found
    assert found
    say(f"{label}: has more than {len(found.value):,}; more words narrow it down")
    return found
