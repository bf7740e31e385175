"""Recovery: what becomes of a dead worker's journal, whatever state it is in."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifest_rows import attempt_of, content_of, done_of, job_id, part_rows, put_image, write_part

from jobs.manifest import events
from jobs.manifest.journal import Journal
from jobs.manifest.layout import Layout, new_stem, next_stem
from jobs.manifest.recovery import ABANDONED_AFTER_S, Recovery, recover
from jobs.manifest.schema import FAILED


def dead_journal(output_dir: Path, *lines: bytes, stem: str | None = None) -> Path:
    layout = Layout(output_dir)
    layout.create()
    path = layout.journal(stem or new_stem())
    path.write_bytes(b"".join(lines))
    return path


def done_line(row: object) -> bytes:
    return events.done_line(row["image_id"], row["job_id"])  # type: ignore[index]


def test_nothing_to_recover(tmp_path: Path) -> None:
    assert recover(tmp_path) == Recovery()
    assert list(tmp_path.iterdir()) == [], "looking must not create a manifest"


def test_a_live_journal_is_left_alone(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.start([attempt_of(1)])
        assert recover(tmp_path) == Recovery()
        journal.release([job_id(1)])


def test_an_image_that_got_its_name_is_adopted(tmp_path: Path) -> None:
    row = done_of(1)
    put_image(tmp_path, row)
    dead_journal(tmp_path, events.row_line("started", attempt_of(1)), events.row_line("saving", row))
    assert recover(tmp_path) == Recovery(journals=1, adopted=1)
    assert [(found["image_id"], found["status"]) for found in part_rows(tmp_path)] == [(row["image_id"], "done")]


def test_half_written_files_of_the_dead_are_removed(tmp_path: Path) -> None:
    row = done_of(1)
    folder = (tmp_path / str(row["path"])).parent
    folder.mkdir(parents=True)
    name = Path(str(row["path"])).name
    mine, other = folder / f".{name}.1234.tmp", folder / ".another.png.1234.tmp"
    mine.write_bytes(b"half")
    other.write_bytes(b"of a live run")
    dead_journal(tmp_path, events.row_line("started", attempt_of(1)), events.row_line("saving", row))
    recover(tmp_path)
    assert not mine.exists()
    assert other.exists()


def test_another_file_under_the_announced_name_is_not_ours(tmp_path: Path) -> None:
    row = done_of(1)
    path = put_image(tmp_path, row)
    path.write_bytes(content_of(2))
    dead_journal(tmp_path, events.row_line("started", attempt_of(1)), events.row_line("saving", row))
    assert recover(tmp_path).lost == (job_id(1),)
    assert path.read_bytes() == content_of(2)


@pytest.mark.parametrize(
    ("attempt", "status"), [(1, "interrupted"), (2, "interrupted"), (3, "quarantined"), (4, "quarantined")]
)
def test_a_job_that_died_counts_an_attempt_and_the_third_is_the_last(attempt: int, status: str, tmp_path: Path) -> None:
    dead_journal(tmp_path, events.row_line("started", attempt_of(1, attempt=attempt)))
    assert recover(tmp_path).lost == (job_id(1),)
    (row,) = part_rows(tmp_path)
    assert (row["status"], row["attempt"], row["error_kind"]) == (status, attempt, "process_died")
    assert "process died" in row["error_message"]


def test_finished_failed_and_released_jobs_are_not_counted_again(tmp_path: Path) -> None:
    row = done_of(1)
    put_image(tmp_path, row)
    dead_journal(
        tmp_path,
        *(events.row_line("started", attempt_of(n)) for n in (1, 2, 3)),
        events.row_line("saving", row),
        done_line(row),
        events.row_line("failed", attempt_of(2, status=FAILED)),
        events.released_line([job_id(3)]),
    )
    assert recover(tmp_path) == Recovery(journals=1)
    assert [found["status"] for found in part_rows(tmp_path)] == ["done", "failed"]


def test_a_torn_line_does_not_exist(tmp_path: Path) -> None:
    first, second = done_of(1), done_of(2)
    torn = events.row_line("saving", second) + done_line(second)
    dead_journal(tmp_path, events.row_line("saving", first), done_line(first), torn[:-1])
    assert recover(tmp_path) == Recovery(journals=1)
    assert [row["image_id"] for row in part_rows(tmp_path)] == [first["image_id"]]


def test_damaged_lines_cost_themselves_only_and_are_kept_for_a_look(tmp_path: Path) -> None:
    row = done_of(1)
    damage = [b"\x00\xff\n", b"[1, 2]\n", b"{}\n", b'{"event": "danced"}\n', b'{"event": "failed", "row": 3}\n']
    path = dead_journal(tmp_path, *damage, events.row_line("saving", row), done_line(row))
    content = path.read_bytes()
    assert events.replay(path).damaged_lines == 5
    assert recover(tmp_path) == Recovery(journals=1)
    assert len(part_rows(tmp_path)) == 1
    assert path.with_suffix(".damaged").read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b'{"event": "sta'])
def test_a_journal_without_a_whole_line_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    path = dead_journal(tmp_path, content)
    recover(tmp_path)
    assert not path.exists()
    assert part_rows(tmp_path) == []


def test_foreign_files_stay_where_they_are(tmp_path: Path) -> None:
    Layout(tmp_path).create()
    foreign = [Layout(tmp_path).journals / name for name in ("notes.jsonl", "readme.txt", ".hidden")]
    for path in foreign:
        path.write_text("keep me")
    assert recover(tmp_path) == Recovery()
    assert [path.read_text() for path in foreign] == ["keep me"] * 3


def test_a_journal_whose_part_exists_is_only_removed(tmp_path: Path) -> None:
    row = done_of(1)
    path = dead_journal(tmp_path, events.row_line("saving", row), done_line(row))
    write_part(tmp_path, path.stem, [row])
    recover(tmp_path)
    assert not path.exists()
    assert len(part_rows(tmp_path)) == 1


def test_jobs_that_moved_to_the_next_journal_are_not_counted_twice(tmp_path: Path) -> None:
    stem = new_stem()
    row = done_of(2)
    put_image(tmp_path, row)
    in_flight = events.row_line("started", attempt_of(1)), events.row_line("saving", row)
    dead_journal(tmp_path, *in_flight, events.row_line("failed", attempt_of(3, status=FAILED)), stem=stem)
    dead_journal(tmp_path, *in_flight, stem=next_stem(stem))
    assert recover(tmp_path) == Recovery(journals=2, adopted=1, lost=(job_id(1),))
    assert len(part_rows(tmp_path)) == 3


def test_abandoned_temporary_files_go_and_fresh_ones_stay(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    old, fresh = layout.parts / ".a.parquet.1.tmp", layout.journals / ".b.jsonl.2.tmp"
    for path in (old, fresh):
        path.write_bytes(b"PAR1")
    long_ago = time.time() - ABANDONED_AFTER_S - 10
    os.utime(old, (long_ago, long_ago))
    recover(tmp_path)
    assert (old.exists(), fresh.exists()) == (False, True)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(min_value=0, max_value=100_000))
def test_wherever_a_journal_is_cut_every_complete_commit_counts(cut: int, tmp_path_factory: object) -> None:
    """Power fails at any byte: exactly the images whose `done` line is whole are rows, however often we recover."""
    output_dir = tmp_path_factory.mktemp("cut")  # type: ignore[attr-defined]
    rows = [done_of(n) for n in range(4)]
    ends: list[int] = []
    content = b""
    for row in rows:
        content += events.row_line("started", attempt_of(row["seed"])) + events.row_line("saving", row) + done_line(row)
        ends.append(len(content))
    cut %= len(content) + 1
    dead_journal(output_dir, content[:cut])
    recover(output_dir)
    assert recover(output_dir) == Recovery()
    done = {row["image_id"] for row in part_rows(output_dir) if row["status"] == "done"}
    assert done == {row["image_id"] for row, end in zip(rows, ends, strict=True) if end <= cut}
    assert len({row["job_id"] for row in part_rows(output_dir)}) == len(part_rows(output_dir))
