"""Searches for models by words: on this machine, Hugging Face and CivitAI; those that can be used come first."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.hubs import civitai, huggingface
from pipeline.hubs.remote_models import SearchHit
from pipeline.hubs.results import Ok, Outcome
from pipeline.hubs.transport import Transport
from pipeline.hubs.waiting import begun
from pipeline.registry.database import Registry
from pipeline.registry.queries import search_local
from pipeline.registry.records import StoredKind, StoredModel
from pipeline.registry.storing import key_of
from pipeline.storage.foreign_names import plain

ASKED = 40
"""So many finds are asked of each hub; CivitAI sorts them by age, so that a well-known one may come late."""

Search = Callable[[Transport, str, StoredKind | None, int | None], Outcome[list[SearchHit]]]
HUBS: tuple[tuple[str, Search], ...] = (("Hugging Face", huggingface.search), ("CivitAI", civitai.search))
"""In the order in which they are preferred: the first pins what it gives by a commit and needs no login for most."""


@dataclass(frozen=True, slots=True)
class Found:
    """The results of a search, the best first, and sentences on what is missing from them.

    `reached`: some hub could be asked now, or its answer was younger than an hour.
    """

    hits: tuple[SearchHit, ...]
    notes: tuple[str, ...] = ()
    reached: bool = True


def search(
    query: str,
    registry: Registry,
    transport: Transport,
    *,
    kind: StoredKind | None = None,
    limit: int | None = 20,
    asked: int | None = ASKED,
) -> Found:
    """Models that match these words: first those on this machine, then those to download, then others, with the reason.

    Sent to the hubs are the words and the kind; `asked` is the number of finds that is asked of each, None for all. A
    hub that cannot be asked is noted, never raised. Raises `RegistryError`.
    """
    words = plain(query, 100)
    local = here(words, registry, kind)
    fetched = {hit.reference.partition("@")[0] for hit in local}
    notes: list[str] = []
    remote: list[SearchHit] = []
    reached = not words
    if words:
        # All at the same time; their answers in the order of `HUBS`.
        answers = [begun(partial(ask_hub, ask, transport, words, kind, asked)) for _, ask in HUBS]
        for said in (answer.result() for answer in answers):
            reached |= said.kind != "offline" and not (isinstance(said, Ok) and said.stale)
            if isinstance(said, Ok):
                remote += [
                    hit for hit in said.value if hit.reference not in fetched and hit.kind in (None, kind or hit.kind)
                ]
                notes += [f"some of these results are {said.say()}"] if said.stale else []
            else:
                notes.append(said.say())
    remote.sort(key=lambda hit: _rank(hit, words))
    return Found((*local, *remote)[:limit], tuple(dict.fromkeys(notes)), reached)


def here(query: str, registry: Registry, kind: StoredKind | None = None) -> list[SearchHit]:
    """Models on this machine that match these words, those with this very name first. Raises `RegistryError`."""
    return [_local_hit(model) for model in search_local(registry, query) if kind in (None, model.kind)]


def ask_hub(
    ask: Search, transport: Transport, words: str, kind: StoredKind | None, asked: int | None = ASKED
) -> Outcome[list[SearchHit]]:
    """The results of one hub for the words as written and, if they are joined, for the separate words as well.

    Hubs compare words as they stand, and do not find "Ink Wash" by `ink-wash`.
    """
    said = ask(transport, words, kind, asked)
    apart = " ".join(re.split(r"[\s_-]+", words)).strip()
    if not isinstance(said, Ok) or apart in ("", words):
        return said
    more = ask(transport, apart, kind, asked)
    if not isinstance(more, Ok):
        return said
    hits = {hit.reference: hit for hit in (*said.value, *more.value)}
    return Ok([*hits.values()], said.at, said.stale or more.stale)


def _rank(hit: SearchHit, words: str) -> tuple[bool, int, bool, int]:
    """What can be had, then how well the name fits, then whether it can be run, then the number of downloads."""
    name, key = key_of(hit.short or hit.name), key_of(words)
    fit = 0 if name == key else 1 if name.startswith(key) else 2 if key in name else 3
    return hit.obstacle is not None, fit, hit.family is None, -hit.downloads


def _local_hit(model: StoredModel) -> SearchHit:
    return SearchHit(
        source=model.source,
        reference=model.reference,
        name=model.name,
        kind=model.kind,
        family=model.family,
        base_model=model.base_model,
        licence=model.licence,
        bytes=model.bytes,
        path=model.path,
    )
