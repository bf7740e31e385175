"""Long lists of a hub, which come in pages: each page names the next by a cursor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipeline.hubs.results import Ok, Outcome
from pipeline.hubs.waiting import Say
from pipeline.storage.foreign_names import plain

PER_PAGE = 100
"""What CivitAI gives at most; Hugging Face would give more."""

MOST_PAGES = 20
"""Longer lists are cut: nobody reads them, and hubs are asked once a second at most."""

_LONGEST_CURSOR = 2_000

Page = Callable[[int, str | None], Outcome[Any]]
"""Asks for so many finds from a cursor on (None: from the first); the value is what `page` makes."""


def page(items: list[Any], cursor: object) -> dict[str, Any]:
    """A page as it is kept, with the cursor of the next if it is one."""
    text = str(cursor) if isinstance(cursor, str | int) and not isinstance(cursor, bool) else ""
    return {"items": items, "next": text if text == plain(text, _LONGEST_CURSOR) else ""}


def cursor_in(link: str) -> str:
    """The cursor in a `Link` header (RFC 8288) whose relation is `next`; empty without one.

    Of the address there only the cursor is used: the next page is asked for where the first was.
    """
    for part in link.split(","):
        target, _, relation = part.partition(">")
        if 'rel="next"' in relation:
            return next(iter(parse_qs(urlsplit(target.strip().removeprefix("<")).query).get("cursor", ())), "")
    return ""


def paged(ask_page: Page, wanted: int | None, label: str, say: Say) -> Outcome[list[Any]]:
    """The first `wanted` items of a hub's list, by default all of up to `MOST_PAGES` pages; `say` is told of more.

    What came before a page that fails is given all the same.
    """
    found: Ok[list[Any]] | None = None
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        had = len(found.value) if found else 0
        said = ask_page(PER_PAGE if wanted is None else min(PER_PAGE, wanted - had), cursor)
        if not isinstance(said, Ok):
            if found is None:
                return said
            say(f"{label}: has more, but {said.say()}")
            return found
        items = said.value["items"]
        found = Ok([*(found.value if found else ()), *items], said.at, said.stale or bool(found and found.stale))
        cursor = said.value["next"]
        if not cursor or not items or (wanted is not None and len(found.value) >= wanted):
            return found
    assert found
    say(f"{label}: has more than {len(found.value):,}; more words narrow it down")
    return found
