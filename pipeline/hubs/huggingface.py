"""Hugging Face's protocol: what it says of a repository, of its card, and in a search, cut down to what is used.

Endpoints and error codes are those that huggingface_hub 2.4 uses (`hf_api.py`, `utils/_http.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from pipeline.errors import ModelError
from pipeline.hubs.answer_cache import keep
from pipeline.hubs.json_fields import mapping, number, objects, parse_list, parse_object, words
from pipeline.hubs.paging import cursor_in, page, paged
from pipeline.hubs.query import FRESH_S, Answer, answered, ask, is_refused_by_storage, storage_problem
from pipeline.hubs.remote_models import TOKENS, SearchHit
from pipeline.hubs.repository_files import has_weights
from pipeline.hubs.results import Ok, Outcome, Problem
from pipeline.hubs.retries import retry_after_s
from pipeline.hubs.transport import Transport
from pipeline.registry.records import StoredKind, now
from pipeline.storage.foreign_names import plain
from pipeline.weights.families import family_of
from pipeline.weights.references import parse

COMMIT = re.compile(r"[0-9a-f]{40}")

KIND_TAGS: dict[str, StoredKind] = {
    "lora": "lora", "controlnet": "controlnet", "textual_inversion": "embedding", "ip-adapter": "ip_adapter",
}  # fmt: skip
"""Tags by which authors say what their repository is; a search for a kind filters by them."""

_EXPANDED = ("sha", "gated", "disabled", "downloads", "tags", "pipeline_tag", "cardData", "siblings")
_MOST_README_BYTES = 2**20
_MOST_FILES = 5_000
_HUB = "Hugging Face"
_NONSENSE = "its address answers with something else than was asked for"


def info(
    transport: Transport, repository: str, revision: str = "main", fresh_s: float | None = FRESH_S
) -> Outcome[Any]:
    """What the hub says of a repository at a revision: an object with the fields of `_trimmed`.

    It is asked again only if what is kept is older than `fresh_s` seconds; None: whatever its age.
    """
    pinned = bool(COMMIT.fullmatch(revision))
    address = _info_url(transport, repository, revision)
    what = f"hf:{repository}" + ("" if revision == "main" else f"@{revision}")

    def fetch() -> Outcome[Any]:
        answer = ask(transport, "huggingface.api", address, what)
        if not isinstance(answer, Answer):
            return answer
        if answer.status != 200:
            return refusal(transport, answer, what)
        raw = parse_object(answer.body)
        if raw is None:
            return Problem("offline", what, _NONSENSE)
        commit = raw.get("sha")
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or (pinned and commit != revision):
            why = "the hub does not say which commit this is, so nothing of it can be relied on"
            return Problem("refused", what, why)
        trimmed = _trimmed(raw)
        keep(_info_url(transport, repository, commit), trimmed)  # canonical references name the commit
        return Ok(trimmed, now())

    return answered(address, what, fetch, fresh_s)


def search(transport: Transport, query: str, kind: StoredKind | None, limit: int | None) -> Outcome[list[SearchHit]]:
    """Repositories whose names hold the words, the most downloaded first; all of them without a limit."""
    tag = next((tag for tag, of in KIND_TAGS.items() if of == kind), "diffusers" if kind == "vae" else None)
    of_kind = ("filter", tag) if tag else ("pipeline_tag", "text-to-image")

    def ask_page(count: int, cursor: str | None) -> Outcome[Any]:
        asked = [("search", query), ("sort", "downloads"), ("limit", str(count)), of_kind]
        asked += [("expand", name) for name in _EXPANDED] + ([("cursor", cursor)] if cursor else [])
        address = f"{_api(transport)}?{urlencode(asked)}"

        def fetch() -> Outcome[Any]:
            answer = ask(transport, "huggingface.api", address, _HUB)
            if not isinstance(answer, Answer):
                return answer
            if answer.status != 200:
                return refusal(transport, answer, _HUB)
            found = parse_list(answer.body)
            if found is None:
                return Problem("offline", _HUB, _NONSENSE)
            return Ok(page([_trimmed(one) for one in objects(found)], cursor_in(answer.headers.get("link", ""))), now())

        return answered(f"{address}#page", _HUB, fetch, FRESH_S)

    said = paged(ask_page, limit, _HUB, transport.say)
    if not isinstance(said, Ok):
        return said
    hits = [_hit(transport, one) for one in said.value if _can_be_named(one["id"])]
    return Ok(hits, said.at, said.stale)


def readme(transport: Transport, repository: str, commit: str) -> Outcome[Any]:
    """The text of a repository's card, without markup; kept for ever, since a commit does not change."""
    from pipeline.hubs.plain_text import plain_text

    address = file_url(transport, repository, commit, "README.md")
    what = f"hf:{repository}"

    def fetch() -> Outcome[Any]:
        answer = ask(transport, "huggingface.file", address, what, most_bytes=_MOST_README_BYTES)
        if not isinstance(answer, Answer):
            return answer
        if answer.status != 200:
            return refusal(transport, answer, what)
        return Ok(plain_text(answer.body.decode("utf-8", errors="replace")), now())

    return answered(address, what, fetch, None)


def refusal(transport: Transport, answer: Answer, what: str) -> Problem:
    """What an answer without success means. A missing repository is 401 for those who are not logged in."""
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


def obstacle(transport: Transport, said: Mapping[str, Any], what: str) -> Problem | None:
    """What keeps callers without a token, or any, from a repository of which the hub says this."""
    if said["gated"] and not transport.has_token("huggingface"):
        return Problem("gated", what, token=TOKENS["huggingface"])
    return Problem("downloads_disabled", what) if said["disabled"] else None


def file_url(transport: Transport, repository: str, commit: str, name: str) -> str:
    """Where a file of a repository is fetched from."""
    return f"{transport.settings.huggingface()}/{repository}/resolve/{commit}/{quote(name)}"


def base_model(said: Mapping[str, Any]) -> str | None:
    """What a model was made from, as its card or its tags say."""
    tagged = [tag.rpartition(":")[2] for tag in said["tags"] if tag.startswith("base_model:")]
    return next(iter((*words(said["card"].get("base_model")), *tagged)), None)


def licence(said: Mapping[str, Any]) -> str | None:
    """The licence's short name, as the card or the tags say it."""
    card = said["card"]
    own = plain(card.get("license_name")) if card.get("license") == "other" else ""
    tagged = next((tag.partition(":")[2] for tag in said["tags"] if tag.startswith("license:")), "")
    return own or next(iter(words(card.get("license"))), "") or tagged or None


def family(said: Mapping[str, Any]) -> str | None:
    """The family of the pipeline that the tags name."""
    pipelines = (family_of(tag.partition(":")[2]) for tag in said["tags"] if tag.startswith("diffusers:"))
    return next((known.name for known in pipelines if known), None)


def kind(said: Mapping[str, Any]) -> StoredKind | None:
    """What a repository holds, by its tags and its files' names; None where they do not tell."""
    names = {mapping(one).get("rfilename") for one in said["siblings"]}
    if "model_index.json" in names:
        return "checkpoint"
    tagged = next((of for tag, of in KIND_TAGS.items() if tag in said["tags"]), None)
    return tagged or ("lora" if "pytorch_lora_weights.safetensors" in names else None)


def _can_be_named(repository: str) -> bool:
    try:
        return parse(f"hf:{repository}").repository == repository
    except ModelError:
        return False


def _api(transport: Transport) -> str:
    return f"{transport.settings.huggingface()}/api/models"


def _info_url(transport: Transport, repository: str, revision: str) -> str:
    return f"{_api(transport)}/{repository}/revision/{quote(revision, safe='')}?blobs=true"


def _trimmed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are used, each of its type."""
    card = mapping(raw.get("cardData"))
    siblings = raw.get("siblings")
    return {
        "id": plain(raw.get("id")),
        "sha": raw.get("sha") if isinstance(raw.get("sha"), str) else "",
        "gated": bool(raw.get("gated")),
        "disabled": raw.get("disabled") is True,
        "downloads": number(raw.get("downloads")) or 0,
        "tags": list(words(raw.get("tags"))),
        "card": {
            name: list(words(card.get(name))) if name == "base_model" else next(iter(words(card.get(name))), "")
            for name in ("license", "license_name", "base_model", "instance_prompt")
        },
        "siblings": [
            {name: one[name] for name in ("rfilename", "size", "blobId", "lfs") if name in one}
            for one in objects(siblings)[:_MOST_FILES]
        ],
    }


def _hit(transport: Transport, said: Mapping[str, Any]) -> SearchHit:
    what = f"hf:{said['id']}"
    problem = obstacle(transport, said, what)
    if problem is None and not has_weights(str(one.get("rfilename")) for one in said["siblings"]):
        problem = Problem("refused", what, "has no weights as safetensors")
    return SearchHit(
        source="huggingface",
        reference=what,
        name=said["id"].rpartition("/")[2],
        kind=kind(said),
        family=family(said),
        base_model=base_model(said),
        licence=licence(said),
        downloads=said["downloads"],
        obstacle=problem,
    )
