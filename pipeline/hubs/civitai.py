"""Requests to CivitAI: versions, models, look-ups by hash, searches, and the meaning of refusals.

Endpoints and refusals are those of its own handlers (`src/pages/api` of civitai/civitai). Its answers' `downloadUrl` is
never used: addresses are made of the version's and the file's number.
"""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import urlencode

from pipeline.hubs.answer_cache import keep, kept
from pipeline.hubs.civitai_protocol import CivitaiError, CivitaiModel, ModelSummary, ModelVersion, SearchAnswer, title
from pipeline.hubs.paging import Page, paged
from pipeline.hubs.query import FRESH_S, Answer, answered, ask, is_refused_by_storage, storage_problem
from pipeline.hubs.remote_models import TOKENS, RemoteModel, SearchHit
from pipeline.hubs.results import Ok, Outcome, Problem
from pipeline.hubs.retries import retry_after_s
from pipeline.hubs.transport import ANYTHING, Response, Transport
from pipeline.hubs.version_files import KINDS, chosen_file
from pipeline.registry.records import StoredKind, now
from pipeline.weights.families import family_of_base

_Numbered = TypeVar("_Numbered", ModelVersion, CivitaiModel)
_HUB = "CivitAI"
_GIVEN = (200, 206, 416)
_NONSENSE = "its address answers with something else than was requested"


def version(transport: Transport, id_: int, fresh_s: float | None = FRESH_S) -> Outcome[ModelVersion]:
    """The hub's description of a version.

    It is asked again only if what is kept is older than `fresh_s` seconds; None: whatever its age.
    """
    return _object(transport, f"model-versions/{id_}", f"civitai:{id_}", ModelVersion, fresh_s)


def model(transport: Transport, id_: int, fresh_s: float | None = FRESH_S) -> Outcome[CivitaiModel]:
    """The hub's description of a model and its versions, the newest first, reduced likewise."""
    return _object(transport, f"models/{id_}", f"civitai:{id_}", CivitaiModel, fresh_s)


def version_by_hash(transport: Transport, sha256: str) -> Outcome[ModelVersion]:
    """The version that has a file with this hash. Sends the hash to the hub, so call it only at the user's request."""
    place = f"model-versions/by-hash/{sha256.upper()}"
    return _object(transport, place, f"sha256:{sha256}", ModelVersion, fresh_s=None)


def search(transport: Transport, query: str, kind: StoredKind | None, limit: int | None) -> Outcome[list[SearchHit]]:
    """Models that match these words, each by its newest version that can be downloaded; all of them without a limit.

    An empty answer does not say there is none. What is sent are the words and the kind. `page` is refused beside a
    query, and of flags even `false` counts as true.
    """
    types = [("types", name) for name, of in KINDS.items() if of == kind]

    def ask_page(count: int, cursor: str | None) -> Outcome[Page[CivitaiModel]]:
        asked = [("query", query), ("limit", str(count)), *types, *([("cursor", cursor)] if cursor else [])]
        address = f"{_api(transport)}/models?{urlencode(asked)}"

        def fetch() -> Outcome[Page[CivitaiModel]]:
            answer = _get(transport, address, _HUB)
            if not isinstance(answer, Answer):
                return answer
            found = SearchAnswer.of(answer.json())
            if found is None or found.items is None:
                return Problem("offline", _HUB, _NONSENSE)
            return Ok(Page[CivitaiModel].model_validate({"items": found.items, "next": found.cursor}), now())

        return answered(f"{address}#page", _HUB, Page[CivitaiModel], fetch, FRESH_S)

    said = paged(ask_page, limit, _HUB, transport.say)
    if not isinstance(said, Ok):
        return said
    return Ok([hit for one in said.value if (hit := _hit(transport, one))], said.at, said.stale)


def refusal(transport: Transport, answer: Answer, what: str) -> Problem:
    """The meaning of an answer without success, for API requests and for downloads."""
    if is_refused_by_storage(answer):
        return storage_problem(answer, what, _HUB)
    body = CivitaiError.of(answer.json()) or CivitaiError()
    said = f"{body.error} {body.message}".lower()
    match answer.status:
        case 401 if "disabled downloads" in said:
            return Problem("downloads_disabled", what)
        case 401:
            return Problem("needs_login", what, token=TOKENS["civitai"], token_sent=transport.has_token("civitai"))
        case 403 if "early access" in said:
            return Problem("early_access", what, until=body.deadline)
        case 403 | 451:
            return Problem("offline", what, f"{_HUB} refuses this network ({answer.status})")
        case 404:
            return Problem("not_found", what, lasting="no-store" not in answer.headers.get("cache-control", ""))
        case 410:
            return Problem("archived", what)
        case 429 if "cursor" in said:  # of deep pages; asking again would never help
            return Problem("refused", what, "asked CivitAI for a page that it does not give")
        case 429:
            return Problem("rate_limited", what, retry_after_s=retry_after_s(answer.headers))
    return Problem("offline", what, f"{_HUB} answers with an error ({answer.status})")


def obstacle(transport: Transport, said: ModelVersion, of: ModelSummary, what: str) -> Problem | None:
    """Why a version (`said`) of a model (`of`) cannot be downloaded, as far as the answers tell.

    Whether a login is asked for shows only when it is downloaded; that is remembered for later searches.
    """
    if of.mode in ("Archived", "TakenDown"):
        return Problem("archived", what)
    if of.poi:
        return Problem("refused", what, "shows a real person, and CivitAI no longer gives such models out")
    if said.usage not in ("", "Download"):
        return Problem("downloads_disabled", what)
    if said.early_access and not transport.has_token("civitai"):
        return Problem("early_access", what, until=said.early_access_until)
    if not transport.has_token("civitai") and kept(_login_address(transport, said.id)):
        return Problem("needs_login", what, token=TOKENS["civitai"])
    if of.type not in KINDS:
        return Problem("refused", what, f"is of the kind {of.type!r}, which is not used here")
    chosen = chosen_file(said)
    return Problem("refused", what, chosen) if isinstance(chosen, str) else None


def file_url(transport: Transport, version_id: int, file_id: int) -> str:
    """The URL of one file of a version. Without the file's id the hub would choose a file itself."""
    return f"{transport.settings.url_of('civitai')}/api/download/models/{version_id}?fileId={file_id}"


def download_refusal(answer: Answer, model: RemoteModel, transport: Transport) -> Problem:
    """The meaning of CivitAI's answer instead of a file; remembers if a login is required."""
    problem = refusal(transport, answer, model.reference)
    if problem.kind == "needs_login" and not problem.token_sent:
        keep(_login_address(transport, model.version_id or 0), True)
    return problem


def would_be_refused(model: RemoteModel, transport: Transport) -> Problem | None:
    """Whether a model's author on CivitAI requires a login; None if the download would be given.

    That takes a request for the end of the file, of which nothing is read. Hugging Face says such things before.
    """
    from pipeline.hubs.downloading import MOST_BYTES, beginning  # of no use to a search

    if model.hub != "civitai":
        return None
    file = model.files[0]
    end = file.bytes - 1 if file.bytes and file.exact else None

    def read(response: Response) -> bytes:
        return b"" if response.status in _GIVEN else beginning(response)

    # Not as a request for a file, of which one has to wait until another process has fetched its own.
    answer = ask(
        transport, "civitai.api", file.url, model.reference,
        accept=ANYTHING, range_start=end, most_bytes=MOST_BYTES, read=read,
    )  # fmt: skip
    if not isinstance(answer, Answer):
        return answer
    # Where storage refuses its link, CivitAI has given the file.
    given = answer.status in _GIVEN or is_refused_by_storage(answer)
    return None if given else download_refusal(answer, model, transport)


def _login_address(transport: Transport, version_id: int) -> str:
    return f"{transport.settings.url_of('civitai')}/login-needed/{version_id}"


def _api(transport: Transport) -> str:
    return f"{transport.settings.url_of('civitai')}/api/v1"


def _get(transport: Transport, url: str, what: str) -> Answer | Problem:
    answer = ask(transport, "civitai.api", url, what)
    return refusal(transport, answer, what) if isinstance(answer, Answer) and answer.status != 200 else answer


def _object(
    transport: Transport, place: str, what: str, form: type[_Numbered], fresh_s: float | None
) -> Outcome[_Numbered]:
    address = f"{_api(transport)}/{place}"

    def fetch() -> Outcome[_Numbered]:
        answer = _get(transport, address, what)
        if not isinstance(answer, Answer):
            return answer
        said = form.of(answer.json())
        return Ok(said, now()) if said and said.id else Problem("offline", what, _NONSENSE)

    return answered(address, what, form, fetch, fresh_s)


def _hit(transport: Transport, of: CivitaiModel) -> SearchHit | None:
    """A model by its newest version that can be had, else by the newest."""
    if of.type not in KINDS or not of.versions:
        return None
    problems = [obstacle(transport, one, of, f"civitai:{one.id}") for one in of.versions]
    place = problems.index(None) if None in problems else 0
    one = of.versions[place]
    file = chosen_file(one)
    return SearchHit(
        source="civitai",
        reference=f"civitai:{one.id}",
        name=title(of.name, one.name),
        short=of.name,
        kind=KINDS[of.type],
        family=family_of_base(one.base_model),
        base_model=one.base_model or None,
        licence=of.permissions or None,
        bytes=None if isinstance(file, str) else file.bytes,
        downloads=of.downloads,
        obstacle=problems[place],
    )
