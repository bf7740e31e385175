"""What keeps a model from being downloaded, where that shows only when the download is asked for."""

from __future__ import annotations

from pipeline.hubs import civitai
from pipeline.hubs.query import Answer, ask, is_refused_by_storage
from pipeline.hubs.remote_models import RemoteModel
from pipeline.hubs.request_headers import ANYTHING
from pipeline.hubs.results import Problem
from pipeline.hubs.transport import Response, Transport

_GIVEN = (200, 206, 416)


def civitai_refusal(answer: Answer, model: RemoteModel, transport: Transport) -> Problem:
    """What CivitAI's answer in place of a file means; that a login is asked for is remembered."""
    problem = civitai.refusal(transport, answer, model.reference)
    if problem.kind == "needs_login" and not problem.token_sent:
        civitai.remember_login(transport, model.version_id or 0)
    return problem


def would_be_refused(model: RemoteModel, transport: Transport) -> Problem | None:
    """Whether CivitAI's author of a model asks for a login; None where the download would be given.

    That takes a request for the end of the file, of which nothing is read. Hugging Face says such things before.
    """
    from pipeline.hubs.downloading import MOST_BYTES, beginning

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
    return None if given else civitai_refusal(answer, model, transport)
