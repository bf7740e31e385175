"""Ratings: appended by any number of writers, the last word counts, and every reader sees them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifest_rows import attempt_of, done_of, job_id, make, put_image, query, write_part

from jobs.archive.reindex import reindex
from jobs.archive.search import search
from jobs.archive.verify import verify
from jobs.manifest import ratings
from jobs.manifest import snapshot as snapshot_module
from jobs.manifest.compaction import compact
from jobs.manifest.job_states import job_key, read_states
from jobs.manifest.journal import Journal
from jobs.manifest.layout import Layout
from jobs.manifest.parts import VERSION_KEY
from jobs.manifest.preferences import read_rated
from jobs.manifest.ratings import RatingWriter, seal_ratings
from jobs.manifest.ratings_events import MAX_NOTE, RatingEvent, event_line
from jobs.manifest.ratings_view import read_feedback, read_said
from jobs.manifest.recovery import recover
from pipeline.errors import ConfigError, DiskFull

KEPT = Path(__file__).parents[2] / "data" / "kept" / "outputs"

NOTHING: dict[str, Any] = {
    "rating": None,
    "picked": False,
    "rejected": False,
    "removed": False,
    "user_tags": [],
    "note": None,
}


@pytest.fixture
def ids(tmp_path: Path) -> list[str]:
    """The ids of three images in a sealed part."""
    rows = [done_of(n) for n in range(3)]
    for row in rows:
        put_image(tmp_path, row)
    write_part(tmp_path, "a", rows)
    return [str(row["image_id"]) for row in rows]


def say(output_dir: Path, *events: RatingEvent) -> list[RatingEvent]:
    with RatingWriter(output_dir) as writer:
        return writer.append(events)


def feedback(output_dir: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The columns of the view, image by image."""
    columns = ", ".join(NOTHING)
    rows = query(output_dir, lambda found: found.execute(f"SELECT image_id, {columns} FROM images").fetchall())
    by_id = {row[0]: dict(zip(NOTHING, row[1:], strict=True)) for row in rows}
    assert len(by_id) == len(rows), "joining made rows"
    told = read_feedback(output_dir)
    assert {key: {**NOTHING, **told.get(key, {})} for key in by_id} == by_id, "two readers disagree"
    return [by_id[image_id] for image_id in ids]


def journals(output_dir: Path) -> list[Path]:
    return sorted(Layout(output_dir).ratings.journals.iterdir())


def test_without_ratings_the_columns_are_there_and_empty(tmp_path: Path, ids: list[str]) -> None:
    assert feedback(tmp_path, ids) == [NOTHING] * 3
    assert not Layout(tmp_path).ratings.root.exists(), "looking made a folder"


def test_the_last_word_on_an_image_counts(tmp_path: Path, ids: list[str]) -> None:
    one, two, three = ids
    say(tmp_path, RatingEvent(one, "rating", "2"), RatingEvent(one, "rating", "5"), RatingEvent(two, "rating", "3"))
    say(tmp_path, RatingEvent(two, "rating", ""), RatingEvent(three, "note", "too dark\nby far"))
    say(tmp_path, *(RatingEvent(three, kind, tag) for kind, tag in (("tag", "b"), ("tag", "a"), ("untag", "b"))))
    assert feedback(tmp_path, ids) == [
        {**NOTHING, "rating": 5},
        NOTHING,
        {**NOTHING, "user_tags": ["a"], "note": "too dark\nby far"},
    ]
    assert [row["path"] for row in search(tmp_path, where="rating >= 4")] == ["study/0000.png"]
    assert [row["rating"] for row in search(tmp_path, columns=("rating",), sort="-rating")] == [5, None, None]


def test_one_of_a_group_is_picked_and_rejecting_unpicks(tmp_path: Path, ids: list[str]) -> None:
    one, two, three = ids
    say(tmp_path, RatingEvent(one, "pick", "yes", [two, three]), RatingEvent(two, "reject", "yes"))
    say(tmp_path, RatingEvent(two, "pick", "yes", [one, three]))
    picked, rejected = ([row[name] for row in feedback(tmp_path, ids)] for name in ("picked", "rejected"))
    assert (picked, rejected) == ([False, True, False], [False] * 3)
    say(tmp_path, RatingEvent(two, "reject", "yes"), RatingEvent(three, "pick", "yes", []))
    picked, rejected = ([row[name] for row in feedback(tmp_path, ids)] for name in ("picked", "rejected"))
    assert (picked, rejected) == ([False, False, True], [False, True, False])


def test_what_is_undone_was_never_said(tmp_path: Path, ids: list[str]) -> None:
    one, two, _ = ids
    say(tmp_path, RatingEvent(one, "rating", "2"), RatingEvent(one, "pick", "yes", [two]))
    before = feedback(tmp_path, ids)
    said = say(tmp_path, RatingEvent(one, "rating", "5"), RatingEvent(two, "pick", "yes", [one]))
    assert feedback(tmp_path, ids) != before
    say(tmp_path, *(RatingEvent(event.image_id, "undo", event.uuid) for event in said))
    assert feedback(tmp_path, ids) == before


def test_moments_ascend_whatever_the_clock_does(
    tmp_path: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(tmp_path, RatingEvent(ids[0], "rating", "1"))

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2020, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(ratings, "datetime", Earlier)
    say(tmp_path, RatingEvent(ids[0], "rating", "2"))
    say(tmp_path, RatingEvent(ids[0], "rating", "3"))
    assert feedback(tmp_path, ids)[0]["rating"] == 3


def test_writers_after_each_other_share_a_journal_and_writers_at_once_do_not(tmp_path: Path, ids: list[str]) -> None:
    for stars in "12345":
        say(tmp_path, RatingEvent(ids[0], "rating", stars))
    assert len(journals(tmp_path)) == 1
    with RatingWriter(tmp_path) as first, RatingWriter(tmp_path) as second:
        second.append([RatingEvent(ids[1], "rating", "1")])
        first.append([RatingEvent(ids[2], "rating", "2")])
    assert len(journals(tmp_path)) == 2
    assert [row["rating"] for row in feedback(tmp_path, ids)] == [5, 1, 2]


def test_a_torn_line_is_cut_and_a_damaged_one_told(
    tmp_path: Path, ids: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "_warned", set())
    say(tmp_path, RatingEvent(ids[0], "rating", "1"))
    (journal,) = journals(tmp_path)
    whole = event_line(RatingEvent(ids[1], "rating", "2"))
    for line in (b"\xff\n", b'{"kind": "rating"}\n', whole, whole.replace(b"2", b"x" * 5000), whole[:20]):
        with journal.open("ab") as file:
            file.write(line)
    assert [row["rating"] for row in feedback(tmp_path, ids)] == [1, 2, None]
    assert "damaged lines were skipped" in caplog.text
    say(tmp_path, RatingEvent(ids[2], "rating", "3"))
    assert [row["rating"] for row in feedback(tmp_path, ids)] == [1, 2, 3]
    content = journal.read_bytes()
    compact(tmp_path)
    assert [path.name for path in journals(tmp_path)] == [journal.with_suffix(".damaged").name]
    assert journals(tmp_path)[0].read_bytes() == content
    assert [row["rating"] for row in feedback(tmp_path, ids)] == [1, 2, 3]


def test_a_kind_of_a_later_version_survives_and_means_nothing(tmp_path: Path, ids: list[str]) -> None:
    say(tmp_path, RatingEvent(ids[0], "rating", "4"), RatingEvent(ids[0], "sharpness", "0.5", source="machine"))
    compact(tmp_path)
    assert feedback(tmp_path, ids)[0] == {**NOTHING, "rating": 4}
    assert ("sharpness", "0.5") in [(kind, value) for _, kind, value, _, _ in read_said(tmp_path)]


def test_compaction_seals_and_merges_and_nothing_changes(tmp_path: Path, ids: list[str]) -> None:
    for n, image_id in enumerate(ids):
        say(tmp_path, RatingEvent(image_id, "rating", str(n + 1)), RatingEvent(image_id, "tag", f"t{n}"))
        seal_ratings(Layout(tmp_path).ratings)
    before, said = feedback(tmp_path, ids), read_said(tmp_path)
    with RatingWriter(tmp_path) as alive:
        alive.append([RatingEvent(ids[0], "note", "kept open")])
        result = compact(tmp_path)
        assert (result.parts_before, result.parts_after, result.rows_moved) == (4, 2, 6)
        assert len(list(Layout(tmp_path).ratings.parts.iterdir())) == 1
        alive.append([RatingEvent(ids[0], "note", "")])
    assert feedback(tmp_path, ids) == before
    assert read_said(tmp_path)[: len(said)] == said
    assert compact(tmp_path).rows_moved == 8


def test_a_full_journal_is_sealed_by_the_next_writer(
    tmp_path: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ratings, "SEAL_EVENTS", 3)
    for stars in "12345":
        say(tmp_path, RatingEvent(ids[0], "rating", stars))
    assert len(journals(tmp_path)) == 1 and len(list(Layout(tmp_path).ratings.parts.iterdir())) == 1
    assert [value for _, _, value, _, _ in read_said(tmp_path)] == [*"12345"]


def test_a_damaged_part_costs_only_its_ratings_and_is_set_aside(tmp_path: Path, ids: list[str]) -> None:
    layout = Layout(tmp_path).ratings
    say(tmp_path, *(RatingEvent(ids[0], "note", f"{n}") for n in range(500)))
    seal_ratings(layout)
    (part,) = layout.parts.iterdir()
    content = bytearray(part.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    part.write_bytes(content)
    say(tmp_path, RatingEvent(ids[1], "rating", "4"))
    assert [row["rating"] for row in feedback(tmp_path, ids)] == [None, 4, None]
    assert len(list(search(tmp_path))) == 3
    assert any(str(part) in line and "sets it aside" in line for line in verify(tmp_path).unreadable_parts)
    assert any(str(part) in line for line in compact(tmp_path).damaged) or part.exists()
    assert any(str(part) in line for line in reindex(tmp_path).set_aside)
    assert part.with_suffix(".damaged").exists() and not part.exists()
    assert verify(tmp_path).unreadable_parts == () and feedback(tmp_path, ids)[1]["rating"] == 4


def test_a_full_disk_loses_nothing_that_was_acknowledged(
    tmp_path: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with RatingWriter(tmp_path) as writer:
        writer.append([RatingEvent(ids[0], "rating", "4")])
        real_write = os.write

        def full(fd: int, content: bytes) -> int:
            real_write(fd, bytes(content)[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(DiskFull):
                writer.append([RatingEvent(ids[1], "rating", "4")])
        writer.append([RatingEvent(ids[2], "rating", "2")])
    assert [row["rating"] for row in feedback(tmp_path, ids)] == [4, None, 2]


def test_what_strangers_write_is_bounded_and_costs_nothing_else(tmp_path: Path, ids: list[str]) -> None:
    one, two, three = ids
    say(
        tmp_path,
        RatingEvent(one, "rating", "4"),
        RatingEvent(one, "rating", "6"),
        RatingEvent(two, "rating", "4; DROP TABLE"),
        RatingEvent(two, "lost"),
        RatingEvent(three, "pick", "yes", [three, two, two]),
        RatingEvent(one, "undo", "nothing of that id"),
    )
    layout = Layout(tmp_path).ratings
    for name, table in {
        "foreign": pa.table({"a": [1]}),
        "lacking": pa.table({"uuid": ["a"]}, metadata={VERSION_KEY: b"1"}),
        "other_types": pa.table(
            {name: [[b"\xff"]] for name in RatingEvent.__annotations__}, metadata={VERSION_KEY: b"1"}
        ),
    }.items():
        pq.write_table(table, layout.parts / f"{name}.parquet")
    (layout.parts / "torn.parquet").write_bytes(b"PAR1")
    found = feedback(tmp_path, ids)
    assert [row["rating"] for row in found] == [None] * 3 and found[2]["picked"]
    (layout.log / "x.json").write_text('{"inputs": ["../../a.png"], "outputs": [], "temporaries": []}')
    assert feedback(tmp_path, ids) == found
    reindex(tmp_path)
    compact(tmp_path)
    assert feedback(tmp_path, ids) == found
    pictures = read_rated(tmp_path)
    assert sorted((one.verdict, one.stars) for one in pictures) == [(-1.0, None), (1.0, None)]


@pytest.mark.parametrize(
    "event",
    [
        RatingEvent("../etc", "rating", "4"),
        RatingEvent("a" * 8, "note", "x" * (MAX_NOTE + 1)),
        RatingEvent("a" * 8, "tag", "half a character \udcff"),
        RatingEvent("a" * 8, "Rating!", "4"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, event: RatingEvent) -> None:
    with RatingWriter(tmp_path) as writer, pytest.raises(ConfigError):
        writer.append([event])
    assert [path.read_bytes() for path in journals(tmp_path)] == [b""]


def test_a_removed_picture_is_neither_missing_nor_made_again(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        rows = [make(journal, tmp_path, n) for n in range(2)]
    rejected, missing = rows
    image_id = str(rejected["image_id"])
    say(tmp_path, RatingEvent(image_id, "reject", "yes"), RatingEvent(image_id, "removed", rejected["job_id"]))
    for row in rows:
        (tmp_path / str(row["path"])).unlink()
    result = verify(tmp_path)
    assert (result.removed, result.missing) == ((rejected["path"],), (missing["path"],))
    assert read_states(tmp_path).folders.keys() == {job_key(job_id(0))}
    reindex(tmp_path)
    assert read_states(tmp_path).folders.keys() == {job_key(job_id(0))}
    assert [row["removed"] for row in search(tmp_path, columns=("removed",))] == [True]
    shutil.rmtree(Layout(tmp_path).parts)
    assert read_states(tmp_path).folders.keys() == {job_key(job_id(0))}, "known without its row, too"
    say(tmp_path, RatingEvent(image_id, "reject", "no"))
    assert not read_states(tmp_path).folders, "taken back, it is made again"


def test_an_older_folder_is_rated_and_searched(tmp_path: Path) -> None:
    outputs = Path(shutil.copytree(KEPT, tmp_path / "outputs"))
    recover(outputs)
    before = {row["image_id"]: row for row in search(outputs, columns=("*",))}
    rated = next(image_id for image_id, row in before.items() if row["path"].startswith("unnamed/"))  # a private one
    say(outputs, RatingEvent(rated, "rating", "5"), RatingEvent(rated, "tag", "keep"))
    reindex(outputs)
    compact(outputs)
    (found,) = search(outputs, where="rating = 5 AND list_contains(user_tags, 'keep')", columns=("*",))
    assert found == {**before[rated], "rating": 5, "user_tags": ["keep"]}


def test_lines_of_a_journal_are_what_is_documented(tmp_path: Path, ids: list[str]) -> None:
    say(tmp_path, RatingEvent(ids[0], "note", "日\u2028没\n"))
    (line,) = journals(tmp_path)[0].read_bytes().splitlines()
    assert line.isascii() and set(json.loads(line)) == set(RatingEvent.__annotations__)


def test_failures_cannot_be_rated_by_accident(tmp_path: Path) -> None:
    write_part(tmp_path, "a", [attempt_of(1)])
    say(tmp_path, RatingEvent("", "reset"))
    assert list(search(tmp_path, where="status <> 'done'", columns=("rating", "picked"))) == [
        {"rating": None, "picked": False}
    ]
