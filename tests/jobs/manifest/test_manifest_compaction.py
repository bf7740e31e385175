"""Compaction: fewer files, the same rows, at every moment and after every crash."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from manifest_rows import attempt_of, done_of, make, part_rows, query, write_part

from jobs.manifest import compaction
from jobs.manifest.compaction import Compaction, compact
from jobs.manifest.journal import Journal
from jobs.manifest.layout import Layout
from jobs.manifest.recovery import recover
from jobs.manifest.schema import FAILED, arrow_schema
from pipeline.errors import DiskFull, ReadError
from pipeline.storage.locks import exclusive


def parts(output_dir: Path) -> list[Path]:
    return sorted(Layout(output_dir).parts.glob("*.parquet"))


def seeds(output_dir: Path) -> list[int]:
    """What counts, seen through our own view."""
    rows = query(output_dir, lambda connection: connection.execute("SELECT seed FROM images").fetchall())
    return sorted(seed for (seed,) in rows)


def sorted_rows(output_dir: Path) -> list[str]:
    return sorted(repr({**row, "tags": list(row["tags"])}) for row in part_rows(output_dir))


def test_small_parts_become_one_sorted_part_with_the_same_rows(tmp_path: Path) -> None:
    for n in (3, 1, 2):
        write_part(tmp_path, f"p{n}", [done_of(10 * n + 5), attempt_of(10 * n, status=FAILED)])
    before = sorted_rows(tmp_path)
    assert compact(tmp_path) == Compaction(parts_before=3, parts_after=1, rows_moved=6)
    assert sorted_rows(tmp_path) == before
    (merged,) = parts(tmp_path)
    table = pq.ParquetFile(merged).read()
    assert table.schema.equals(arrow_schema())
    assert table.schema.metadata == arrow_schema().metadata
    assert table.column("seed").to_pylist() == [10, 15, 20, 25, 30, 35]
    assert list(Layout(tmp_path).log.iterdir()) == []
    assert compact(tmp_path) == Compaction(1, 1, 0), "a second time there is nothing to do"


def test_big_parts_are_left_and_groups_stop_at_the_target(tmp_path: Path) -> None:
    write_part(tmp_path, "a_big", [done_of(n) for n in range(6)])
    for index in range(5):
        write_part(tmp_path, f"b{index}", [done_of(100 + 3 * index + n) for n in range(3)])
    assert compact(tmp_path, target_rows=10) == Compaction(parts_before=6, parts_after=3, rows_moved=15)
    assert sorted(pq.read_metadata(path).num_rows for path in parts(tmp_path)) == [6, 6, 9]


def test_groups_stop_at_a_size_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(4):
        write_part(tmp_path, f"p{index}", [done_of(index)])
    one = compaction._measure(parts(tmp_path)[0]).uncompressed_bytes
    monkeypatch.setattr(compaction, "TARGET_BYTES", int(one * 2.5))
    assert compact(tmp_path).parts_after == 2


def test_a_live_journal_goes_on_and_its_rows_stay_single(tmp_path: Path) -> None:
    with Journal(tmp_path, seal_rows=1) as journal:
        for n in range(3):
            make(journal, tmp_path, n)
            journal.seal_if_due()
        make(journal, tmp_path, 3)
        assert compact(tmp_path).parts_after == 1
        assert seeds(tmp_path) == [0, 1, 2, 3]
        make(journal, tmp_path, 4)
    assert seeds(tmp_path) == [0, 1, 2, 3, 4]


def test_a_part_whose_journal_still_stands_is_not_touched(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        row = make(journal, tmp_path, 1)
        (live,) = Layout(tmp_path).journals.glob("*.jsonl")
        write_part(tmp_path, live.stem, [row])
        write_part(tmp_path, "other", [done_of(2)])
        assert compact(tmp_path).rows_moved == 0
    assert seeds(tmp_path) == [1, 2]


def test_a_dead_journal_is_sealed_first(tmp_path: Path) -> None:
    row = done_of(1)
    journal = Layout(tmp_path).journal("20260101_000000_0123456789ab-0001")
    write_part(tmp_path, journal.stem, [row])
    journal.write_bytes(b"")
    write_part(tmp_path, "other", [done_of(2)])
    assert compact(tmp_path).parts_after == 1
    assert not journal.exists()


def test_older_columns_are_filled_and_newer_versions_left_alone(tmp_path: Path) -> None:
    old = write_part(tmp_path, "old", [done_of(1)])
    pq.write_table(pq.read_table(old).drop_columns(["selection", "tags"]), old)
    write_part(tmp_path, "current", [done_of(2)])
    newer = write_part(tmp_path, "newer", [done_of(3)])
    table = pq.read_table(newer)
    pq.write_table(table.replace_schema_metadata({"darkroom.schema_version": "2"}), newer)
    (parts(tmp_path)[0].parent / "foreign.parquet").write_bytes(b"")
    assert compact(tmp_path) == Compaction(2, 1, 2)
    assert newer.exists()
    assert seeds(tmp_path) == [1, 2, 3]


def test_one_compactor_at_a_time(tmp_path: Path) -> None:
    write_part(tmp_path, "a", [done_of(1)])
    with (
        exclusive(Layout(tmp_path).compaction_lock, wait=False) as mine,
        pytest.raises(ReadError, match="another compact"),
    ):
        assert mine
        compact(tmp_path)


def test_without_a_manifest_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no manifest here"):
        compact(tmp_path)


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_a_full_disk_leaves_the_manifest_as_it_was(
    failing_call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        write_part(tmp_path, f"p{n}", [done_of(n)])
    fsync, calls = os.fsync, 0

    def refuse(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskFull):
        compact(tmp_path)
    monkeypatch.undo()
    assert seeds(tmp_path) == [0, 1, 2]
    assert list(Layout(tmp_path).parts.glob(".*")) == []
    compact(tmp_path)
    assert seeds(tmp_path) == [0, 1, 2]
    assert len(parts(tmp_path)) == 1


def begun_replacement(output_dir: Path, inputs: list[str], outputs: list[str], **other: Any) -> None:
    """As a compactor leaves it that died after writing its record."""
    content = {"inputs": inputs, "outputs": outputs, "temporaries": [f".{name}.1.tmp" for name in outputs]}
    Layout(output_dir).create()
    (Layout(output_dir).log / "0123.json").write_text(json.dumps(content | other))


@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("deleted", [0, 1, 2])
def test_readers_count_a_half_done_replacement_once(published: int, deleted: int, tmp_path: Path) -> None:
    """Two parts become two others; whatever number of renames and deletions has happened."""
    if deleted and published < 2:
        deleted = 0  # nothing is deleted before the commit
    inputs = [write_part(tmp_path, f"in{n}", [done_of(n)]) for n in range(2)]
    outputs = [write_part(tmp_path, f"out{n}", [done_of(n)]) for n in range(2)]
    for path in outputs[published:]:
        path.rename(path.with_name(f".{path.name}.1.tmp"))
    for path in inputs[:deleted]:
        path.unlink()
    begun_replacement(tmp_path, [path.name for path in inputs], [path.name for path in outputs])
    assert seeds(tmp_path) == [0, 1]
    recover(tmp_path)
    assert seeds(tmp_path) == [0, 1]
    assert parts(tmp_path) == sorted(outputs)
    assert list(Layout(tmp_path).log.iterdir()) == []


def test_an_output_that_somebody_deleted_never_costs_the_inputs(tmp_path: Path) -> None:
    write_part(tmp_path, "in", [done_of(1)])
    write_part(tmp_path, "out0", [done_of(1)])
    begun_replacement(tmp_path, ["in.parquet"], ["out0.parquet", "out1.parquet"])
    recover(tmp_path)
    assert [path.name for path in parts(tmp_path)] == ["in.parquet"]
    assert seeds(tmp_path) == [1]
