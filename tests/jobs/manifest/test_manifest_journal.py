"""The journal: which of its rows count, shared by threads, sealed into parts."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from manifest_rows import attempt_of, content_of, done_of, job_id, make, part_rows, put_image

from jobs.manifest import journal as journal_module
from jobs.manifest.journal import Journal
from jobs.manifest.layout import Layout
from jobs.manifest.schema import FAILED, arrow_schema
from pipeline.errors import RunStopped


def journals(output_dir: Path) -> list[Path]:
    return sorted(Layout(output_dir).journals.glob("*.jsonl"))


def test_closing_turns_the_journal_into_a_part_of_the_same_name(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        (live,) = journals(tmp_path)
        rows = [make(journal, tmp_path, n) for n in range(3)]
    (part,) = Layout(tmp_path).parts.iterdir()
    assert part.stem == live.stem
    assert journals(tmp_path) == []
    table = pq.ParquetFile(part).read()
    assert table.schema.equals(arrow_schema())
    assert table.schema.metadata == arrow_schema().metadata
    assert table.to_pylist() == rows


def test_a_journal_without_rows_leaves_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.start([attempt_of(1)])
        journal.release([job_id(1)])
    assert journals(tmp_path) == []
    assert list(Layout(tmp_path).parts.iterdir()) == []


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    make(journal, tmp_path, 1)
    journal.close()
    journal.close()
    assert len(part_rows(tmp_path)) == 1
    with pytest.raises(RuntimeError, match="closed"):
        journal.start([attempt_of(2)])


def test_failures_are_rows_and_released_jobs_are_not(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.start([attempt_of(1), attempt_of(2), attempt_of(3)])
        journal.fail([attempt_of(1, status=FAILED, error_kind="bad_pixels", error_message="all black")])
        journal.release([job_id(2), job_id(3)])
    (row,) = part_rows(tmp_path)
    assert (row["job_id"], row["status"], row["error_kind"]) == (job_id(1), FAILED, "bad_pixels")


def test_an_image_that_has_its_name_counts_though_its_job_was_released(tmp_path: Path) -> None:
    """The disk was full when its `done` line was to be written, and the worker gives back what it was at."""
    with Journal(tmp_path) as journal:
        named, nameless = done_of(1), done_of(2)
        journal.start([attempt_of(1), attempt_of(2)])
        journal.intend(named)
        put_image(tmp_path, named)
        journal.intend(nameless)
        journal.release([job_id(1), job_id(2)])
    (row,) = part_rows(tmp_path)
    assert (row["job_id"], row["status"], row["attempt"]) == (job_id(1), "done", 1)


def test_an_error_message_that_is_no_utf8_does_not_block_the_seal(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.fail([attempt_of(1, status=FAILED, error_message="caf\udce9", tags=["\ud800"])])
    (row,) = part_rows(tmp_path)
    assert row["error_message"] == "caf?"


def test_the_last_announced_path_counts(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        row = done_of(1)
        journal.intend(row)
        row["path"] = "study/0001_2.png"
        journal.intend(row)
        put_image(tmp_path, row)
        journal.commit(str(row["image_id"]))
    assert [found["path"] for found in part_rows(tmp_path)] == ["study/0001_2.png"]


def test_commit_needs_an_announcement(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal, pytest.raises(KeyError):
        journal.commit("never announced")


def test_sealing_by_number_carries_over_what_is_in_flight(tmp_path: Path) -> None:
    journal = Journal(tmp_path, seal_rows=2)
    in_flight = done_of(7)
    journal.start([attempt_of(7), attempt_of(8)])
    journal.intend(in_flight)
    make(journal, tmp_path, 1)
    journal.seal_if_due()
    assert part_rows(tmp_path) == []
    make(journal, tmp_path, 2)
    journal.seal_if_due()
    assert len(part_rows(tmp_path)) == 2
    assert [path.stem[-5:] for path in journals(tmp_path)] == ["-0002"]

    put_image(tmp_path, in_flight)
    journal.commit(str(in_flight["image_id"]))
    journal.close()
    found = {row["job_id"]: row["status"] for row in part_rows(tmp_path)}
    assert found == {job_id(1): "done", job_id(2): "done", job_id(7): "done", job_id(8): "interrupted"}
    assert len(part_rows(tmp_path)) == 4


def test_sealing_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now)
    with Journal(tmp_path, seal_after_s=600) as journal:
        now += 10_000
        journal.seal_if_due()
        assert len(journals(tmp_path)) == 1, "an empty journal is not sealed however old it is"
        make(journal, tmp_path, 1)
        now += 599
        journal.seal_if_due()
        assert part_rows(tmp_path) == []
        now += 1
        journal.seal_if_due()
        assert len(part_rows(tmp_path)) == 1


def test_threads_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path, seal_rows=20) as journal:

        def work(first: int) -> None:
            for n in range(first, first + 15):
                make(journal, tmp_path, n)
                journal.seal_if_due()

        threads = [threading.Thread(target=work, args=(100 * index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(list(Layout(tmp_path).parts.iterdir())) > 1
    expected = [job_id(100 * index + n) for index in range(4) for n in range(15)]
    assert sorted(row["job_id"] for row in part_rows(tmp_path)) == sorted(expected)


def test_an_output_folder_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    place = tmp_path / "outputs"
    place.write_bytes(content_of(1))
    with pytest.raises(RunStopped, match=r"cannot write .*outputs/manifest.*output\.dir"):
        Journal(place)
