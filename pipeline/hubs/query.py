"""One request to a hub and its answer: retried if that may help, cached, and answered from the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import BrokenOff, Unreachable, UnsafeAnswer
from pipeline.hubs.answer_cache import keep, kept
from pipeline.hubs.limits import BUCKETS, RequestKind
from pipeline.hubs.remote_models import LABELS
from pipeline.hubs.results import PASSING, Ok, Outcome, Problem, Value
from pipeline.hubs.retries import Patience, retry_after_s
from pipeline.hubs.transport import ANSWERS, Response, Transport
from pipeline.registry.card_fields import parse_json

FRESH_S = 3_600.0
"""So long an answer is taken for what the hub would say now; CivitAI's own caches keep theirs for minutes."""

ABSENT_S = 600.0
"""So long it is taken for granted that there is no such thing."""

MOST_BYTES = 32 * 2**20
"""The longest answers, CivitAI's searches, have some megabytes."""

_PATIENCE = Patience(attempts=4, crowded_s=2.0, longest_s=10.0)
"""For questions that somebody waits for: overloaded searches answer at the second or third try."""

_BUSY = (429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: the status, the headers by their names in small letters, and the whole body.

    `is_led_on`: the hub itself has led elsewhere, mostly to the storage of its files, and this is said there.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_led_on: bool = False

    def json(self) -> Any:
        """The body's JSON value; None for what is none."""
        return parse_json(self.body)


def ask(
    transport: Transport,
    kind: RequestKind,
    url: str,
    what: str,
    *,
    accept: str = ANSWERS,
    range_start: int | None = None,
    most_bytes: int = MOST_BYTES,
    read: Callable[[Response], bytes] = Response.read,
) -> Answer | Problem:
    """The answer to a GET, whatever its status, or why there is none. `what` names the request in messages.

    A hub that is overloaded is asked again, after as long as it says, and so is one whose answer broke off; one that
    cannot be reached is not. `read` takes of an answer what is wanted of it.
    """
    failures = 0
    label = LABELS[BUCKETS[kind].hub]
    while True:
        failures += 1
        answer: Answer | Problem
        crowded, asked_s = False, None
        try:
            with transport.get(
                url, kind=kind, accept=accept, range_start=range_start, max_bytes=most_bytes
            ) as response:
                answer = Answer(response.status, response.headers, read(response), response.url != url)
        except BrokenOff as error:
            answer, why = Problem("offline", what, str(error)), str(error)
        except Unreachable as error:
            return Problem("offline", what, str(error))
        except UnsafeAnswer as error:
            return Problem("refused", what, str(error))
        else:
            if not (answer.status in _BUSY or is_refused_by_storage(answer)) or _is_final(answer):
                return answer
            crowded, asked_s = answer.status == 429, retry_after_s(answer.headers)
            why = f"{label} {'asks for fewer requests' if crowded else f'is out of order (status {answer.status})'}"
        if not _PATIENCE.wait(failures, crowded=crowded, asked_s=asked_s, why=why, say=transport.say):
            return answer


def is_refused_by_storage(answer: Answer) -> bool:
    """Whether a storage server, to which the hub redirects with a temporary link, refused the request.

    Hubs say in an answer's headers or in JSON what they refuse, whatever it is that was asked for; storage does not.
    """
    says = "x-error-code" in answer.headers or isinstance(answer.json(), dict)
    return answer.is_led_on and answer.status in (401, 403) and not says


def storage_problem(answer: Answer, what: str, hub: str) -> Problem:
    """The problem for that case: model and caller are fine, and the next link may work."""
    why = f"the storage that {hub} leads to refuses its own link ({answer.status}); try again later"
    return Problem("offline", what, why)


def answered(
    address: str, what: str, form: type[Value], fetch: Callable[[], Outcome[Value]], fresh_s: float | None
) -> Outcome[Value]:
    """The cached answer for an address if younger than `fresh_s` seconds (None: any age), else the result of `fetch`.

    A hub that cannot be asked now is answered for by what is kept, as stale. It is kept as JSON of this `form`.
    """
    from pydantic import TypeAdapter, ValidationError  # of no use to downloads

    as_form = TypeAdapter(form)
    before = kept(address)
    old: Ok[Value] | None = None
    if before and before.value is not None:
        with suppress(ValidationError):  # nothing of ours
            old = Ok(as_form.validate_python(before.value), before.at)
    if before and old and (fresh_s is None or before.age_s < fresh_s):
        return old
    if before and before.value is None and before.age_s < ABSENT_S and fresh_s != 0:
        return Problem("not_found", what)
    said = fetch()
    if isinstance(said, Ok):
        keep(address, as_form.dump_python(said.value, mode="json"), said.at)
    elif said.kind == "not_found" and said.lasting and not old:
        keep(address, None)
    elif said.kind in PASSING and old:
        return replace(old, stale=True)
    return said


def _is_final(answer: Answer) -> bool:
    """CivitAI answers questions that it never takes with the status that elsewhere asks for patience."""
    return answer.status == 429 and b"cursor" in answer.body.lower()
