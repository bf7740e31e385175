"""What reaches the disk in which order, and what a full disk leaves behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from manifest_rows import attempt_of, done_of, job_id, make, part_rows, put_image

from jobs.manifest.job_states import job_key, read_states
from jobs.manifest.journal import Journal
from jobs.manifest.layout import Layout
from jobs.manifest.recovery import recover
from jobs.manifest.schema import FAILED
from pipeline.errors import DiskFull, RunStopped


def journals(output_dir: Path) -> list[Path]:
    return sorted(Layout(output_dir).journals.glob("*.jsonl"))


def temporary_files(output_dir: Path) -> list[Path]:
    return list((output_dir / "manifest").rglob(".*.tmp"))


class Recorder:
    """Notes what the program asks of the disk, in order: `write`, `fsync`, `replace`, `unlink`, each with a name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        originals: dict[str, Any] = {name: getattr(os, name) for name in ("write", "fsync", "replace", "unlink")}

        def named(target: Any) -> str:
            path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)
            return path.suffix or path.name

        def wrap(name: str) -> None:
            def call(target: Any, *rest: Any, **keywords: Any) -> Any:
                final = rest[0] if name == "replace" else target
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
    journal.fail([attempt_of(2, status=FAILED)])
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
        ("replace", ".parquet"),
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
            ("replace", ".jsonl"),
            ("fsync", "journal"),
            ("replace", ".parquet"),
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
        "fail": lambda: journal.fail([attempt_of(3, status=FAILED)]),
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
    assert read_states(tmp_path).folders.keys() >= {job_key(job_id(1))}


def test_a_seal_that_could_not_be_published_is_finished_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: the next journal has its name, the part has not."""
    journal = Journal(tmp_path, seal_rows=1)
    journal.start([attempt_of(9)])
    make(journal, tmp_path, 1)
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if Path(target).suffix == ".parquet":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DiskFull):
        journal.seal_if_due()
    assert len(journals(tmp_path)) == 2
    monkeypatch.undo()
    assert read_states(tmp_path).folders.keys() == {job_key(job_id(1))}
    journal.close()
    assert sorted((row["job_id"], row["status"]) for row in part_rows(tmp_path)) == sorted(
        [(job_id(1), "done"), (job_id(9), "interrupted")]
    )
    assert journals(tmp_path) == temporary_files(tmp_path) == []
