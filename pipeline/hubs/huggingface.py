"""Requests to Hugging Face: repositories, cards, searches, and the meaning of refusals.

Endpoints and error codes are those that huggingface_hub 2.4 uses (`hf_api.py`, `utils/_http.py`).
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from pipeline.errors import ModelError
from pipeline.hubs.answer_cache import keep
from pipeline.hubs.huggingface_protocol import KIND_TAGS, RepositoryInfo
from pipeline.hubs.limits import RequestKind
from pipeline.hubs.paging import Page, cursor_in, paged
from pipeline.hubs.query import FRESH_S, MOST_BYTES, Answer, answered, ask, is_refused_by_storage, storage_problem
from pipeline.hubs.remote_models import TOKENS, SearchHit
from pipeline.hubs.repository_files import has_weights
from pipeline.hubs.results import Ok, Outcome, Problem
from pipeline.hubs.retries import retry_after_s
from pipeline.hubs.transport import Transport
from pipeline.registry.records import StoredKind, now
from pipeline.storage.plain_text import plain_text
from pipeline.weights.references import parse

COMMIT = re.compile(r"[0-9a-f]{40}")

_EXPANDED = ("sha", "gated", "disabled", "downloads", "tags", "pipeline_tag", "cardData", "siblings")
_MOST_README_BYTES = 2**20
_HUB = "Hugging Face"
_NONSENSE = "its address answers with something else than was requested"


def info(
    transport: Transport, repository: str, revision: str = "main", fresh_s: float | None = FRESH_S
) -> Outcome[RepositoryInfo]:
    """The hub's description of a repository at a revision.

    It is asked again only if what is kept is older than `fresh_s` seconds; None: whatever its age.
    """
    pinned = bool(COMMIT.fullmatch(revision))
    address = _info_url(transport, repository, revision)
    what = f"hf:{repository}" + ("" if revision == "main" else f"@{revision}")

    def fetch() -> Outcome[RepositoryInfo]:
        answer = get(transport, "huggingface.api", address, what)
        if not isinstance(answer, Answer):
            return answer
        said = RepositoryInfo.of(answer.json())
        if said is None:
            return Problem("offline", what, _NONSENSE)
        if not said.sha or (pinned and said.sha != revision):
            why = "the hub does not say which commit this is, so nothing of it can be relied on"
            return Problem("refused", what, why)
        # Canonical references name the commit.
        keep(_info_url(transport, repository, said.sha), said.model_dump(mode="json"))
        return Ok(said, now())

    return answered(address, what, RepositoryInfo, fetch, fresh_s)


def search(transport: Transport, query: str, kind: StoredKind | None, limit: int | None) -> Outcome[list[SearchHit]]:
    """Repositories whose names contain the words, the most downloaded first; all of them without a limit."""
    tag = next((tag for tag, of in KIND_TAGS.items() if of == kind), "diffusers" if kind == "vae" else None)
    of_kind = ("filter", tag) if tag else ("pipeline_tag", "text-to-image")

    def ask_page(count: int, cursor: str | None) -> Outcome[Page[RepositoryInfo]]:
        asked = [("search", query), ("sort", "downloads"), ("limit", str(count)), of_kind]
        asked += [("expand", name) for name in _EXPANDED] + ([("cursor", cursor)] if cursor else [])
        address = f"{_api(transport)}?{urlencode(asked)}"

        def fetch() -> Outcome[Page[RepositoryInfo]]:
            answer = get(transport, "huggingface.api", address, _HUB)
            if not isinstance(answer, Answer):
                return answer
            found = answer.json()
            if not isinstance(found, list):
                return Problem("offline", _HUB, _NONSENSE)
            following = cursor_in(answer.headers.get("link", ""))
            return Ok(Page[RepositoryInfo].model_validate({"items": found, "next": following}), now())

        return answered(f"{address}#page", _HUB, Page[RepositoryInfo], fetch, FRESH_S)

    said = paged(ask_page, limit, _HUB, transport.say)
    if not isinstance(said, Ok):
        return said
    hits = [_hit(transport, one) for one in said.value if _can_be_named(one.id)]
    return Ok(hits, said.at, said.stale)


def readme(transport: Transport, repository: str, commit: str) -> Outcome[str]:
    """The text of a repository's card, without markup; cached for ever, since a commit does not change."""
    address = file_url(transport, repository, commit, "README.md")
    what = f"hf:{repository}"

    def fetch() -> Outcome[str]:
        answer = get(transport, "huggingface.file", address, what, most_bytes=_MOST_README_BYTES)
        if not isinstance(answer, Answer):
            return answer
        return Ok(plain_text(answer.body.decode("utf-8", errors="replace")), now())

    return answered(address, what, str, fetch, None)


def get(
    transport: Transport, kind: RequestKind, url: str, what: str, *, most_bytes: int = MOST_BYTES
) -> Answer | Problem:
    """The hub's answer to a request, or why there is none."""
    answer = ask(transport, kind, url, what, most_bytes=most_bytes)
    return refusal(transport, answer, what) if isinstance(answer, Answer) and answer.status != 200 else answer


def refusal(transport: Transport, answer: Answer, what: str) -> Problem:
    """The meaning of an answer without success. A missing repository is 401 for callers without a login."""
    if is_refused_by_storage(answer):
        return storage_problem(answer, what, _HUB)
    has_token = transport.has_token("huggingface")
    code = answer.headers.get("x-error-code", "")
    if code == "GatedRepo":
        return Problem("gated", what, token=TOKENS["huggingface"], token_sent=has_token)
    if code == "RevisionNotFound":
        return Problem("not_found", what, "it has no such revision")
    if code == "EntryNotFound":
        return Problem("not_found", what, "it has no such file")
    if answer.headers.get("x-error-message") == "Access to this resource is disabled.":
        return Problem("downloads_disabled", what)
    if answer.status == 401 and has_token and not code:
        return Problem("not_found", what, f"the hub does not take the token in {TOKENS['huggingface']}")
    if answer.status in (401, 404, 410):
        return Problem("not_found", what)
    if answer.status == 429:
        return Problem("rate_limited", what, retry_after_s=retry_after_s(answer.headers))
    return Problem("offline", what, f"{_HUB} answers with an error ({answer.status})")


def obstacle(transport: Transport, said: RepositoryInfo, what: str) -> Problem | None:
    """Why callers without a token, or all callers, cannot use a repository with this description."""
    if said.gated and not transport.has_token("huggingface"):
        return Problem("gated", what, token=TOKENS["huggingface"])
    return Problem("downloads_disabled", what) if said.disabled else None


def file_url(transport: Transport, repository: str, commit: str, name: str) -> str:
    """The URL of a file of a repository."""
    return f"{transport.settings.url_of('huggingface')}/{repository}/resolve/{commit}/{quote(name)}"


def _can_be_named(repository: str) -> bool:
    try:
        return parse(f"hf:{repository}").repository == repository
    except ModelError:
        return False


def _api(transport: Transport) -> str:
    return f"{transport.settings.url_of('huggingface')}/api/models"


def _info_url(transport: Transport, repository: str, revision: str) -> str:
    return f"{_api(transport)}/{repository}/revision/{quote(revision, safe='')}?blobs=true"


def _hit(transport: Transport, said: RepositoryInfo) -> SearchHit:
    what = f"hf:{said.id}"
    problem = obstacle(transport, said, what)
    if problem is None and not has_weights(file.name for file in said.files):
        problem = Problem("refused", what, "has no weights as safetensors")
    return SearchHit(
        source="huggingface",
        reference=what,
        name=said.id.rpartition("/")[2],
        kind=said.kind,
        family=said.family,
        base_model=said.base_model,
        licence=said.licence,
        downloads=said.downloads,
        obstacle=problem,
    )
