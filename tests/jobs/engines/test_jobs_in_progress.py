"""Who would lose an attempt if the process died now: read from the journal as recovery reads it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.engines.jobs_in_progress import AtWork
from jobs.job import Assignment, Job
from jobs.manifest import events
from jobs.manifest.journal import Journal
from pipeline.errors import DiskFull
from pipeline.request import ImageRequest, MemorySettings, ModelSettings

MODEL = ModelSettings(name="m", source="m", sha256="0" * 64, architecture="StableDiffusionPipeline")


def assignment(name: str) -> Assignment:
    request = ImageRequest(name, "", 0, 1, 1.0, 32, 32, "DDIM", None, MODEL, MemorySettings())
    return Assignment(Job(name[0] * 64, request, 0, "batch", "prompts", 0, None, ()), 1)


A, B, C = (assignment(name) for name in "abc")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def at_work(journal: Journal) -> AtWork:
    return AtWork(journal, "run")


def blamed(journal: Journal) -> str:
    """The jobs that the journal holds for started, as letters."""
    return "".join(sorted(job_id[0] for job_id in events.replay(journal.path).started))


def test_only_those_at_work_would_be_blamed(journal: Journal, at_work: AtWork) -> None:
    seen = []
    for stage, jobs in (("encode", [A]), ("encode", [B]), ("denoise", [A, B]), ("denoise", [C]), ("decode", [A, B])):
        at_work.turn_to(stage, jobs)  # type: ignore[arg-type]
        seen.append(blamed(journal))
    at_work.turn_to(None, ())
    assert [*seen, blamed(journal)] == ["a", "b", "ab", "c", "ab", ""]


def test_a_thread_that_saves_is_at_work_too(journal: Journal, at_work: AtWork) -> None:
    at_work.turn_to("decode", [A, B])
    at_work.save(A)  # already, while the main thread has not turned to others yet
    at_work.turn_to("decode", [C])
    assert blamed(journal) == "ac"
    at_work.save(B)
    assert blamed(journal) == "abc" and at_work.announced == [one.job.id for one in (A, B, C)]
    at_work.settled(B.job.id)  # whoever says so has written it
    assert at_work.announced == [A.job.id, C.job.id]
    at_work.release()
    assert blamed(journal) == "b"


def test_what_is_being_saved_is_not_released_by_the_main_thread(journal: Journal, at_work: AtWork) -> None:
    """A release between `saving` and `done` would take the image's row away."""
    at_work.turn_to("decode", [A])
    at_work.save(A)
    at_work.turn_to(None, ())
    assert blamed(journal) == "a"


def test_the_same_turn_is_written_once(journal: Journal, at_work: AtWork) -> None:
    at_work.turn_to("denoise", [A])
    size = journal.path.stat().st_size
    at_work.turn_to("denoise", [A])
    at_work.turn_to("decode", [A])
    assert journal.path.stat().st_size == size and blamed(journal) == "a"


def test_what_may_have_been_written_is_given_back(
    journal: Journal, at_work: AtWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk can take the lines and then fail to flush them."""
    at_work.turn_to("denoise", [A])
    start = journal.start

    def failing(*arguments: Any, **options: Any) -> None:
        start(*arguments, **options)
        raise DiskFull("no space left")

    monkeypatch.setattr(journal, "start", failing)
    for fails in (lambda: at_work.turn_to("denoise", [B]), lambda: at_work.save(C)):
        with pytest.raises(DiskFull):
            fails()
    at_work.release()
    assert blamed(journal) == ""


def test_texts_are_written_without_secrets(journal: Journal, at_work: AtWork) -> None:
    key = "sk-" + "Ab3dE6gH9jK2mN5pQ8sT1vW4xY7zC0"
    at_work.turn_to("denoise", [assignment(key)])
    assert key not in journal.path.read_text() and "[key]" in journal.path.read_text()


def test_threads_may_save_while_the_main_thread_goes_on(journal: Journal, at_work: AtWork) -> None:
    jobs = [assignment(chr(ord("a") + number)) for number in range(20)]
    for one in jobs:
        at_work.turn_to("decode", [one])
        thread = threading.Thread(target=lambda one=one: (at_work.save(one), at_work.settled(one.job.id)))
        thread.start()
        thread.join()
    at_work.turn_to(None, ())
    assert at_work.announced == []
