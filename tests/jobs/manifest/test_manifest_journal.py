"""The journal: durable in the right order, shared by threads, sealed into parts, unharmed by a full disk."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from manifest_rows import attempt_of, content_of, done_of, job_id, make, part_rows, put_image

from jobs.manifest import journal as journal_module
from jobs.manifest.journal import Journal
from jobs.manifest.layout import Layout
from jobs.manifest.reading import job_key, read_states
from jobs.manifest.recovery import recover
from jobs.manifest.schema import FAILED, arrow_schema
from pipeline.errors import DiskFull, RunStopped


def journals(output_dir: Path) -> list[Path]:
    return sorted(Layout(output_dir).journals.glob("*.jsonl"))


def temporary_files(output_dir: Path) -> list[Path]:
    return list((output_dir / "manifest").rglob(".*.tmp"))


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
        journal.fail(attempt_of(1, status=FAILED, error_kind="bad_pixels", error_message="all black"))
        journal.release([job_id(2), job_id(3)])
    (row,) = part_rows(tmp_path)
    assert (row["job_id"], row["status"], row["error_kind"]) == (job_id(1), FAILED, "bad_pixels")


def test_an_error_message_that_is_no_utf8_does_not_block_the_seal(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.fail(attempt_of(1, status=FAILED, error_message="caf\udce9", tags=["\ud800"]))
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


class Recorder:
    """Notes what the program asks of the disk, in order: `write`, `fsync`, `rename`, `unlink`, each with a name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        originals: dict[str, Any] = {name: getattr(os, name) for name in ("write", "fsync", "rename", "unlink")}

        def named(target: Any) -> str:
            path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)
            return path.suffix or path.name

        def wrap(name: str) -> None:
            def call(target: Any, *rest: Any, **keywords: Any) -> Any:
                final = rest[0] if name == "rename" else target
                self.calls.append((name, named(final)))
                return originals[name](target, *rest, **keywords)

            monkeypatch.setattr(os, name, call)

        for name in originals:
            wrap(name)

    def take(self) -> list[tuple[str, str]]:
        calls, self.calls = self.calls, []
        return calls


def test_each_line_is_flushed_before_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    disk = Recorder(monkeypatch)
    row = done_of(1)
    one_line = [("write", ".jsonl"), ("fsync", ".jsonl")]
    journal.start([attempt_of(n) for n in range(5)])
    assert disk.take() == one_line
    journal.intend(row)
    assert disk.take() == one_line
    journal.commit(str(row["image_id"]))
    assert disk.take() == one_line
    journal.fail(attempt_of(2, status=FAILED))
    assert disk.take() == one_line
    monkeypatch.undo()
    journal.close()


def test_a_part_is_flushed_before_its_name_and_its_name_before_the_journal_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    make(journal, tmp_path, 1)
    disk = Recorder(monkeypatch)
    journal.close()
    # pyarrow writes the temporary file itself; everything that orders it is here.
    assert disk.take() == [
        ("fsync", ".tmp"),
        ("rename", ".parquet"),
        ("fsync", "parts"),
        ("unlink", ".jsonl"),
        ("fsync", "journal"),
    ]


def test_a_seal_under_way_writes_everything_before_it_renames_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path, seal_rows=1) as journal:
        journal.start([attempt_of(9)])
        make(journal, tmp_path, 1)
        disk = Recorder(monkeypatch)
        journal.seal_if_due()
        calls = [call for call in disk.take() if call[0] != "write"]
        monkeypatch.undo()
        assert calls == [
            ("fsync", ".tmp"),  # the part
            ("fsync", ".tmp"),  # the next journal, with the job in flight
            ("rename", ".jsonl"),
            ("fsync", "journal"),
            ("rename", ".parquet"),
            ("fsync", "parts"),
            ("unlink", ".jsonl"),
            ("fsync", "journal"),
            ("fsync", "parts"),
        ]
        journal.release([job_id(9)])


@pytest.fixture(params=["write", "half a write", "fsync"])
def full_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A disk that is full from the call of `fill()` to that of `monkeypatch.undo()`."""
    write = os.write

    def refuse(fd: int, content: Any = b"") -> int:
        if request.param == "half a write" and len(content) > 1:
            return write(fd, bytes(content[: len(content) // 2]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill() -> None:
        monkeypatch.setattr(os, "fsync" if request.param == "fsync" else "write", refuse)

    yield fill


@pytest.mark.parametrize("step", ["start", "intend", "commit", "fail"])
def test_a_full_disk_stops_the_run_and_loses_nothing(
    step: str, full_disk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    before = make(journal, tmp_path, 1)
    row = done_of(2)
    calls = {
        "start": lambda: journal.start([attempt_of(2)]),
        "intend": lambda: journal.intend(row),
        "commit": lambda: journal.commit(str(row["image_id"])),
        "fail": lambda: journal.fail(attempt_of(3, status=FAILED)),
    }
    for name, call in calls.items():
        if name == step:
            break
        call()
        if name == "intend":
            put_image(tmp_path, row)
    full_disk()
    with pytest.raises(DiskFull, match="no space left"):
        call()
    monkeypatch.undo()
    assert journals(tmp_path)[0].read_bytes().endswith(b"\n"), "half a line was left behind"
    journal.close()
    recover(tmp_path)
    done = [found for found in part_rows(tmp_path) if found["status"] == "done"]
    expected = {before["image_id"]} | ({row["image_id"]} if step in ("commit", "fail") else set())
    assert {found["image_id"] for found in done} == expected
    assert len(done) == len(expected)


def test_after_a_failed_flush_the_journal_takes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)

    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskFull):
        journal.start([attempt_of(1)])
    monkeypatch.undo()
    with pytest.raises(RunStopped, match="could not be flushed"):
        journal.start([attempt_of(2)])
    journal.close()


@pytest.mark.parametrize("when", ["seal_if_due", "close"])
def test_a_full_disk_at_the_seal_leaves_the_journal(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, seal_rows=1)
    make(journal, tmp_path, 1)

    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskFull):
        getattr(journal, when)()
    monkeypatch.undo()
    assert len(journals(tmp_path)) == 1
    assert temporary_files(tmp_path) == []
    assert part_rows(tmp_path) == []
    if when == "seal_if_due":
        make(journal, tmp_path, 2)
        journal.close()
    recover(tmp_path)
    assert len(part_rows(tmp_path)) == (2 if when == "seal_if_due" else 1)
    assert read_states(tmp_path).done >= {job_key(job_id(1))}


def test_a_seal_that_could_not_be_published_is_finished_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: the next journal has its name, the part has not."""
    journal = Journal(tmp_path, seal_rows=1)
    journal.start([attempt_of(9)])
    make(journal, tmp_path, 1)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if Path(target).suffix == ".parquet":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DiskFull):
        journal.seal_if_due()
    assert len(journals(tmp_path)) == 2
    monkeypatch.undo()
    assert read_states(tmp_path).done == {job_key(job_id(1))}
    journal.close()
    assert sorted((row["job_id"], row["status"]) for row in part_rows(tmp_path)) == sorted(
        [(job_id(1), "done"), (job_id(9), "interrupted")]
    )
    assert journals(tmp_path) == temporary_files(tmp_path) == []


def test_an_output_folder_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    place = tmp_path / "outputs"
    place.write_bytes(content_of(1))
    with pytest.raises(RunStopped, match=r"cannot write .*outputs/manifest.*output\.dir"):
        Journal(place)
