"""Reading states: what a run resumes from, with every kind of file lying in the manifest's folders."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_rows import attempt_of, done_of, job_id, make, put_image, query, write_part

from jobs.manifest import snapshot as snapshot_module
from jobs.manifest.compaction import compact
from jobs.manifest.done_elsewhere import DoneElsewhere, part_names
from jobs.manifest.job_states import JobState, job_key, measured_seconds, read_states
from jobs.manifest.journal import Journal
from jobs.manifest.layout import Layout
from jobs.manifest.parts import part_version, table_from_rows
from jobs.manifest.schema import FAILED, INTERRUPTED, arrow_schema
from jobs.manifest.snapshot import reading_retried, take_snapshot
from pipeline.errors import ReadError


@pytest.fixture(autouse=True)
def forgotten_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "_warned", set())


def test_no_manifest_means_no_states(tmp_path: Path) -> None:
    states = read_states(tmp_path / "nowhere")
    assert (states.folders, states.others) == ({}, {})


def test_parts_and_live_journals_count(tmp_path: Path) -> None:
    with Journal(tmp_path, seal_rows=2) as journal:
        for n in range(3):
            make(journal, tmp_path, n)
            journal.seal_if_due()
        journal.start([attempt_of(5)])
        journal.intend(done_of(5))
        states = read_states(tmp_path)
        journal.release([job_id(5)])
    assert states.folders.keys() == {job_key(job_id(n)) for n in range(3)}
    assert states.others == {}, "what a live process is making has not ended yet"


def test_an_image_that_was_deleted_is_not_done(tmp_path: Path) -> None:
    rows = [done_of(n) for n in range(3)]
    for row in rows:
        put_image(tmp_path, row)
    write_part(tmp_path, "a", [attempt_of(1, status=FAILED), *rows[:1], {**rows[1], "attempt": 2}, rows[2]])
    (tmp_path / str(rows[1]["path"])).unlink()
    states = read_states(tmp_path)
    assert states.folders.keys() == {job_key(job_id(0)), job_key(job_id(2))}
    assert states.others == {}, "its latest attempt succeeded: it is made anew"


def test_a_folder_named_like_an_image_is_no_image(tmp_path: Path) -> None:
    row = done_of(1)
    (tmp_path / str(row["path"])).mkdir(parents=True)
    write_part(tmp_path, "a", [row])
    assert read_states(tmp_path).folders.keys() == set()


def test_the_latest_attempt_of_an_unfinished_job_counts(tmp_path: Path) -> None:
    write_part(tmp_path, "b", [attempt_of(1, attempt=2, status=FAILED, error_kind="leak")])
    write_part(tmp_path, "a", [attempt_of(1, attempt=3, status=INTERRUPTED, error_kind="process_died")])
    write_part(tmp_path, "c", [attempt_of(1, attempt=1, status=FAILED, error_kind="bad_pixels")])
    assert read_states(tmp_path).others == {job_key(job_id(1)): JobState(INTERRUPTED, 3, "process_died")}


def test_a_job_done_after_failures_is_done(tmp_path: Path) -> None:
    row = done_of(1, attempt=2)
    put_image(tmp_path, row)
    write_part(tmp_path, "a", [row, attempt_of(1, attempt=1, status=FAILED)])
    states = read_states(tmp_path)
    assert (len(states.folders), states.others) == (1, {})


def test_an_older_part_without_a_column_is_read(tmp_path: Path) -> None:
    put_image(tmp_path, done_of(1))
    path = write_part(tmp_path, "old", [done_of(1)])
    older = pq.read_table(path).drop_columns(["error_kind", "seconds"])
    pq.write_table(older, path)
    assert part_version(path) == 1
    assert read_states(tmp_path).folders.keys() == {job_key(job_id(1))}
    assert measured_seconds(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("zero", "not a complete Parquet file"),
        ("torn", "not a complete"),
        ("folder", "cannot be read"),
        ("foreign", "no part of a Darkroom"),
    ],
)
def test_a_bad_part_is_named_once_and_the_others_are_read(
    name: str, complaint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_image(tmp_path, done_of(1))
    good = write_part(tmp_path, "good", [done_of(1)])
    bad = good.with_name(f"{name}.parquet")
    if name == "folder":
        bad.mkdir()
    elif name == "foreign":
        pq.write_table(pa.table({"a": [1, 2]}), bad)
    else:
        bad.write_bytes(good.read_bytes()[:-20] if name == "torn" else b"")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert read_states(tmp_path).folders.keys() == {job_key(job_id(1))}
    (message,) = caplog.messages
    assert complaint in message
    assert str(bad) in message


def test_a_part_whose_pages_are_damaged_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_image(tmp_path, done_of(1))
    write_part(tmp_path, "good", [done_of(1)])
    bad = write_part(tmp_path, "bad", [done_of(2)])
    content = bytearray(bad.read_bytes())
    content[4 : len(content) // 4] = b"\xff" * (len(content) // 4 - 4)
    bad.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert read_states(tmp_path).folders.keys() == {job_key(job_id(1))}
    (message,) = {message for message in caplog.messages if "bad.parquet: damaged" in message}
    assert message.endswith(f"darkroom reindex --output-dir {tmp_path} rebuilds its rows")


@pytest.mark.parametrize("version", [1, 9, 10, 123])
def test_the_version_is_read_from_the_footer(version: int, tmp_path: Path) -> None:
    schema = arrow_schema().with_metadata({"darkroom.schema_version": str(version), "other": "x" * 300})
    path = tmp_path / "a.parquet"
    pq.write_table(table_from_rows([done_of(1)]).replace_schema_metadata(schema.metadata), path)
    assert part_version(path) == version


@pytest.mark.parametrize("text", ["darkroom.schema_version of a house", "darkroom.schema_version\x18\x019"])
def test_what_a_prompt_says_hides_no_part(text: str, tmp_path: Path) -> None:
    """A column's smallest and largest text stand in the footer, before the part's own metadata."""
    row = done_of(1, prompt=text, negative_prompt=text, tags=[text], name=text)
    put_image(tmp_path, row)
    part = write_part(tmp_path, "a", [row])
    assert text.encode() in part.read_bytes()[-20_000:]
    assert part_version(part) == 1
    assert read_states(tmp_path).folders.keys() == {job_key(job_id(1))}
    assert query(tmp_path, lambda images: images.sql("SELECT prompt FROM images").fetchall()) == [(text,)]


def test_measured_seconds_are_medians(tmp_path: Path) -> None:
    rows = [done_of(n, seconds=value) for n, value in enumerate([1.0, 2.0, 30.0])]
    write_part(tmp_path, "a", [*rows, done_of(7, steps=20, seconds=None), attempt_of(8, seconds=99.0)])
    write_part(tmp_path, "b", [done_of(9, steps=20, seconds=4.0)])
    assert measured_seconds(tmp_path) == {("a" * 64, 64, 64, 8): 2.0, ("a" * 64, 64, 64, 20): 4.0}


def test_a_vanished_file_means_reading_again(tmp_path: Path) -> None:
    write_part(tmp_path, "a", [done_of(1)])
    tries: list[Any] = []

    def read(snapshot: object) -> int:
        tries.append(snapshot)
        if len(tries) < 3:
            raise FileNotFoundError
        return len(tries)

    assert reading_retried(tmp_path, read) == 3


def test_a_manifest_that_never_holds_still_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_module, "_PATIENCE_S", 0.1)

    def read(snapshot: object) -> int:
        raise FileNotFoundError

    with pytest.raises(ReadError, match="try again"):
        reading_retried(tmp_path, read)


def test_a_journal_just_sealed_is_not_counted_beside_its_part(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        row = make(journal, tmp_path, 1)
        (path,) = Layout(tmp_path).journals.glob("*.jsonl")
        write_part(tmp_path, path.stem, [row])  # as between the part's rename and the journal's removal
        snapshot = take_snapshot(tmp_path)
    assert (len(snapshot.parts), snapshot.journals) == (1, ())


def test_finished_since_sees_each_commit_at_once(tmp_path: Path) -> None:
    finished = DoneElsewhere(tmp_path, part_names(tmp_path))
    finished.refresh()
    with Journal(tmp_path, seal_rows=2) as journal:
        for n in range(5):
            assert job_id(n) not in finished
            make(journal, tmp_path, n)
            journal.seal_if_due()
            finished.refresh()
            assert job_id(n) in finished
        journal.fail([attempt_of(9, status=FAILED)])
        finished.refresh()
        assert job_id(9) not in finished
    finished.refresh()
    assert all(job_id(n) in finished for n in range(5))


def test_finished_since_reads_the_journals_of_others_and_not_ones_own(tmp_path: Path) -> None:
    finished = DoneElsewhere(tmp_path, part_names(tmp_path))
    with Journal(tmp_path) as own, Journal(tmp_path) as other:
        make(own, tmp_path, 1)
        make(other, tmp_path, 2)
        finished.refresh(own=own.path)
        assert job_id(2) in finished and job_id(1) not in finished


def test_finished_since_sees_what_was_sealed_between_two_looks(tmp_path: Path) -> None:
    finished = DoneElsewhere(tmp_path, part_names(tmp_path))
    with Journal(tmp_path) as journal:
        make(journal, tmp_path, 1)
    (Layout(tmp_path).parts / "foreign.parquet").write_bytes(b"")
    finished.refresh()
    assert job_id(1) in finished


def test_finished_since_sees_what_is_compacted_while_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = DoneElsewhere(tmp_path, part_names(tmp_path))
    for n in (1, 2):
        with Journal(tmp_path) as journal:
            make(journal, tmp_path, n)
    read = DoneElsewhere._read

    def read_after_compacting(self: DoneElsewhere, path: Path) -> None:
        compact(tmp_path, target_rows=10)
        read(self, path)

    monkeypatch.setattr(DoneElsewhere, "_read", read_after_compacting)
    finished.refresh()
    assert job_id(1) in finished and job_id(2) in finished


def test_finished_since_leaves_out_what_the_plan_knew(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        make(journal, tmp_path, 1)
    finished = DoneElsewhere(tmp_path, part_names(tmp_path))
    with Journal(tmp_path) as journal:
        make(journal, tmp_path, 2)
    finished.refresh()
    assert job_id(1) not in finished, "it would not be made again with resume=false"
    assert job_id(2) in finished


def test_an_image_cut_to_nothing_is_not_there(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        make(journal, tmp_path, 1)
        make(journal, tmp_path, 2)
    assert len(read_states(tmp_path).folders) == 2
    next(tmp_path.rglob("*.png")).write_bytes(b"")
    assert len(read_states(tmp_path).folders) == 1


def test_an_image_deleted_while_its_folder_is_listed_takes_no_other_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path) as journal:
        make(journal, tmp_path, 1)
        make(journal, tmp_path, 2)
    scandir = os.scandir

    def one_is_deleted(folder: Path) -> Any:
        images = [one for one in Path(folder).iterdir() if one.suffix == ".png"]
        entries = scandir(folder)
        if len(images) < 2:
            return entries
        listed = list(entries)
        images[0].unlink()
        return contextlib.nullcontext(listed)

    monkeypatch.setattr(os, "scandir", one_is_deleted)
    assert len(read_states(tmp_path).folders) == 1
