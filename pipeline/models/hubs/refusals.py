"""What keeps a model from being downloaded, where that shows only when the download is asked for."""

from __future__ import annotations

from pipeline.errors import Unreachable, UnsafeAnswer
from pipeline.models.hubs import civitai
from pipeline.models.hubs.asking import Answer
from pipeline.models.hubs.remote_models import RemoteModel
from pipeline.models.hubs.results import NeedsLogin, Offline, Problem, Refused
from pipeline.models.hubs.transport import Transport


def civitai_refusal(answer: Answer, model: RemoteModel, transport: Transport) -> Problem:
    """What CivitAI's answer in place of a file means; that a login is asked for is remembered."""
    problem = civitai.refusal(answer, model.reference)
    if isinstance(problem, NeedsLogin):
        civitai.remember_login(transport, model.version_id or 0)
    return problem


def would_be_refused(model: RemoteModel, transport: Transport) -> Problem | None:
    """Whether CivitAI's author of a model asks for a login; None where the download would be given.

    That takes a request for the end of the file, of which nothing is read. Hugging Face says such things before.
    """
    from pipeline.models.hubs.downloading import MOST_BYTES, beginning

    if model.hub != "civitai":
        return None
    file = model.files[0]
    end = file.bytes - 1 if file.bytes and file.exact else None
    try:
        # Not as a request for a file, of which one has to wait until another process has fetched its own.
        with transport.get(file.url, kind="civitai.api", range_start=end, max_bytes=MOST_BYTES) as response:
            if response.status in (200, 206, 416):
                return None
            answer = Answer(response.status, response.headers, beginning(response))
    except Unreachable as error:
        return Offline(model.reference, str(error))
    except UnsafeAnswer as error:
        return Refused(model.reference, str(error))
    return civitai_refusal(answer, model, transport)
